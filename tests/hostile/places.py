"""Places in a model where something may be wrong, and what may be wrong there."""

import random
from collections.abc import Iterator
from typing import Any

import onnx
from onnx import TensorProto

ABSURD_LENGTHS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 2**20, 2**31, 2**40, 2**62, 2**63 - 1)
ABSURD_FLOATS = (float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 1e-45, 3.4e38)
TYPES = sorted(set(TensorProto.DataType.values()))
SYMBOLS = (
    "9**9**9**9",
    "(((((",
    "N/0",
    "N-N",
    "2**N",
    "import os",
    "",
    "N N",
    "-N",
    "1/2",
    "N*1e400",
    "__class__",
    "é",
)
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.example", "ai.onnx.training", "\u0000", "é")
OPSETS = (-1, 0, 1, 6, 7, 9, 11, 12, 13, 17, 18, 21, 23, 24, 26, 99, 2**31, 2**62)


def graphs(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    """The main graph and all bodies of control flow, outermost first."""
    found, waiting = [], [model.graph]
    while waiting:
        graph = waiting.pop(0)
        found.append(graph)
        waiting.extend(attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return found


def nodes_of(model: onnx.ModelProto) -> list[tuple[Any, onnx.NodeProto]]:
    inside = [(graph, node) for graph in graphs(model) for node in graph.node]
    return inside + [(function, node) for function in model.functions for node in function.node]


def names_of(model: onnx.ModelProto) -> list[str]:
    def each() -> Iterator[str]:
        for graph in graphs(model):
            yield from (value.name for value in (*graph.input, *graph.output))
            yield from (tensor.name for tensor in graph.initializer)
            yield from (name for node in graph.node for name in node.output)

    return sorted({name for name in each() if name})


def tensors_of(model: onnx.ModelProto) -> list[TensorProto]:
    found = [tensor for graph in graphs(model) for tensor in graph.initializer]
    return found + [
        attribute.t for _, node in nodes_of(model) for attribute in node.attribute if attribute.HasField("t")
    ]


def values_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [value for graph in graphs(model) for value in (*graph.input, *graph.output, *graph.value_info)]


def one_node(draw: random.Random, model: onnx.ModelProto) -> tuple[Any, onnx.NodeProto] | None:
    nodes = nodes_of(model)
    return draw.choice(nodes) if nodes else None


def spoil_lengths(draw: random.Random, lengths: Any) -> None:
    """One of the integers of a repeated field is absurd, or there is one more, one less, or none."""
    way = draw.randrange(4)
    if way == 0 and lengths:
        lengths[draw.randrange(len(lengths))] = draw.choice(ABSURD_LENGTHS)
    elif way == 1:
        lengths.append(draw.choice(ABSURD_LENGTHS))
    elif way == 2 and lengths:
        lengths.pop()
    else:
        del lengths[:]
