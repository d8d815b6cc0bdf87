"""Division by the root of the mean square: its width shrinks exactly, behind a gate and with the rest made up for.

With S the sum of the squares over ``n`` positions, of which ``k`` stay while the others are zero in the masked network:

    x / sqrt(S / n + epsilon) * scale  =  x / sqrt(S / k + epsilon n / k) * (scale sqrt(n / k))
"""

from collections.abc import Sequence

from onnxadmm.rules import foreign_shapes
from onnxadmm.rules.edit import Edit
from onnxadmm.rules.facts import Axis, Operand
from onnxadmm.rules.table import rule
from onnxadmm.rules.visit import LockNodeError, Visit

_NOTE = "divides by the root of a mean square, whose length the rewrite makes up for in the scale; ties the scale"
_SKIP_EPSILON = 1e-12  # the default of onnxruntime's schema; that of the others is 1e-5


def _hide(visit: Visit, operand: Operand, axis: int) -> None:
    """Have the positions of an axis zero where a square is taken: a constant by its own zeros."""
    if operand.constant:
        visit.mark_reader(operand, axis)
    else:
        visit.mark_summed(operand, axis)


def _set_statistics(visit: Visit, axes: Sequence[Axis], results: Sequence[int]) -> None:
    """State the mean and the inverse root, which training kernels give; who reads them is not told of the rest.

    Raises:
        LockNodeError: somebody reads them.
    """
    for index in results:
        if visit.is_result_read(index) or visit.is_graph_output(index):
            raise LockNodeError("shows the root that it divides by")
        visit.set_result(axes, index=index)


def _rewrite(edit: Edit, scale: int, axes: Sequence[int], epsilon: float) -> None:
    """Make up for the mean over fewer positions."""
    data = edit.operand(0)
    share = 1.0
    for axis in axes:
        share *= data.size(axis) / data.shape[axis]
    if share != 1:
        edit.scale_operand(scale, share**-0.5)
        edit.set_number("epsilon", edit.number("epsilon", epsilon) / share)


def _rewrite_normalization(edit: Edit) -> None:
    rank = edit.operand(0).rank
    _rewrite(edit, 1, range(edit.integer("axis", -1) % rank, rank), 1e-5)


@rule("RMSNormalization", rewrite=_rewrite_normalization, normalises=True, vectors=(1,), note=_NOTE)
@rule(
    "SimplifiedLayerNormalization", rewrite=_rewrite_normalization, normalises=True, vectors=(1,),
    shape=foreign_shapes.normalization, note=_NOTE,
)  # fmt: skip
def root_mean_square_normalization(visit: Visit) -> None:
    """x ``[..., n...]`` over its axes from ``axis`` on, and a scale that is broadcast against them.

    onnxruntime knows SimplifiedLayerNormalization in every operator set of the default domain, onnx in none.
    """
    data, scale = visit.operand(0), visit.operand(1)
    first = visit.axis_attribute("axis", -1, data.rank)
    _set_statistics(visit, [*data.axes[:first], *([None] * (data.rank - first))], range(1, visit.result_count))
    for axis in range(first, data.rank):
        _hide(visit, data, axis)
    visit.set_result(visit.tie_broadcast([data, scale], data.shape))


def _rewrite_skip(edit: Edit) -> None:
    _rewrite(edit, 2, [edit.operand(0).rank - 1], _SKIP_EPSILON)


@rule(
    "SkipSimplifiedLayerNormalization", domain="com.microsoft", rewrite=_rewrite_skip, normalises=True, vectors=(2, 3),
    shape=foreign_shapes.skip_normalization, note="as SimplifiedLayerNormalization, of a sum whose parts are tied",
)  # fmt: skip
def skip_root_mean_square_normalization(visit: Visit) -> None:
    """x ``[B, T, n]``, skip ``[B, T, n]`` or broadcast to it, scale ``[n]``, bias ``[n]`` that the sum has too."""
    data = visit.operand(0)
    parts = [visit.operand(index) for index in (0, 1, 3) if visit.has_operand(index)]
    if any(part.shape[-1] != data.shape[-1] for part in parts):
        raise LockNodeError("adds up parts of different widths")
    axes = visit.tie_broadcast([*parts, visit.operand(2)], data.shape)
    _set_statistics(visit, [*axes[:-1], None], [index for index in (1, 2) if visit.has_result(index)])
    for part in parts:
        _hide(visit, part, part.rank - 1)
    visit.set_result(axes)
    visit.set_result(axes, index=3)
