"""Concrete lengths for the free dimensions of a model's inputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest

import onnx
import onnx_ir

from onnxadmm.graph.model import Model

# Pairs of lengths to try, in this order: for batch dimensions, and for all others (image sides, sequence lengths).
# Large multiples of 32 first, because strides and windows must divide them and a difference must survive every
# division. The pairs of equal lengths serve models that accept only one, which is not 1: that fits by repetition what
# is of another length.
_BATCHES = ((2, 3), (1, 1), (8, 16))
_OTHERS = (
    *((256, 384), (16, 24), (64, 160), (224, 448), (320, 640), (32, 48)),
    *((8, 12), (4, 6), (2, 3)),
)
_EQUAL = tuple((length, length) for length in (32, 224, 28, 299, 512, 64, 128, 48))
# One dimension of several that accepts one length alone: the height of a line of text, the bands of a spectrum.
_ALONE = ((48, 32, 64), (80, 128, 40, 100, 224))
_MOST_ALONE = 3  # dimensions that are tried in that way
# Beside a length that the user or the data have: the second one, by which the pair has to differ.
_FURTHER = (2.0, 1.5, 0.5)
_MORE = (64, 32, 8, 1)

_LONGEST_FORMULA = 200  # characters of a symbol that is computed from others


@dataclass(frozen=True)
class FreeDimensions:
    """The free dimensions of a model's inputs.

    Attributes:
        symbols: symbol of every free dimension, by input and axis; dimensions without a name share one per axis.
        batch: symbols that stand at axis 0 of some input.
        fixed: symbols that a weight leaves only one length.
        stated: lengths that the user or the data have, by symbol, those at axis 0 excepted.
    """

    symbols: Mapping[tuple[str, int], str]
    batch: frozenset[str]
    fixed: Mapping[str, int]
    stated: Mapping[str, int]


#: Lengths for all free dimensions but the batch, to be tried by running the model.
TRIED_BY_RUNNING = (64, 32, 224, 16, 128, 320, 8, 1)

Sample = Mapping[str, tuple[int, int]]


def free_dimensions(model: Model) -> FreeDimensions:
    """Collect the free dimensions of all inputs that are not initializers."""
    symbols: dict[tuple[str, int], str] = {}
    fixed: dict[str, int] = {}
    stated: dict[str, int] = {}
    for value in model.ir.graph.inputs:
        if value.is_initializer() or value.shape is None or not value.name:
            continue
        given = model.input_shapes.get(value.name)
        for axis, dim in enumerate(value.shape):
            if isinstance(dim, int):
                continue
            symbol = str(dim.value) if dim.value else f"?{axis}"
            if axis > 0 and given is not None:
                if not dim.value and stated.get(symbol, given[axis]) != given[axis]:
                    symbol = f"?{axis} of {value.name}"  # no name says that the two are one
                stated.setdefault(symbol, given[axis])
            symbols[value.name, axis] = symbol
            length = _length_by_weight(value, axis)
            if length is not None:
                fixed.setdefault(symbol, length)
    batch = frozenset(symbol for (_, axis), symbol in symbols.items() if axis == 0)
    stated = {symbol: length for symbol, length in stated.items() if symbol not in batch and symbol not in fixed}
    return FreeDimensions(symbols, batch - fixed.keys(), fixed, stated)


def samples(free: FreeDimensions) -> Iterator[Sample]:
    """Assignments of two lengths to every symbol, the most telling ones first."""
    known = {symbol: (length, length) for symbol, length in free.fixed.items()}
    for batch, others in product(_BATCHES if free.batch else _BATCHES[:1], _lengths_of_others(free)):
        sample = known | dict.fromkeys(free.batch, batch) | others
        yield sample | _computed(sample)


def is_telling(free: FreeDimensions, sample: Sample) -> bool:
    """Tell whether the two lengths of a sample show what depends on a free dimension and what does not.

    Where they are equal, sizes that may vary look like constants: that is right only for a model that accepts no other.
    """
    others = set(free.symbols.values()) - free.batch - free.fixed.keys()
    batch = not free.batch or any(sample[symbol][0] != sample[symbol][1] for symbol in free.batch)
    return batch and (not others or any(sample[symbol][0] != sample[symbol][1] for symbol in others))


def _lengths_of_others(free: FreeDimensions) -> Iterator[dict[str, tuple[int, int]]]:
    """Assignments to the symbols that are neither batch nor fixed by a weight: all alike, then one apart."""
    open_symbols = [
        symbol
        for symbol in dict.fromkeys(free.symbols.values())
        if symbol not in free.batch and symbol not in free.fixed and symbol not in free.stated
    ]
    stated = [{symbol: _beside(length, number) for symbol, length in free.stated.items()} for number in range(_TRIES)]
    if not open_symbols:
        yield from stated if free.stated else [{}]
        return
    for given, pair in zip_longest(stated if free.stated else [], _OTHERS, fillvalue=None):
        yield (given or stated[-1] if free.stated else {}) | dict.fromkeys(open_symbols, pair or _OTHERS[0])
    yield from _one_apart(_ALONE[0], open_symbols, stated[0])
    for pair in _EQUAL:
        yield stated[-1] | dict.fromkeys(open_symbols, pair)
    yield from _one_apart(_ALONE[1], open_symbols, stated[0])


def _one_apart(
    lengths: Sequence[int], symbols: Sequence[str], stated: Mapping[str, tuple[int, int]]
) -> Iterator[dict[str, tuple[int, int]]]:
    """Assignments in which one of several symbols has one length, and the others two."""
    if len(symbols) + len(stated) > 1:
        for length, symbol in product(lengths, symbols[:_MOST_ALONE]):
            yield {**stated, **dict.fromkeys(symbols, _OTHERS[0]), symbol: (length, length)}


_TRIES = len(_FURTHER) + len(_MORE) + 1


def _beside(length: int, number: int) -> tuple[int, int]:
    """A pair that begins with a length; the last of all tries has it twice."""
    if number < len(_FURTHER):
        second = int(length * _FURTHER[number])
        return length, second if second > 0 else length
    more = _MORE[number - len(_FURTHER)] if number < _TRIES - 1 else 0
    return length, length + more


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
        # A formula of others names them; asking onnx_ir about anything else would import sympy for nothing.
        if symbol.isidentifier() or not any(other != symbol and other in symbol for other in sample):
            continue
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
