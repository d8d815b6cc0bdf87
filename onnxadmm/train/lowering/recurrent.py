"""Lowerings of recurrent layers: unrolled, step by step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxadmm.train.lowering.writer import Nodes, Writer, lowers, need_shape, refusal
from onnxadmm.train.prepare.nodes import attribute
from onnxadmm.train.prepare.workspace import Workspace

#: Longest sequence that is unrolled.
MOST_STEPS = 128

_PLAIN = frozenset({"Relu", "Sigmoid", "Softplus", "Softsign", "Tanh"})
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}


@dataclass(frozen=True)
class _Cell:
    """One direction of a layer, as its steps see it.

    Attributes:
        inputs: what each step's input contributes to the gates, ``[N, gates * hidden]`` each, biases included.
        recurrent: weights of the state, ``[hidden, gates * hidden]``.
        recurrent_bias: ``[gates * hidden]`` where it must be added to the state's part, else None.
        peepholes: three vectors ``[hidden]`` or none.
        act: writes the activation of a number.
        clip: writes the clipping of what goes into an activation.
    """

    write: Writer
    node: onnx.NodeProto
    inputs: Sequence[str]
    recurrent: str
    recurrent_bias: str | None
    peepholes: Sequence[str]
    act: Callable[[int, str], str]
    clip: Callable[[str], str]
    hidden: int

    def gates(self, value: str, count: int) -> list[str]:
        return self.write.split(value, axis=1, sizes=[self.hidden] * count) if count > 1 else [value]

    def state_part(self, hidden: str) -> str:
        product = self.write.add("MatMul", hidden, self.recurrent)
        return product if self.recurrent_bias is None else self.write.add("Add", product, self.recurrent_bias)


@lowers("LSTM")
def lower_lstm(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """i, o, f, c = W x + R h + b;  C = f C + i c;  h = o tanh(C), with peepholes where there are any"""
    return _unroll(space, node, gates=4, step=_lstm_step)


@lowers("GRU")
def lower_gru(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """z, r = W x + R h + b;  c = tanh(W x + R (r h) + b) or tanh(W x + r (R h + b));  h = (1 - z) c + z h"""
    return _unroll(space, node, gates=3, step=_gru_step)


@lowers("RNN")
def lower_rnn(space: Workspace, node: onnx.NodeProto) -> Nodes:
    """h = tanh(W x + R h + b)"""
    return _unroll(space, node, gates=1, step=_rnn_step)


_Step = Callable[[_Cell, int, str, str], tuple[str, str]]


def _rnn_step(cell: _Cell, index: int, hidden: str, memory: str) -> tuple[str, str]:
    total = cell.write.add("Add", cell.inputs[index], cell.state_part(hidden))
    return cell.act(0, cell.clip(total)), memory


def _lstm_step(cell: _Cell, index: int, hidden: str, memory: str) -> tuple[str, str]:
    write = cell.write
    i, o, f, c = cell.gates(write.add("Add", cell.inputs[index], cell.state_part(hidden)), 4)
    if cell.peepholes:
        i = write.add("Add", i, write.add("Mul", cell.peepholes[0], memory))
        f = write.add("Add", f, write.add("Mul", cell.peepholes[2], memory))
    i = cell.act(0, cell.clip(i))
    coupled = attribute(cell.node, "input_forget", 0)
    f = write.add("Sub", write.scalar(1.0), i) if coupled else cell.act(0, cell.clip(f))
    fresh = write.add("Mul", i, cell.act(1, cell.clip(c)))
    memory = write.add("Add", write.add("Mul", f, memory), fresh)
    if cell.peepholes:
        o = write.add("Add", o, write.add("Mul", cell.peepholes[1], memory))
    return write.add("Mul", cell.act(0, cell.clip(o)), cell.act(2, memory)), memory


def _gru_step(cell: _Cell, index: int, hidden: str, memory: str) -> tuple[str, str]:
    write = cell.write
    xz, xr, xh = cell.gates(cell.inputs[index], 3)
    if attribute(cell.node, "linear_before_reset", 0):
        hz, hr, hh = cell.gates(cell.state_part(hidden), 3)
        r = cell.act(0, cell.clip(write.add("Add", xr, hr)))
        inner = write.add("Mul", r, hh)
    else:
        both, last = write.split(cell.recurrent, axis=1, sizes=[2 * cell.hidden, cell.hidden])
        hz, hr = cell.gates(write.add("MatMul", hidden, both), 2)
        r = cell.act(0, cell.clip(write.add("Add", xr, hr)))
        inner = write.add("MatMul", write.add("Mul", r, hidden), last)
    z = cell.act(0, cell.clip(write.add("Add", xz, hz)))
    fresh = cell.act(1, cell.clip(write.add("Add", xh, inner)))
    kept = write.add("Mul", z, write.add("Sub", hidden, fresh))
    return write.add("Add", fresh, kept), memory


def _unroll(space: Workspace, node: onnx.NodeProto, *, gates: int, step: _Step) -> Nodes:
    shape = need_shape(space, node, node.input[0])
    directions, width, _ = need_shape(space, node, node.input[2])
    hidden = width // gates
    batch_first = bool(attribute(node, "layout", 0))
    steps, batch = (shape[1], shape[0]) if batch_first else (shape[0], shape[1])
    if steps > MOST_STEPS:
        raise refusal(
            node,
            expected=f"a sequence of at most {MOST_STEPS} steps",
            found=str(steps),
            way_out="train on shorter sequences",
        )
    write = Writer(space, node)
    source = write.add("Transpose", node.input[0], perm=[1, 0, 2]) if batch_first else node.input[0]
    flat = write.reshape(source, (steps * batch, shape[2]))
    masks = _masks(space, write, node, steps, batch)
    operands = [_by_direction(write, node, index, directions) for index in range(8)]
    sequences, lasts, memories = [], [], []
    for direction in range(directions):
        own = [pieces[direction] if pieces else None for pieces in operands]
        cell = _make_cell(space, write, node, own, flat=flat, steps=steps, gates=gates, direction=direction)
        state = _initial(write, own[5], batch, hidden)
        memory = _initial(write, own[6], batch, hidden)
        outputs = [""] * steps
        backward = direction == 1 or attribute(node, "direction", "forward") == "reverse"
        for index in range(steps - 1, -1, -1) if backward else range(steps):
            new, newer = step(cell, index, state, memory)
            outputs[index] = new
            if masks:
                outputs[index] = write.add("Mul", new, masks[index])
                new = _held(write, masks[index], new, state)
                newer = newer if newer == memory else _held(write, masks[index], newer, memory)
            state, memory = new, newer
        if masks:
            # A sequence of no steps leaves zeros behind, not its initial state.
            state, memory = write.add("Mul", state, masks[0]), write.add("Mul", memory, masks[0])
        joined = write.add("Concat", *outputs, axis=0)
        sequences.append(write.reshape(joined, (steps, 1, batch, hidden)))
        lasts.append(write.reshape(state, (1, batch, hidden)))
        memories.append(write.reshape(memory, (1, batch, hidden)))
    results = [write.add("Concat", *sequences, axis=1), write.add("Concat", *lasts, axis=0)]
    if node.op_type == "LSTM":
        results.append(write.add("Concat", *memories, axis=0))
    for index, name in enumerate(node.output):
        if name:
            order = [2, 0, 1, 3] if index == 0 else [1, 0, 2]
            value = write.add("Transpose", results[index], perm=order) if batch_first else results[index]
            write.set_output(value, name)
    return write.nodes


def _by_direction(write: Writer, node: onnx.NodeProto, index: int, directions: int) -> list[str]:
    """An operand with the directions on its first axis (second for states of a batch-first layer), taken apart."""
    if index in (0, 4) or index >= len(node.input) or not node.input[index]:
        return []
    axis = 1 if index in (5, 6) and attribute(node, "layout", 0) else 0
    if directions == 1:
        return [node.input[index]]
    return write.split(node.input[index], axis=axis, sizes=[1] * directions)


def _initial(write: Writer, given: str | None, batch: int, hidden: int) -> str:
    if given is not None:
        return write.reshape(given, (batch, hidden))
    return write.array(np.zeros((batch, hidden), np.float32))


def _held(write: Writer, mask: str, new: str, old: str) -> str:
    """The new state where the sequence has not ended, the old one elsewhere."""
    return write.add("Add", old, write.add("Mul", mask, write.add("Sub", new, old)))


def _masks(space: Workspace, write: Writer, node: onnx.NodeProto, steps: int, batch: int) -> list[str]:
    """For each step, 1 where a sequence has not ended and 0 where it has, ``[N, 1]``; none when all are whole."""
    if len(node.input) < 5 or not node.input[4]:
        return []
    lengths = space.constants.get(node.input[4])
    if lengths is not None and (lengths == steps).all():
        return []
    numbers = write.array(np.arange(steps, dtype=np.int32).reshape(steps, 1))
    going = write.add("Less", numbers, node.input[4])  # [T, N]
    flat = write.reshape(write.add("Cast", going, to=onnx.TensorProto.FLOAT), (steps * batch, 1))
    return write.split(flat, axis=0, sizes=[batch] * steps) if steps > 1 else [flat]


def _make_cell(
    space: Workspace,
    write: Writer,
    node: onnx.NodeProto,
    own: Sequence[str | None],
    *,
    flat: str,
    steps: int,
    gates: int,
    direction: int,
) -> _Cell:
    _, width, features = need_shape(space, node, node.input[1])
    hidden = width // gates
    assert own[1] is not None  # no layer is without
    assert own[2] is not None
    weight = write.add("Transpose", write.reshape(own[1], (width, features)), perm=[1, 0])
    recurrent = write.add("Transpose", write.reshape(own[2], (width, hidden)), perm=[1, 0])
    product = write.add("MatMul", flat, weight)
    recurrent_bias = None
    if own[3] is not None:
        vector = write.reshape(own[3], (2 * width,))
        first, second = write.split(vector, axis=0, sizes=[width, width])
        if node.op_type == "GRU" and attribute(node, "linear_before_reset", 0):
            recurrent_bias = second
            product = write.add("Add", product, first)
        else:
            product = write.add("Add", product, write.add("Add", first, second))
    batch = need_shape(space, node, node.input[0])[0 if attribute(node, "layout", 0) else 1]
    peepholes: list[str] = []
    if node.op_type == "LSTM" and own[7] is not None:
        peepholes = write.split(write.reshape(own[7], (3 * hidden,)), axis=0, sizes=[hidden] * 3)
    limit = attribute(node, "clip", 0.0)
    return _Cell(
        write=write,
        node=node,
        inputs=write.split(product, axis=0, sizes=[batch] * steps) if steps > 1 else [product],
        recurrent=recurrent,
        recurrent_bias=recurrent_bias,
        peepholes=peepholes,
        act=_activation(write, node, direction),
        clip=lambda value: write.add("Clip", value, write.scalar(-limit), write.scalar(limit)) if limit else value,
        hidden=hidden,
    )


def _activation(write: Writer, node: onnx.NodeProto, direction: int) -> Callable[[int, str], str]:
    defaults = _DEFAULTS[node.op_type]
    given = [name.decode() if isinstance(name, bytes) else str(name) for name in attribute(node, "activations", [])]
    names = given[direction * len(defaults) :][: len(defaults)] or list(defaults)
    spelled = {name.lower(): name for name in _PLAIN}
    unknown = [name for name in names if name.lower() not in spelled]
    if unknown:
        raise refusal(
            node,
            expected=f"activations among {', '.join(sorted(_PLAIN))}",
            found=", ".join(unknown),
            way_out="use one of these",
        )
    return lambda index, value: write.add(spelled[names[index].lower()], value)
