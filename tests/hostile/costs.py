"""Small files that would cost much: long chains, deep nesting, many names, sizes out of nowhere."""

import itertools
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_FLOAT = TensorProto.FLOAT


def network(
    nodes: list[onnx.NodeProto],
    *,
    arrays: dict[str, np.ndarray] | None = None,
    inputs: list[onnx.ValueInfoProto] | None = None,
    into: str = "h",
    out_of: str = "z",
) -> onnx.ModelProto:
    """``x [N, 4] -> h = MatMul(x, W1) [N, 8]``, some nodes from ``h`` to ``z``, ``y = MatMul(z, W2) [N, 2]``."""
    generator = np.random.default_rng(0)
    weights = {
        "W1": generator.normal(size=(4, 8)).astype(np.float32),
        "W2": generator.normal(size=(8, 2)).astype(np.float32),
        **(arrays or {}),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "W1"], [into]),
            *nodes,
            helper.make_node("MatMul", [out_of, "W2"], ["y"]),
        ],
        "costly",
        [helper.make_tensor_value_info("x", _FLOAT, ["N", 4]), *(inputs or [])],
        [helper.make_tensor_value_info("y", _FLOAT, ["N", 2])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def chain(count: int, operator: str = "Relu") -> onnx.ModelProto:
    """That many nodes, each reading the one before."""
    names = ["h", *(f"h{number}" for number in range(count - 1)), "z"]
    return network([helper.make_node(operator, [a], [b]) for a, b in itertools.pairwise(names)])


def fan(count: int) -> onnx.ModelProto:
    """That many layers that all read one value and are summed up."""
    generator = np.random.default_rng(0)
    arrays = {f"F{number}": generator.normal(size=(8, 8)).astype(np.float32) for number in range(count)}
    nodes = [helper.make_node("MatMul", ["h", name], [f"m{name}"]) for name in arrays]
    return network([*nodes, helper.make_node("Sum", [f"m{name}" for name in arrays], ["z"])], arrays=arrays)


def many_inputs(count: int) -> onnx.ModelProto:
    """That many inputs, each of a symbol of its own, that nobody reads."""
    extra = [
        helper.make_tensor_value_info(f"i{number}", _FLOAT, [f"A{number}", f"B{number}"]) for number in range(count)
    ]
    return network([helper.make_node("Relu", ["h"], ["z"])], inputs=extra)


def many_groups(count: int) -> onnx.ModelProto:
    """That many layers one after the other, all of the same node name."""
    generator = np.random.default_rng(0)
    arrays = {f"L{number}": generator.normal(size=(8, 8)).astype(np.float32) for number in range(count)}
    names = ["h", *(f"l{number}" for number in range(count - 1)), "z"]
    nodes = [
        helper.make_node("MatMul", [before, weight], [after], name="same")
        for before, weight, after in zip(names, arrays, names[1:], strict=False)
    ]
    return network(nodes, arrays=arrays)


def grown(length: int, operator: str) -> onnx.ModelProto:
    """A tensor of that length out of a few bytes, added up again."""
    if operator == "ConstantOfShape":
        made = [helper.make_node("ConstantOfShape", ["size"], ["big"])]
        arrays = {"size": np.array([length], np.int64)}
    elif operator == "Expand":
        made = [helper.make_node("Expand", ["one", "size"], ["big"])]
        arrays = {"size": np.array([length], np.int64), "one": np.ones(1, np.float32)}
    elif operator == "Tile":
        made = [
            helper.make_node("Tile", ["h", "size"], ["long"]),
            helper.make_node("ReduceSum", ["long", "axes"], ["big"], keepdims=1),
        ]
        arrays = {"size": np.array([1, length // 8], np.int64), "axes": np.array([1], np.int64)}
    else:
        made = [helper.make_node("Range", ["zero", "length", "step"], ["big"])]
        arrays = {
            "zero": np.array(0, np.float32),
            "length": np.array(length, np.float32),
            "step": np.array(1, np.float32),
        }
    axes = {"all": np.array([0 if operator != "Tile" else 1], np.int64)}
    nodes = [
        *made,
        helper.make_node("ReduceSum", ["big", "all"], ["sum"], keepdims=1),
        helper.make_node("Add", ["h", "sum"], ["z"]),
    ]
    return network(nodes, arrays=arrays | axes)


def grown_weight(length: int) -> onnx.ModelProto:
    """A weight that is filled while the model runs, and as long."""
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["big"], value=numpy_helper.from_array(np.ones(1, np.float32))),
        helper.make_node("MatMul", ["h", "big"], ["long"]),
        helper.make_node("ReduceSum", ["long", "all"], ["sum"], keepdims=1),
        helper.make_node("Add", ["h", "sum"], ["z"]),
    ]
    arrays = {"size": np.array([8, length // 8], np.int64), "all": np.array([1], np.int64)}
    return network(nodes, arrays=arrays)


def many_grown_weights(count: int) -> onnx.ModelProto:
    """That many weights of 2^25 elements, filled while the model runs."""
    nodes: list[onnx.NodeProto] = []
    names = ["h", *(f"g{number}" for number in range(count - 1)), "z"]
    for number, (before, after) in enumerate(itertools.pairwise(names)):
        nodes += [
            helper.make_node("ConstantOfShape", ["size"], [f"big{number}"]),
            helper.make_node("MatMul", [before, f"big{number}"], [f"long{number}"]),
            helper.make_node("ReduceSum", [f"long{number}", "all"], [f"sum{number}"], keepdims=1),
            helper.make_node("Add", [before, f"sum{number}"], [after]),
        ]
    arrays = {"size": np.array([8, 2**22], np.int64), "all": np.array([1], np.int64)}
    return network(nodes, arrays=arrays)


def sparse(length: int) -> onnx.ModelProto:
    """A sparse weight of that many elements, one of which is there."""
    model = network([helper.make_node("Relu", ["h"], ["z"])])
    values = helper.make_tensor("S", _FLOAT, [1], [1.0])
    indices = helper.make_tensor("", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [8, length // 8]))
    model.graph.node[1].CopyFrom(helper.make_node("MatMul", ["h", "S"], ["z"]))
    return model


def lying_halves(length: int, *, raw: bool) -> onnx.ModelProto:
    """A weight of four bits an element that says it is that long and holds two bytes."""
    model = network([])
    tensor = onnx.TensorProto(name="packed", data_type=TensorProto.INT4, dims=[length])
    if raw:
        tensor.raw_data = b"ab"
    else:
        tensor.int32_data.extend([1, 2])
    model.opset_import[0].version, model.ir_version = 21, 10
    model.graph.initializer.append(tensor)
    return model


def symbols(formula: str) -> onnx.ModelProto:
    """Free lengths, one of which is computed from another by a formula."""
    extra = [helper.make_tensor_value_info("p", _FLOAT, ["N", formula])]
    return network([helper.make_node("Relu", ["h"], ["z"])], inputs=extra)


def nested(depth: int) -> onnx.ModelProto:
    """An If within an If, and so on."""
    inner = helper.make_graph([helper.make_node("Identity", ["h"], ["b"])], "b", [], [onnx.ValueInfoProto(name="b")])
    for level in range(depth):
        node = helper.make_node("If", ["c"], [f"n{level}"], then_branch=inner, else_branch=inner)
        if level:  # twice as large at each level otherwise
            node.attribute[1].g.CopyFrom(
                helper.make_graph(
                    [helper.make_node("Identity", ["h"], ["e"])], "e", [], [onnx.ValueInfoProto(name="e")]
                )
            )
        inner = helper.make_graph([node], f"g{level}", [], [onnx.ValueInfoProto(name=f"n{level}")])
    nodes = [*inner.node, helper.make_node("Relu", [f"n{depth - 1}"], ["z"])]
    return network(nodes, inputs=[helper.make_tensor_value_info("c", TensorProto.BOOL, [])])


def decided(count: int) -> onnx.ModelProto:
    """That many Ifs one after the other, of known condition."""
    names = ["h", *(f"d{number}" for number in range(count - 1)), "z"]
    nodes = []
    for before, after in itertools.pairwise(names):
        bodies = [
            helper.make_graph([helper.make_node("Relu", [before], ["r"])], "b", [], [onnx.ValueInfoProto(name="r")])
            for _ in range(2)
        ]
        nodes.append(helper.make_node("If", ["c"], [after], then_branch=bodies[0], else_branch=bodies[1]))
    return network(nodes, arrays={"c": np.array(True)})


def endless_loop(count: int) -> onnx.ModelProto:
    """Loops without an end."""
    nodes = []
    names = ["h", *(f"o{number}" for number in range(count - 1)), "z"]
    for before, after in itertools.pairwise(names):
        body = helper.make_graph(
            [helper.make_node("Identity", ["ci"], ["co"]), helper.make_node("Relu", ["si"], ["so"])],
            "body",
            [
                helper.make_tensor_value_info("it", TensorProto.INT64, []),
                helper.make_tensor_value_info("ci", TensorProto.BOOL, []),
                helper.make_tensor_value_info("si", _FLOAT, None),
            ],
            [
                helper.make_tensor_value_info("co", TensorProto.BOOL, []),
                helper.make_tensor_value_info("so", _FLOAT, None),
            ],
        )
        nodes.append(helper.make_node("Loop", ["", "c", before], [after], body=body))
    return network(nodes, arrays={"c": np.array(True)})


#: By name, what makes a model that is small and would be costly.
COSTLY: dict[str, Callable[[], onnx.ModelProto]] = {
    "a chain of 20,000 nodes": lambda: chain(20_000),
    "a chain of 4,000 Identity nodes": lambda: chain(4_000, "Identity"),
    "2,000 layers that read one value": lambda: fan(2_000),
    "5,000 inputs with a symbol each": lambda: many_inputs(5_000),
    "1,000 layers of one name": lambda: many_groups(1_000),
    **{
        f"{operator} to 2^{power}": lambda operator=operator, power=power: grown(2**power, operator)  # type: ignore[misc]
        for operator in ("ConstantOfShape", "Expand", "Tile", "Range")
        for power in (27, 40)
    },
    "a filled weight of 2^27": lambda: grown_weight(2**27),
    "a filled weight of 2^24": lambda: grown_weight(2**24),
    "40 filled weights of 2^25": lambda: many_grown_weights(40),
    "a sparse weight of 1 GiB": lambda: sparse(2**28),
    "a weight of 2^32 halves of bytes in two": lambda: lying_halves(2**32, raw=True),
    "a weight of 2^32 halves of bytes in two numbers": lambda: lying_halves(2**32, raw=False),
    "a sparse weight of 2^60": lambda: sparse(2**60),
    "a tower of powers as a symbol": lambda: symbols("9**9**9**9"),
    "a tower of powers of a symbol": lambda: symbols("N**N**N**N"),
    "a symbol of a million characters": lambda: symbols("N+" * 500_000 + "1"),
    "a symbol of a thousand parentheses": lambda: symbols("(" * 1000 + "N" + ")" * 1000),
    "20 Ifs in each other": lambda: nested(20),
    "400 Ifs one after the other": lambda: decided(400),
    "200 Loops without end": lambda: endless_loop(200),
}
