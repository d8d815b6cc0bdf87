"""Values in the channel-blocked layout of the engine's direct convolutions, beside the plain one.

The engine brings convolutions that are about twice as fast as the plain ones, in the domain
``com.microsoft.nchwc``. Their tensors [N, C, H, W] lie in memory as [N, C/b, H, W, b], b being the width of the
machine's vectors (16 or 8), while their shape still reads [N, C, H, W]. The engine itself uses them for constant
weights only; naming them in the graph makes them available for weights that train.

Channels that fill no whole number of blocks are filled up, with finite numbers that meet filters of zeros.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxadmm.graph.constants import free_name
from onnxadmm.runtime.session import failures
from onnxadmm.train.engine import IR_VERSION, inference_session
from onnxadmm.train.prepare.nodes import import_domain, reads
from onnxadmm.train.prepare.workspace import Array

BLOCKED_DOMAIN = "com.microsoft.nchwc"


def keep(graph: "BlockedGraph", node: onnx.NodeProto) -> None:
    """Write a node on plain values as it is."""
    graph.nodes.append(node)
    graph.plain.update(name for name in node.output if name)


@functools.cache
def channel_block() -> int:
    """Channels per block of this machine's blocked convolutions (domain ``com.microsoft.nchwc``), 0 without them.

    Found by trial: the identity, as a pointwise convolution of two blocks, must give back what was reordered.
    """
    for block in (16, 8):
        channels = 2 * block
        picture = np.arange(2 * channels, dtype=np.float32).reshape(1, channels, 1, 2)
        filters = np.eye(channels, dtype=np.float32).reshape(2, block, 2, block).transpose(0, 2, 3, 1)
        nodes = [
            helper.make_node("ReorderInput", ["x"], ["blocked"], domain=BLOCKED_DOMAIN),
            helper.make_node("Conv", ["blocked", "w"], ["z"], domain=BLOCKED_DOMAIN, kernel_shape=[1, 1]),
            helper.make_node("ReorderOutput", ["z"], ["y"], domain=BLOCKED_DOMAIN, channels=channels),
        ]
        values = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, picture.shape) for name in ("x", "blocked", "y")
        ]
        weight = numpy_helper.from_array(np.ascontiguousarray(filters).reshape(channels, channels, 1, 1), "w")
        graph = helper.make_graph(nodes, "probe", values[:1], values[1:], [weight])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(BLOCKED_DOMAIN, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
        try:
            blocked, result = inference_session(model, threads=1).run(None, {"x": picture})
        except failures():
            continue
        order = picture.reshape(2, block, 2).transpose(0, 2, 1).ravel()
        if np.array_equal(blocked.ravel(), order) and np.array_equal(result, picture):
            return block
    return 0


@dataclass
class BlockedGraph:
    """A graph that is being written anew, node after node, with values in either layout.

    Attributes:
        block: channels per block.
        nodes: what has been written.
        blocked: name of the blocked form of a value, by the value's name.
        plain: names of values that exist in the plain layout.
        pooled: input and output of a MaxPool, by the name of the places of its maxima, which are not written.
        leave: writes a node on plain values that nothing here is quicker at.
    """

    model: onnx.ModelProto
    block: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    blocked: dict[str, str] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    pooled: dict[str, tuple[str, str]] = field(default_factory=dict)
    leave: "Callable[[BlockedGraph, onnx.NodeProto], None]" = keep
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _types: dict[str, int] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)
    _constants: dict[tuple[str, bytes, tuple[int, ...]], str] = field(default_factory=dict)
    _filters: dict[tuple[str, str], str] = field(default_factory=dict)
    _readers: dict[str, list[onnx.NodeProto]] = field(default_factory=dict)
    _reshaped: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.model.graph
        for value in (*graph.input, *graph.output, *graph.value_info):
            tensor = value.type.tensor_type
            self._names.add(value.name)
            self._types[value.name] = tensor.elem_type
            if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
                self._shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
        for tensor in graph.initializer:
            self._names.add(tensor.name)
            self._types[tensor.name] = tensor.data_type
            self._shapes[tensor.name] = tuple(tensor.dims)
        for node in graph.node:
            self._names.update((*reads(node), *node.output))
            for name in reads(node):
                self._readers.setdefault(name, []).append(node)
        self.plain.update(value.name for value in graph.input)
        self.plain.update(tensor.name for tensor in graph.initializer)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a value of the original graph, None when it is not recorded."""
        return self._shapes.get(name)

    def element_type(self, name: str) -> int | None:
        """``onnx.TensorProto`` type of a value of the original graph, None when it is not recorded."""
        return self._types.get(name)

    def fresh(self, hint: str) -> str:
        """A name that nothing in the graph has yet."""
        return free_name(hint, self._names)

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """Nodes of the original graph that read a value; none when it is an output of the graph."""
        return [] if any(output.name == name for output in self.model.graph.output) else self._readers.get(name, [])

    def is_float(self, name: str) -> bool:
        return self._types.get(name) == onnx.TensorProto.FLOAT

    def describe(self, name: str, *, like: str) -> None:
        """Record that a new value has the type and shape of another."""
        if like in self._shapes:
            self._shapes[name], self._types[name] = self._shapes[like], self._types[like]

    def width(self, channels: int) -> int:
        """Channels a blocked value has in memory."""
        return -(-channels // self.block) * self.block

    def only_blocked(self, name: str) -> bool:
        """Whether a value exists in the blocked layout and not in the plain one."""
        return name in self.blocked and name not in self.plain

    def add(self, operator: str, inputs: Sequence[str], hint: str, **attributes: Any) -> str:
        """Write a node of one output; returns its fresh name."""
        name = self.fresh(hint)
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def set_plain(self, value: str, output: str) -> None:
        """Let a value of the original graph be ``value``, both plain."""
        self.nodes.append(helper.make_node("Identity", [value], [output], name=output))
        self.plain.add(output)

    def record_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Record the shape of a float value, where it is not recorded."""
        self._shapes.setdefault(name, shape)
        self._types.setdefault(name, onnx.TensorProto.FLOAT)

    def set_blocked(self, name: str, value: str, *, shape: tuple[int, ...] | None = None) -> None:
        """Let ``value`` be the blocked form of a value of the original graph.

        Args:
            shape: of a float value whose shape may not be recorded.
        """
        self.blocked[name] = value
        if shape is not None:
            self.record_shape(name, shape)
        if value not in self._shapes:
            n, c, h, w = self._shapes[name]
            self._shapes[value] = (n, self.width(c), h, w)
            # Estimates of memory read these records.
            record = helper.make_tensor_value_info(value, self._types[name], self._shapes[value])
            self.model.graph.value_info.append(record)

    def constant(self, array: Array) -> str:
        key = (str(array.dtype), array.tobytes(), array.shape)
        if key not in self._constants:
            name = f"onnxadmm.faster.{len(self._constants)}"
            self.model.graph.initializer.append(numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def reshape(self, value: str, shape: Sequence[int]) -> str:
        # Newer onnxruntimes put one node in place of two in a row, and what they put in place runs late: until then it
        # keeps alive what it reads.
        source = self._reshaped.get(value, value)
        name = self.add("Reshape", [source, self.integers(*shape)], f"{source}/reshaped")
        self._reshaped[name] = source
        return name

    def to_plain(self, name: str) -> str:
        """Make sure a value exists in the plain layout; returns its name."""
        if self.only_blocked(name):
            source, shape = self.blocked[name], self._shapes[name]
            if self.is_float(name):
                made = helper.make_node(
                    "ReorderOutput", [source], [name], name=name, domain=BLOCKED_DOMAIN, channels=shape[1]
                )
                self.nodes.append(made)
            else:
                n, c, h, w = shape
                split = self.reshape(source, [n, self.width(c) // self.block, h, w, self.block])
                moved = self.add("Transpose", [split], f"{name}/moved", perm=[0, 1, 4, 2, 3])
                whole = self.reshape(moved, [n, self.width(c), h, w])
                cut = [whole, self.integers(0), self.integers(c), self.integers(1)]
                self.nodes.append(helper.make_node("Slice", cut, [name], name=name))
            self.plain.add(name)
        return name

    def to_blocked(self, name: str) -> str:
        """Make sure a float value exists in the blocked layout; returns the name it has there."""
        if name not in self.blocked:
            # The engine would fill the last block up by itself, without telling its own shape inference.
            source, channels = self.to_plain(name), self._shapes[name][1]
            source = self.filled(source, [0, self.width(channels) - channels, 0, 0])
            self.set_blocked(name, self.add("ReorderInput", [source], f"{name}/blocked", domain=BLOCKED_DOMAIN))
        return self.blocked[name]

    def channels_last(self, name: str) -> str:
        """A value [N, C, H, W] as [N, H, W, C]."""
        if name in self.blocked:
            channels = self._shapes[name][1]
            source, hint = self.blocked[name], f"{name}/last"
            if channels == self.block:  # a single block holds all of a place's channels
                n, _, h, w = self._shapes[name]
                return self.reshape(source, [n, h, w, channels])
            return self.add("ReorderOutput", [source], hint, domain=BLOCKED_DOMAIN, channels=channels, channels_last=1)
        return self.add("Transpose", [name], f"{name}/last", perm=[0, 2, 3, 1])

    def filled(self, value: str, more: Sequence[int]) -> str:
        """A value with zeros at the end of its axes, as many as ``more`` says for each."""
        if not any(more):
            return value
        return self.add("Pad", [value, self.integers(*(0 for _ in more), *more)], f"{value}/filled")

    def filters(self, weight: str) -> str:
        """A weight [O, I, kh, kw] as a blocked convolution reads it.

        [O/b, I/b, kh, kw, b of I, b of O]; where I is less than a block (depthwise: 1), [O/b, I, kh, kw, b].
        Large arrays move by transpositions of two axes and of whole blocks, which the engine does fast.
        """
        if (key := (weight, "forward")) not in self._filters:
            o, i, kh, kw = self._shapes[weight]
            op, ip = self.width(o), self.width(i) if i >= self.block else i
            whole = self.filled(weight, [op - o, ip - i, 0, 0])
            flat = self.reshape(whole, [1, op, 1, ip * kh * kw])
            value = self.add("ReorderInput", [flat], f"{weight}/blocked", domain=BLOCKED_DOMAIN)  # [O/b, I*k, b]
            if ip >= self.block and kh * kw > 1:
                split = self.reshape(value, [op // self.block, ip // self.block, self.block, kh * kw, self.block])
                value = self.add("Transpose", [split], f"{weight}/moved", perm=[0, 1, 3, 2, 4])
            self._filters[key] = self.reshape(value, [op, ip, kh, kw])
        return self._filters[key]

    def mirrored_filters(self, weight: str) -> str:
        """The filters [I, O, kh, kw], turned by half a turn, of the convolution that passes gradients back.

        Of a depthwise weight [C, 1, kh, kw], the turned filters [C, 1, kh, kw].
        """
        if (key := (weight, "backward")) not in self._filters:
            o, i, kh, kw = self._shapes[weight]
            size, block, op, ip = kh * kw, self.block, self.width(o), self.width(i) if i > 1 else 1
            whole = self.filled(weight, [op - o, ip - i, 0, 0])
            if i == 1:
                flat = self.reshape(whole, [1, op, kh, kw])
                value = self.add("ReorderInput", [flat], f"{weight}/blocked", domain=BLOCKED_DOMAIN)
                value, axis = self.reshape(value, [op // block, size, block]), 1
            else:
                value = self.add("ReorderInput", [whole], f"{weight}/blocked", domain=BLOCKED_DOMAIN)  # [O, I/b, k, b]
                split = self.reshape(value, [op // block, block, ip // block, size, block])
                value, axis = self.add("Transpose", [split], f"{weight}/moved", perm=[2, 0, 3, 1, 4]), 2
            if size > 1:
                turned = self.integers(*reversed(range(size)))
                value = self.add("Gather", [value, turned], f"{weight}/turned", axis=axis)
            self._filters[key] = self.reshape(value, [op, 1, kh, kw] if i == 1 else [ip, op, kh, kw])
        return self._filters[key]

    def finish(self) -> onnx.ModelProto:
        """The model with what was written in place of its nodes; every output of the graph in the plain layout."""
        graph = self.model.graph
        for output in graph.output:
            self.to_plain(output.name)
        needed = {output.name for output in graph.output}
        kept: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(reads(node))
                kept.append(node)
        kept.reverse()
        made = {name for node in kept for name in node.output}
        # Types of the results of some gradient operators are known from these records only.
        records = [value for value in graph.value_info if value.name in made]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(kept)
        graph.value_info.extend(records)
        if any(node.domain == BLOCKED_DOMAIN for node in kept):
            import_domain(self.model, BLOCKED_DOMAIN)
        return self.model
