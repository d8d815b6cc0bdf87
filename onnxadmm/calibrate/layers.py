"""Layers that read units, as matrices: rows of what goes in, times the weight, are what comes out.

A convolution reads patches, a matrix product rows. Here, and only here, stands how each of them is laid out.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.constants import FLOATS, constant
from onnxadmm.graph.model import Model

Array = NDArray[Any]
FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
UnitArray = NDArray[np.int64]


@dataclass(frozen=True)
class Offset:
    """A constant with one number per output of a layer, which is added behind it.

    Attributes:
        tensor: its name.
        factor: what its number is multiplied by before it is added: -1 for the mean that a normalisation subtracts.
    """

    tensor: str
    factor: float


@dataclass(frozen=True)
class Layer:
    """A node that multiplies its data with a constant weight, in ``blocks`` independent products.

    Attributes:
        node: name of its first result.
        index: its place among the nodes of the graph.
        data: name of the value it reads.
        weight: name of its weight.
        reading: axis of the weight along which it reads.
        blocks: groups of a convolution; 1 otherwise.
        taps: rows of the matrix per position of the reading axis: the size of a kernel, or 1.
        offset: what can make up for a constant error of its outputs; None where nothing can.
        limits: between which values what follows tells its outputs (with the offset) apart; None: it tells them all.
    """

    node: str
    index: int
    data: str
    weight: str
    reading: int
    blocks: int
    taps: int
    offset: Offset | None
    limits: tuple[float, float] | None
    _rows: Callable[[FloatArray, int, np.random.Generator], FloatArray]
    _to_matrix: Callable[[Array], Array]
    _to_weight: Callable[[Array, tuple[int, ...]], Array]

    def rows(self, data: Array, count: int, generator: np.random.Generator) -> FloatArray:
        """Return rows that the layer reads, drawn at random: float32 ``[blocks, rows, width]``.

        Args:
            data: what goes in.
            count: most rows.
            generator: equal ones draw the same rows from data of the same shape.
        """
        return self._rows(np.asarray(data, np.float32), count, generator)

    def matrix(self, weight: Array) -> DoubleArray:
        """Return the weight as matrices, float64 ``[blocks, width, outputs of a block]``."""
        return self._to_matrix(np.asarray(weight, np.float64))

    def weight_of(self, matrix: Array, like: Array) -> Array:
        """Return a matrix as the weight, in shape and type of ``like``."""
        return np.ascontiguousarray(self._to_weight(matrix, like.shape).astype(like.dtype))

    def units_of_rows(self, units: UnitArray) -> UnitArray:
        """Return the unit of each row of the matrix, -1 where there is none: int64 ``[blocks, width]``.

        Args:
            units: at each position of the reading axis, ``[n]`` or ``[blocks, n]``.
        """
        return np.repeat(np.broadcast_to(np.atleast_2d(units), (self.blocks, units.shape[-1])), self.taps, axis=1)


def find_layers(model: Model) -> list[Layer]:
    """Return the layers of the main graph whose weights may be fitted anew, in the order of the graph.

    Left out are layers whose weight is computed, is not of floats, or is shared with another node.
    """
    found = []
    for index, node in enumerate(model.ir.graph):
        layer = _FORMS.get((node.domain.replace("ai.onnx", ""), node.op_type), _none)(node, index)
        if layer is not None:
            found.append(layer)
    return found


def _none(node: onnx_ir.Node, index: int) -> Layer | None:
    return None


def _own_weight(node: onnx_ir.Node, operand: int) -> Array | None:
    """The weight in an operand, where it is a constant of floats that nothing else reads."""
    value = node.inputs[operand] if operand < len(node.inputs) else None
    if value is None or value.is_graph_output() or len(tuple(value.uses())) != 1 or not node.outputs:
        return None
    array = constant(value)
    return array if array is not None and value.dtype in FLOATS else None


def _offset_operand(node: onnx_ir.Node, operand: int, outputs: int, factor: float = 1.0) -> Offset | None:
    array = _own_weight(node, operand)
    if array is None or array.size != outputs or array.shape[-1:] != (outputs,):
        return None
    return Offset(node.inputs[operand].name or "", factor)  # type: ignore[union-attr]  # it has a weight


def _offset_behind(node: onnx_ir.Node, outputs: int, behind: int) -> Offset | None:
    """A constant that the only reader of the result adds along the axis of its outputs, or subtracts as a mean.

    Args:
        behind: axes behind that of the outputs.
    """
    result = node.outputs[0]
    uses = tuple(result.uses())
    if len(uses) != 1 or result.is_graph_output():
        return None
    reader, operand = uses[0]
    if reader.op_type == "BatchNormalization" and operand == 0:
        return _offset_operand(reader, 3, outputs, -1.0)
    if reader.op_type != "Add" or len(reader.inputs) != 2:
        return None
    other = reader.inputs[1 - operand]
    array = _own_weight(reader, 1 - operand)
    if other is None or array is None or array.size != outputs:
        return None
    along = array.ndim - 1 - behind
    fits = 0 <= along < array.ndim and array.shape[along] == outputs
    return Offset(other.name or "", 1.0) if fits else None


def _limits_behind(node: onnx_ir.Node, offset: Offset | None) -> tuple[float, float] | None:
    """Between which values the only reader of the outputs, with their offset, tells them apart."""
    result = node.outputs[0]
    if offset is not None and all(value is None or value.name != offset.tensor for value in node.inputs):
        ((adding, _),) = result.uses()  # it was found there
        if adding.op_type != "Add":
            return None  # a normalisation stands between
        result = adding.outputs[0]
    uses = tuple(result.uses())
    if len(uses) != 1 or result.is_graph_output():
        return None
    reader = uses[0][0]
    if reader.op_type == "Relu":
        return 0.0, math.inf
    if reader.op_type != "Clip":
        return None
    given = [constant(value) if value is not None else None for value in reader.inputs[1:3]]
    found = [None if array is None or array.size != 1 else float(array.reshape(-1)[0]) for array in given]
    low, high = [*found, None, None][:2]
    return reader.attributes.get_float("min", -math.inf if low is None else low), reader.attributes.get_float(
        "max", math.inf if high is None else high
    )


def _some(count: int, most: int, generator: np.random.Generator) -> NDArray[np.int64] | slice:
    return slice(None) if count <= most else np.sort(generator.choice(count, most, replace=False))


# -- matrix products ---------------------------------------------------------------------------------


def _last_axis_rows(data: FloatArray, count: int, generator: np.random.Generator) -> FloatArray:
    rows = data.reshape(-1, data.shape[-1])
    return rows[_some(len(rows), count, generator)][None]


def _turned_rows(data: FloatArray, count: int, generator: np.random.Generator) -> FloatArray:
    return _last_axis_rows(np.swapaxes(data, -1, -2), count, generator)


def _as_is(weight: Array) -> Array:
    return weight[None]


def _turned(weight: Array) -> Array:
    return weight.T[None]


def _gemm(node: onnx_ir.Node, index: int) -> Layer | None:
    weight = _own_weight(node, 1)
    if weight is None or weight.ndim != 2 or node.inputs[0] is None:
        return None
    turned = node.attributes.get_int("transB", 0) != 0
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    outputs = weight.shape[0 if turned else 1]
    offset = _offset_operand(node, 2, outputs, beta / alpha) if len(node.inputs) > 2 and alpha * beta else None
    if offset is None and (len(node.inputs) < 3 or node.inputs[2] is None) and alpha == 1.0:
        offset = _offset_behind(node, outputs, 0)
    return _product(
        node,
        index,
        operand=0,
        reading=1 if turned else 0,
        offset=offset,
        rows=_turned_rows if node.attributes.get_int("transA", 0) else _last_axis_rows,
        turned=turned,
        limited=alpha == 1.0,
    )


def _matmul(node: onnx_ir.Node, index: int) -> Layer | None:
    second = _own_weight(node, 1)
    if second is not None and second.ndim == 2:
        offset = _offset_behind(node, second.shape[1], 0)
        return _product(node, index, operand=0, reading=0, offset=offset, rows=_last_axis_rows, turned=False)
    first = _own_weight(node, 0)
    if first is not None and first.ndim == 2:
        shape = node.inputs[1].shape if node.inputs[1] is not None else None
        if shape is not None and len(shape) >= 2:
            return _product(node, index, operand=1, reading=1, offset=None, rows=_turned_rows, turned=True)
    return None


def _product(
    node: onnx_ir.Node,
    index: int,
    *,
    operand: int,
    reading: int,
    offset: Offset | None,
    rows: Callable[[FloatArray, int, np.random.Generator], FloatArray],
    turned: bool,
    limited: bool = True,
) -> Layer:
    data, weight = node.inputs[operand], node.inputs[1 - operand]
    assert data is not None  # an operand of a product
    assert weight is not None
    return Layer(
        node=node.outputs[0].name or "",
        index=index,
        data=data.name or "",
        weight=weight.name or "",
        reading=reading,
        blocks=1,
        taps=1,
        offset=offset,
        limits=_limits_behind(node, offset) if limited else None,
        _rows=rows,
        _to_matrix=_turned if turned else _as_is,
        _to_weight=(lambda matrix, shape: matrix[0].T) if turned else (lambda matrix, shape: matrix[0]),
    )


def _recurrent(node: onnx_ir.Node, index: int) -> Layer | None:
    """The weights ``[directions, gates, inputs]`` that read the sequence; those that read the state stay."""
    weight = _own_weight(node, 1)
    if weight is None or weight.ndim != 3 or node.inputs[0] is None:
        return None
    return Layer(
        node=node.outputs[0].name or "",
        index=index,
        data=node.inputs[0].name or "",
        weight=node.inputs[1].name or "",  # type: ignore[union-attr]  # it has a weight
        reading=2,
        blocks=1,
        taps=1,
        offset=None,
        limits=None,
        _rows=_last_axis_rows,
        _to_matrix=lambda weight: weight.reshape(-1, weight.shape[2]).T[None],
        _to_weight=lambda matrix, shape: matrix[0].T.reshape(shape),
    )


# -- convolutions ------------------------------------------------------------------------------------


def _convolution(node: onnx_ir.Node, index: int) -> Layer | None:
    weight = _own_weight(node, 1)
    if weight is None or node.inputs[0] is None or weight.ndim < 3:
        return None
    spatial = weight.ndim - 2
    window = _Window(
        kernel=weight.shape[2:],
        strides=tuple(node.attributes.get_ints("strides", [1] * spatial)),
        dilations=tuple(node.attributes.get_ints("dilations", [1] * spatial)),
        pads=tuple(node.attributes.get_ints("pads", [0] * 2 * spatial)),
        auto_pad=node.attributes.get_string("auto_pad", "NOTSET"),
        blocks=node.attributes.get_int("group", 1),
    )
    if window.auto_pad.startswith("SAME") and any(a < b for a, b in zip(window.kernel, window.strides, strict=True)):
        return None  # some versions of onnxruntime pad by less than nothing there, and others do not
    outputs = weight.shape[0]
    absent = len(node.inputs) < 3 or node.inputs[2] is None
    offset = _offset_behind(node, outputs, spatial) if absent else _offset_operand(node, 2, outputs)
    return Layer(
        node=node.outputs[0].name or "",
        index=index,
        data=node.inputs[0].name or "",
        weight=node.inputs[1].name or "",  # type: ignore[union-attr]  # it has a weight
        reading=1,
        blocks=window.blocks,
        taps=prod(window.kernel),
        offset=offset,
        limits=_limits_behind(node, offset),
        _rows=window.rows,
        _to_matrix=window.matrix,
        _to_weight=window.weight,
    )


@dataclass(frozen=True)
class _Window:
    """What a convolution sees of its input ``[N, C, ...]`` with a weight ``[M, C/blocks, ...]``."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str
    blocks: int

    def rows(self, data: FloatArray, count: int, generator: np.random.Generator) -> FloatArray:
        """Patches at random places, ``[blocks, rows, channels of a block * taps]``."""
        begins, ends = self._padding(data.shape[2:])
        padded = np.pad(data, [(0, 0), (0, 0), *zip(begins, ends, strict=True)])
        reach = [dilation * (size - 1) + 1 for dilation, size in zip(self.dilations, self.kernel, strict=True)]
        places = tuple(
            (length - need) // stride + 1
            for length, need, stride in zip(padded.shape[2:], reach, self.strides, strict=True)
        )
        total = len(data) * prod(places)
        chosen = np.arange(total) if total <= count else np.sort(generator.choice(total, count, replace=False))
        sample, *at = np.unravel_index(chosen, (len(data), *places))
        rank = len(self.kernel)
        index: list[Any] = [sample.reshape(-1, *[1] * rank), slice(None)]
        for axis, (place, stride, dilation, size) in enumerate(
            zip(at, self.strides, self.dilations, self.kernel, strict=True)
        ):
            along = [1] * rank
            along[axis] = size
            index.append((place * stride).reshape(-1, *[1] * rank) + (np.arange(size) * dilation).reshape(1, *along))
        patches = padded[tuple(index)]  # [rows, *kernel, C]: the channels stand last behind indices on both sides
        patches = np.moveaxis(patches, -1, 1).reshape(len(chosen), self.blocks, -1)
        return np.ascontiguousarray(np.moveaxis(patches, 1, 0))

    def _padding(self, lengths: tuple[int, ...]) -> tuple[list[int], list[int]]:
        rank = len(lengths)
        if self.auto_pad in ("NOTSET", ""):
            return list(self.pads[:rank]), list(self.pads[rank:])
        if self.auto_pad == "VALID":
            return [0] * rank, [0] * rank
        begins, ends = [], []
        for length, size, stride, dilation in zip(lengths, self.kernel, self.strides, self.dilations, strict=True):
            need = max(0, (-(-length // stride) - 1) * stride + dilation * (size - 1) + 1 - length)
            small = need // 2
            begins.append(need - small if self.auto_pad == "SAME_LOWER" else small)
            ends.append(small if self.auto_pad == "SAME_LOWER" else need - small)
        return begins, ends

    def matrix(self, weight: Array) -> Array:
        blocks = weight.reshape(self.blocks, weight.shape[0] // self.blocks, -1)
        return np.ascontiguousarray(np.swapaxes(blocks, 1, 2))

    def weight(self, matrix: Array, shape: tuple[int, ...]) -> Array:
        return np.swapaxes(matrix, 1, 2).reshape(shape)


_FORMS: Final[Mapping[tuple[str, str], Callable[[onnx_ir.Node, int], Layer | None]]] = {
    ("", "Conv"): _convolution,
    ("", "Gemm"): _gemm,
    ("", "MatMul"): _matmul,
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
}
