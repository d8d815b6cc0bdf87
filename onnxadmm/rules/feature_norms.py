"""Normalisations over features, in one operator: their width shrinks exactly, behind a gate.

Of ``n`` positions ``k`` stay, and the others are zero in the masked network. With S the sum of the squares, the root
mean square keeps its operator, with another epsilon and another scale:

    x / sqrt(S / n + epsilon) * scale  =  x / sqrt(S / k + epsilon n / k) * (scale sqrt(n / k))

Layer normalisation does not: its mean is ``m = k/n mean(x)`` over what stays, and each of the zeros is ``m`` away from
it. So it is written out in operators of its operator set:

    (x - m) / sqrt(k/n mean((x - m)^2) + (1 - k/n) m^2 + epsilon) * scale + shift
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxadmm.rules import foreign_shapes
from onnxadmm.rules.edit import Edit, Written
from onnxadmm.rules.facts import Operand
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit

_MICROSOFT = "com.microsoft"
_ROOT_NOTE = "divides by the root of a mean square, whose length the rewrite makes up for in the scale; ties the scale"
_LAYER_NOTE = "normalises over its last axes, and is written out where they shrink; ties scale and shift"
_AXES_FROM = 18  # the operator set in which axes of ReduceMean became an operand
_EPSILON, _SKIP_EPSILON = 1e-5, 1e-12  # the defaults of ONNX, and of onnxruntime's operators with a sum


def _normalise(visit: Visit, parts: Sequence[Operand], parameters: Sequence[int], first: int, shown: range) -> None:
    """Label a norm over the axes from ``first`` on, of the sum of some parts.

    Args:
        visit: the node.
        parts: ``[..., n...]`` or broadcast to it.
        parameters: operands that are broadcast against the result, such as a scale ``[n...]``; some may be absent.
        first: the first of the axes that are normalised over.
        shown: results with what it normalises with, ``[..., 1...]``. Who reads them is not told of what goes.
    """
    data = parts[0]
    if first == data.rank:
        raise LockNodeError("names no axis to normalise over")
    tied = [*parts, *(visit.operand(index) for index in parameters if visit.has_operand(index))]
    axes = visit.tie_broadcast(tied, data.shape)
    read = any(visit.is_result_read(index) or visit.is_graph_output(index) for index in shown)
    for axis in range(first, data.rank):
        if read:
            visit.lock(axes[axis], "shows what it normalises with")
            axes[axis] = None
        for part in parts:
            _hide(visit, part, axis - data.rank + part.rank)
    visit.set_result(axes)
    for index in shown:
        if visit.has_result(index):
            visit.set_result([*axes[:first], *([None] * (data.rank - first))], index=index)


def _hide(visit: Visit, part: Operand, axis: int) -> None:
    """Have positions that go be zero where they are summed up: in a constant by its own zeros."""
    if part.constant:
        visit.mark_reader(part, axis)
    else:
        visit.mark_summed(part, axis)


def _share(edit: Edit, axes: Sequence[int]) -> float:
    """Return the share of the positions along some axes that stay."""
    data = edit.operand(0)
    share = 1.0
    for axis in axes:
        share *= data.size(axis) / data.shape[axis]
    return share


def _last_axes(edit: Edit) -> list[int]:
    rank = edit.operand(0).rank
    return list(range(edit.integer("axis", -1) % rank, rank))


# -- root mean square --------------------------------------------------------------------------------


def _make_up(edit: Edit, scale: int, axes: Sequence[int], epsilon: float) -> None:
    share = _share(edit, axes)
    if share != 1:
        edit.scale_operand(scale, share**-0.5)
        edit.set_number("epsilon", edit.number("epsilon", epsilon) / share)


def _rewrite_root(edit: Edit) -> None:
    _make_up(edit, 1, _last_axes(edit), _EPSILON)


@rule("RMSNormalization", rewrite=_rewrite_root, normalises=True, vectors=(1,), note=_ROOT_NOTE)
@rule(
    "SimplifiedLayerNormalization", rewrite=_rewrite_root, normalises=True, vectors=(1,),
    shape=foreign_shapes.normalization, note=_ROOT_NOTE,
)  # fmt: skip
def root_mean_square_normalization(visit: Visit) -> None:
    """x ``[..., n...]``, scale broadcast against it.

    onnxruntime knows SimplifiedLayerNormalization in every operator set of the default domain, onnx in none.
    """
    data = visit.operand(0)
    first = visit.axis_attribute("axis", -1, data.rank)
    _normalise(visit, [data], (1,), first, range(1, visit.result_count))


def _rewrite_root_of_sum(edit: Edit) -> None:
    _make_up(edit, 2, [edit.operand(0).rank - 1], _SKIP_EPSILON)


@rule(
    "SkipSimplifiedLayerNormalization", domain=_MICROSOFT, rewrite=_rewrite_root_of_sum, normalises=True,
    vectors=(2, 3), shape=foreign_shapes.skip_normalization,
    note="as SimplifiedLayerNormalization, of a sum whose parts are tied",
)  # fmt: skip
def skip_root_mean_square_normalization(visit: Visit) -> None:
    """x ``[B, T, n]``, skip ``[B, T, n]`` or broadcast to it, scale ``[n]``, bias ``[n]`` that the sum has too."""
    _normalise_sum(visit, bias=3, parameters=(2,))


def _normalise_sum(visit: Visit, *, bias: int, parameters: Sequence[int]) -> None:
    """Results are the norm, two numbers of each row that it normalises with, and the sum."""
    data = visit.operand(0)
    parts = [visit.operand(index) for index in (0, 1, bias) if visit.has_operand(index)]
    if any(part.shape[-1] != data.shape[-1] for part in parts):
        raise LockNodeError("adds up parts of different widths")
    _normalise(visit, parts, parameters, data.rank - 1, range(1, min(visit.result_count, 3)))
    visit.set_result(visit.tie_broadcast(parts, data.shape), index=3)


# -- layer normalisation -----------------------------------------------------------------------------


def _rewrite_layer(edit: Edit) -> None:
    axes = _last_axes(edit)
    if _share(edit, axes) != 1:
        edit.replace_by(_written_out(edit, edit.value_of_operand(0), (1, 2), axes, _EPSILON))


def _rewrite_layer_of_sum(edit: Edit) -> None:
    axes = [edit.operand(0).rank - 1]
    if _share(edit, axes) == 1:
        return
    total = edit.write("Add", edit.value_of_operand(0), edit.value_of_operand(1))
    if edit.has_operand(4):
        total = edit.write("Add", total, edit.value_of_operand(4))
    edit.replace_by(_written_out(edit, total, (2, 3), axes, _SKIP_EPSILON), None, None, total)


def _written_out(
    edit: Edit, data: Written, parameters: tuple[int, int], axes: Sequence[int], epsilon: float
) -> Written:
    """Write layer normalisation of fewer positions than it counts; half precision is summed up in single."""
    share, dtype = _share(edit, axes), edit.dtype(0)
    wide = np.float64 if dtype == np.float64 else np.float32

    def number(value: float) -> NDArray[Any]:
        return np.asarray(value, wide)

    def mean(value: Written) -> Written:
        if edit.opset_version >= _AXES_FROM:
            found = edit.write("ReduceMean", value, np.asarray(axes, np.int64), keepdims=1)
        else:
            found = edit.write("ReduceMean", value, axes=axes, keepdims=1)
        return edit.write("Mul", found, number(share))

    x = edit.write("Cast", data, to=TensorProto.FLOAT) if dtype.itemsize == 2 else data
    middle = mean(x)
    centred = edit.write("Sub", x, middle)
    variance = mean(edit.write("Mul", centred, centred))
    removed = edit.write("Mul", edit.write("Mul", middle, middle), number(1 - share))
    shifted = edit.write("Add", removed, number(edit.number("epsilon", epsilon)))
    y = edit.write("Div", centred, edit.write("Sqrt", edit.write("Add", variance, shifted)))
    if dtype.itemsize == 2:
        y = edit.write("Cast", y, to=helper.np_dtype_to_tensor_dtype(dtype))
    for operator, index in zip(("Mul", "Add"), parameters, strict=True):
        if edit.has_operand(index):
            y = edit.write(operator, y, edit.value_of_operand(index))
    return y


@rule(
    "LayerNormalization", rewrite=_rewrite_layer, normalises=True, vectors=(1, 2), gradient="engine",
    shape=foreign_shapes.normalization, note=_LAYER_NOTE,
)  # fmt: skip
def layer_normalization(visit: Visit) -> None:
    """x ``[..., n...]``, scale and shift broadcast against it; mean and inverse deviation ``[..., 1...]``."""
    data = visit.operand(0)
    first = visit.axis_attribute("axis", -1, data.rank)
    _normalise(visit, [data], (1, 2), first, range(1, visit.result_count))


@rule(
    "SkipLayerNormalization", domain=_MICROSOFT, rewrite=_rewrite_layer_of_sum, normalises=True, vectors=(2, 3, 4),
    shape=foreign_shapes.skip_normalization, note="as LayerNormalization, of a sum whose parts are tied",
)  # fmt: skip
def skip_layer_normalization(visit: Visit) -> None:
    """x ``[B, T, n]``, skip ``[B, T, n]`` or broadcast to it, scale ``[n]``, shift ``[n]``, bias ``[n]``."""
    _normalise_sum(visit, bias=4, parameters=(2, 3))
