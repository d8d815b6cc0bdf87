"""Blocks by operator: small pieces of network with a port on either side, registered for the operators they contain."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tests.graphs import weighted
from tests.graphs.builder import GraphBuilder, Value

Kind = Literal["image", "last", "tokens", "flat", "sequence"]
KINDS: tuple[Kind, ...] = ("image", "last", "tokens", "flat", "sequence")
MICROSOFT = "com.microsoft"
#: Versions of the default operator set that onnxruntime runs; above the last only onnx's own evaluator does.
ANY_OPSET = (13, 24)
RUNTIME_OPSET = (13, 21)


@dataclass(frozen=True)
class Port(Value):
    """A tensor between blocks, and what its axes mean.

    ``image`` is ``[N, C, ...]``, ``last`` ``[N, ..., C]``, ``tokens`` ``[N, T, D]``, ``flat`` ``[N, F]``, ``sequence``
    ``[T, N, D]``.
    """

    kind: Kind = "flat"

    @property
    def axis(self) -> int:
        """The axis of the channels, counted from the front."""
        return 1 if self.kind == "image" else self.rank - 1

    @property
    def channels(self) -> int:
        return self.shape[self.axis]

    @property
    def channel_shape(self) -> list[int]:
        """The shape of a constant with one entry per channel."""
        return [self.channels] + [1] * (self.rank - 1 - self.axis)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the axes that are neither batch nor channels."""
        batch = 1 if self.kind == "sequence" else 0
        return tuple(size for axis, size in enumerate(self.shape) if axis not in (batch, self.axis))


def port(kind: Kind, value: Value) -> Port:
    return Port(value.name, value.shape, value.dtype, kind)


Function = Callable[[GraphBuilder, Port], Value]
Fits = Callable[[Port], bool]


@dataclass(frozen=True)
class Block:
    """One registered piece of network.

    Attributes:
        name: what it shows, in words.
        operators: what every network of it contains, ``Conv`` or ``com.microsoft.Gelu``.
        function: appends it.
        sources: the kinds of port it takes.
        target: the kind it gives; None for the one it got.
        opsets: first and last version of the default operator set.
        fits: what else it asks of its port.
        passes: channels in front of it may be removed, whatever it draws.
        steps: it rounds or compares, so that rounding noise may show as a step.
        fixed: it needs a batch that is a number.
    """

    name: str
    operators: frozenset[str]
    function: Function
    sources: tuple[Kind, ...]
    target: Kind | None
    opsets: tuple[int, int]
    fits: Fits
    passes: bool
    steps: bool
    fixed: bool

    def takes(self, b: GraphBuilder, x: Port) -> bool:
        """Tell whether it may follow this port."""
        return (
            x.kind in self.sources
            and self.opsets[0] <= b.opset <= self.opsets[1]
            and not (self.fixed and b.symbolic_batch)
            and self.fits(x)
        )

    def apply(self, b: GraphBuilder, x: Port) -> Port:
        b.features.add(f"block {self.name}")
        if self.steps:
            b.features.add("steps")
        return port(self.target or x.kind, self.function(b, x))


_BLOCKS: dict[str, Block] = {}


def block(
    name: str,
    *operators: str,
    on: tuple[Kind, ...] = KINDS,
    to: Kind | None = None,
    opsets: tuple[int, int] = ANY_OPSET,
    fits: Fits = lambda x: True,
    passes: bool = True,
    steps: bool = False,
    fixed: bool = False,
) -> Callable[[Function], Function]:
    """Register a function as a block.

    Raises:
        ValueError: two blocks have one name.
    """

    def register(function: Function) -> Function:
        if any(operator.startswith(MICROSOFT) for operator in operators):
            limits = (opsets[0], min(opsets[1], RUNTIME_OPSET[1]))
        else:
            limits = opsets
        add(Block(name, frozenset(operators), function, on, to, limits, fits, passes, steps, fixed))
        return function

    return register


def add(made: Block) -> None:
    """Register a block.

    Raises:
        ValueError: two blocks have one name.
    """
    if made.name in _BLOCKS:
        raise ValueError(f"two blocks {made.name!r}")
    _BLOCKS[made.name] = made


def all_blocks() -> tuple[Block, ...]:
    """Every block, in the order of registration."""
    return tuple(_BLOCKS.values())


# What several families share


def project(b: GraphBuilder, x: Port, channels: int, *, kind: Kind | None = None) -> Port:
    """A layer on the channels: a pointwise convolution or a matrix product."""
    layer = weighted.pointwise if x.kind == "image" else weighted.matmul
    return port(kind or x.kind, layer(b, x, channels))


def per_channel(b: GraphBuilder, x: Port, hint: str = "shift") -> Value:
    """A constant with one entry per channel, of either sign and far from zero."""
    return b.bias(x.channel_shape, hint)


def reduced(b: GraphBuilder, operator: str, x: Value, axes: list[int], *, keep: bool) -> Value:
    """A reduction, its axes where this operator set has them."""
    if b.opset >= (13 if operator == "ReduceSum" else 18):
        return b.one(operator, [x, b.integers(*axes)], {"keepdims": int(keep)})
    return b.one(operator, [x], {"axes": axes, "keepdims": int(keep)})


def to_float(b: GraphBuilder, x: Value) -> Value:
    return b.one("Cast", [x], {"to": 1})


def number(b: GraphBuilder, value: int) -> Value:
    """A single int64."""
    return b.initializer(np.asarray(value, np.int64), "number")


def divisible(by: int) -> Fits:
    """The channels are a multiple of ``by``, and more than one of it."""
    return lambda x: x.channels % by == 0 and x.channels > by


def image4(x: Port) -> bool:
    """An image of two spatial axes of at least two positions."""
    return x.rank == 4 and min(x.sizes) >= 2
