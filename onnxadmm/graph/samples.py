"""Concrete lengths for the free dimensions of a model's inputs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import onnx
import onnx_ir

from onnxadmm.graph.model import Model

# Pairs of lengths to try, in this order: for batch dimensions, and for all others (image sides, sequence lengths).
# Large multiples of 32 first, because strides and windows must divide them and a difference must survive every
# division. The pairs of equal lengths serve models that accept only one.
_BATCHES = ((2, 3), (1, 1), (8, 16))
_OTHERS = ((256, 384), (16, 24), (64, 160), (224, 448), (32, 32), (224, 224), (28, 28), (299, 299), (512, 512), (1, 1))

_LONGEST_FORMULA = 200  # characters of a symbol that is computed from others


@dataclass(frozen=True)
class FreeDimensions:
    """The free dimensions of a model's inputs.

    Attributes:
        symbols: symbol of every free dimension, by input and axis; dimensions without a name share one per axis.
        batch: symbols that stand at axis 0 of some input.
        fixed: symbols that a weight leaves only one length.
    """

    symbols: Mapping[tuple[str, int], str]
    batch: frozenset[str]
    fixed: Mapping[str, int]


Sample = Mapping[str, tuple[int, int]]


def free_dimensions(model: Model) -> FreeDimensions:
    """Collect the free dimensions of all inputs that are not initializers."""
    symbols: dict[tuple[str, int], str] = {}
    fixed: dict[str, int] = {}
    for value in model.ir.graph.inputs:
        if value.is_initializer() or value.shape is None or not value.name:
            continue
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, int):
                continue
            symbol = str(dim.value) if dim.value else f"?{axis}"
            symbols[value.name, axis] = symbol
            length = _length_by_weight(value, axis)
            if length is not None:
                fixed.setdefault(symbol, length)
    batch = frozenset(symbol for (_, axis), symbol in symbols.items() if axis == 0)
    return FreeDimensions(symbols, batch - fixed.keys(), fixed)


def samples(free: FreeDimensions) -> Iterator[Sample]:
    """Assignments of two lengths to every symbol, the most telling ones first."""
    others = set(free.symbols.values()) - free.batch - free.fixed.keys()
    batches = _BATCHES if free.batch else _BATCHES[:1]
    for batch, other in product(batches, _OTHERS if others else _OTHERS[:1]):
        sample = {symbol: (length, length) for symbol, length in free.fixed.items()}
        sample |= dict.fromkeys(free.batch, batch)
        sample |= dict.fromkeys(others, other)
        yield sample | _computed(sample)


def type_of(value: onnx_ir.Value, sample: Mapping[str, int], symbols: Mapping[int, str]) -> onnx.TypeProto | None:
    """Type of ``value`` as the file states it, its symbols replaced; None without a tensor type.

    Args:
        sample: lengths by symbol; dimensions whose symbol is not in it stay unknown.
        symbols: symbols of dimensions that have no name of their own, by axis.
    """
    if not isinstance(value.type, onnx_ir.TensorType):
        return None
    result = onnx.TypeProto()
    result.tensor_type.elem_type = value.type.dtype.value
    if value.shape is not None:
        result.tensor_type.shape.SetInParent()
        for axis, dim in enumerate(value.shape):
            added = result.tensor_type.shape.dim.add()
            name = symbols.get(axis) if isinstance(dim, int) or not dim.value else str(dim.value)
            length = dim if isinstance(dim, int) else sample.get(name or "")
            if length is not None:
                added.dim_value = length
    return result


def _length_by_weight(value: onnx_ir.Value, axis: int) -> int | None:
    """The one length that ``axis`` of an input can have because a weight is applied along it, if so."""
    for node, index in value.uses():
        if index != 0 or len(node.inputs) < 2 or node.inputs[1] is None or node.inputs[1].shape is None:
            continue
        weight = node.inputs[1].shape
        rank = len(value.shape or ())
        if node.op_type == "Conv" and axis == 1 and len(weight) > 1:
            length, factor = weight[1], node.attributes.get_int("group", 1)
        elif node.op_type == "Gemm" and axis == 1 and rank == 2 and not node.attributes.get_int("transA", 0):
            length, factor = weight[1 if node.attributes.get_int("transB", 0) else 0], 1
        elif node.op_type == "MatMul" and axis == rank - 1 and len(weight) > 1:
            length, factor = weight[-2], 1
        elif node.op_type == "BatchNormalization" and axis == 1:
            length, factor = weight[0], 1
        else:
            continue
        if isinstance(length, int) and isinstance(factor, int):
            return length * factor
    return None


def _computed(sample: Sample) -> dict[str, tuple[int, int]]:
    """Lengths of symbols such as ``past + 1`` that are written in terms of others."""
    computed = {}
    for symbol in sample:
        # A power of powers would be computed for ever, and no exporter writes one.
        if len(symbol) > _LONGEST_FORMULA or any(power in symbol for power in ("**", "^")):
            continue
        try:
            dim = onnx_ir.SymbolicDim(symbol)
            names = dim.free_symbols() - {symbol}
            if not names or not names <= sample.keys():
                continue
            lengths = [dim.evaluate({name: sample[name][number] for name in names}) for number in (0, 1)]
        except Exception:  # whatever sympy makes of a name that is no formula
            continue
        if all(isinstance(length, int) and length > 0 for length in lengths):
            computed[symbol] = (int(str(lengths[0])), int(str(lengths[1])))
    return computed
