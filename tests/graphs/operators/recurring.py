"""Blocks with LSTM, GRU and RNN on ``[T, N, D]``."""

import numpy as np

from tests.graphs.builder import Attribute, GraphBuilder, Value
from tests.graphs.operators.registry import Port, block

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(
    b: GraphBuilder, x: Port, operator: str, hidden: int, direction: str, *, outputs: int
) -> tuple[Value, ...]:
    """One layer with random weights; a bias, first states and peepholes now and then."""
    rows, ways = _GATES[operator] * hidden, 2 if direction == "bidirectional" else 1
    operands: list[Value | None] = [
        x,
        b.weight([ways, rows, x.channels], x.channels, "input_weight"),
        b.weight([ways, rows, hidden], hidden, "hidden_weight"),
    ]
    attributes: dict[str, Attribute] = {"hidden_size": hidden}
    if direction != "forward" or b.choices.chance(30):
        attributes["direction"] = direction
    if operator == "GRU" and b.choices.chance(50):
        attributes["linear_before_reset"] = 1
    optional: list[Value | None] = [b.bias([ways, 2 * rows], "gate_bias") if b.choices.chance(70) else None, None]
    if not b.symbolic_batch and b.choices.chance(50):
        b.features.add(f"{operator} with first states")
        optional.append(b.bias([ways, x.shape[1], hidden], "first"))
        if operator == "LSTM":
            optional.append(b.bias([ways, x.shape[1], hidden], "first_cell"))
    if operator == "LSTM" and b.choices.chance(40):
        b.features.add("LSTM with peepholes")
        optional += [None] * (4 - len(optional))
        optional.append(b.bias([ways, 3 * hidden], "peephole"))
    if not b.symbolic_batch and b.choices.chance(30):
        lengths = b.random.integers(1, x.shape[0] + 1, (x.shape[1],)).astype(np.int32)
        optional[1] = b.initializer(lengths, "lengths")
    operands += optional
    while operands[-1] is None:
        operands.pop()
    return b.node(operator, operands, attributes, outputs=outputs)


def _register(operator: str) -> None:
    @block(operator, operator, "Squeeze", on=("sequence",), opsets=(14, 21))
    def forward(b: GraphBuilder, x: Port) -> Value:
        direction = b.choices.pick(("forward", "reverse"))
        (y,) = recurrent(b, x, operator, b.choices.integer(2, 5), direction, outputs=1)
        return b.one("Squeeze", [y, b.integers(1)])

    @block(f"bidirectional {operator}", operator, "Reshape", "Transpose", on=("sequence",), opsets=(14, 21))
    def bidirectional(b: GraphBuilder, x: Port) -> Value:
        (y,) = recurrent(b, x, operator, b.choices.integer(2, 4), "bidirectional", outputs=1)
        y = b.one("Transpose", [y], {"perm": [0, 2, 1, 3]})
        return b.one("Reshape", [y, b.integers(0, 0, -1)])

    @block(f"last state of {operator}", operator, "Squeeze", on=("sequence",), to="flat", opsets=(14, 21))
    def last(b: GraphBuilder, x: Port) -> Value:
        y, state = recurrent(b, x, operator, b.choices.integer(2, 5), "forward", outputs=2)
        flat = b.one("Squeeze", [state, b.integers(0)])
        if b.choices.chance(40):
            b.features.add(f"{operator} read twice")
            mean = b.one(
                "Squeeze", [b.one("MaxPool", [_as_image(b, y)], {"kernel_shape": [x.shape[0]]}), b.integers(2)]
            )
            return b.one("Add", [flat, mean])
        return flat


def _as_image(b: GraphBuilder, y: Value) -> Value:
    """[T, 1, N, H] -> [N, H, T]."""
    return b.one("Transpose", [b.one("Squeeze", [y, b.integers(1)])], {"perm": [1, 2, 0]})


for _operator in _GATES:
    _register(_operator)


@block("two LSTM layers", "LSTM", "Squeeze", on=("sequence",), opsets=(14, 21))
def stacked(b: GraphBuilder, x: Port) -> Value:
    hidden = b.choices.integer(2, 4)
    y: Value = x
    for _ in range(2):
        layer = Port(y.name, y.shape, y.dtype, "sequence")
        y = b.one("Squeeze", [recurrent(b, layer, "LSTM", hidden, "forward", outputs=1)[0], b.integers(1)])
    return y
