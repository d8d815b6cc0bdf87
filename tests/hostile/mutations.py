"""What may be wrong with a model, kind by kind: each changes a message in place, at a place drawn at random."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto, helper

#: A kind of mutation; it does nothing where a model has no place for it.
Mutation = Callable[[random.Random, onnx.ModelProto], None]

_ABSURD_LENGTHS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 2**20, 2**31, 2**40, 2**62, 2**63 - 1)
_ABSURD_FLOATS = (float("nan"), float("inf"), float("-inf"), -1.0, 0.0, 1e-45, 3.4e38)
_TYPES = sorted(set(TensorProto.DataType.values()))
_SYMBOLS = (
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
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.example", "ai.onnx.training", "\u0000", "é")
_OPSETS = (-1, 0, 1, 6, 7, 9, 11, 12, 13, 17, 18, 21, 23, 24, 26, 99, 2**31, 2**62)


def graphs(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    """The main graph and all bodies of control flow, outermost first."""
    found, waiting = [], [model.graph]
    while waiting:
        graph = waiting.pop(0)
        found.append(graph)
        waiting.extend(attribute.g for node in graph.node for attribute in node.attribute if attribute.HasField("g"))
    return found


def _nodes(model: onnx.ModelProto) -> list[tuple[Any, onnx.NodeProto]]:
    inside = [(graph, node) for graph in graphs(model) for node in graph.node]
    return inside + [(function, node) for function in model.functions for node in function.node]


def _names(model: onnx.ModelProto) -> list[str]:
    def each() -> Iterator[str]:
        for graph in graphs(model):
            yield from (value.name for value in (*graph.input, *graph.output))
            yield from (tensor.name for tensor in graph.initializer)
            yield from (name for node in graph.node for name in node.output)

    return sorted({name for name in each() if name})


def _tensors(model: onnx.ModelProto) -> list[TensorProto]:
    found = [tensor for graph in graphs(model) for tensor in graph.initializer]
    return found + [attribute.t for _, node in _nodes(model) for attribute in node.attribute if attribute.HasField("t")]


def _values(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [value for graph in graphs(model) for value in (*graph.input, *graph.output, *graph.value_info)]


def _one_node(draw: random.Random, model: onnx.ModelProto) -> tuple[Any, onnx.NodeProto] | None:
    nodes = _nodes(model)
    return draw.choice(nodes) if nodes else None


# -- nodes ---------------------------------------------------------------------------------------------------


def drop_node(draw: random.Random, model: onnx.ModelProto) -> None:
    """What it computed has no origin any more."""
    if chosen := _one_node(draw, model):
        chosen[0].node.remove(chosen[1])


def bypass_node(draw: random.Random, model: onnx.ModelProto) -> None:
    """Readers of its first result read its first operand, of another shape and type."""
    chosen = _one_node(draw, model)
    if not chosen or not chosen[1].input or not chosen[1].output:
        return
    old, new = chosen[1].output[0], chosen[1].input[0]
    for _, node in _nodes(model):
        node.input[:] = [new if name == old else name for name in node.input]
    chosen[0].node.remove(chosen[1])


def duplicate_node(draw: random.Random, model: onnx.ModelProto) -> None:
    """Every result is computed twice."""
    if chosen := _one_node(draw, model):
        chosen[0].node.add().CopyFrom(chosen[1])


def move_node(draw: random.Random, model: onnx.ModelProto) -> None:
    """It stands before what it reads, or behind what reads it."""
    graph = draw.choice(graphs(model))
    if graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(graph.node.pop(draw.randrange(len(graph.node))))
        graph.node.insert(draw.randint(0, len(graph.node)), node)


def retarget_input(draw: random.Random, model: onnx.ModelProto) -> None:
    """It reads something else of the model, or what is not there, or nothing."""
    chosen = _one_node(draw, model)
    if chosen and chosen[1].input:
        names = _names(model)
        chosen[1].input[draw.randrange(len(chosen[1].input))] = draw.choice([*names, *names, "nowhere", ""])


def swap_inputs(draw: random.Random, model: onnx.ModelProto) -> None:
    """Operands in another order."""
    if chosen := _one_node(draw, model):
        names = list(chosen[1].input)
        draw.shuffle(names)
        chosen[1].input[:] = names


def drop_input(draw: random.Random, model: onnx.ModelProto) -> None:
    """One operand fewer, maybe none."""
    chosen = _one_node(draw, model)
    if chosen and chosen[1].input:
        chosen[1].input.pop(draw.randrange(len(chosen[1].input)))
        if draw.random() < 0.2:
            del chosen[1].input[:]


def add_inputs(draw: random.Random, model: onnx.ModelProto) -> None:
    """More operands than the operator takes."""
    if (chosen := _one_node(draw, model)) and (names := _names(model)):
        chosen[1].input.extend(draw.choices(names, k=draw.choice([1, 2, 5])))


def change_outputs(draw: random.Random, model: onnx.ModelProto) -> None:
    """More results than it has, fewer, nameless ones, or those of another node."""
    if not (chosen := _one_node(draw, model)):
        return
    outputs = chosen[1].output
    way = draw.randrange(4)
    if way == 0:
        outputs.append(f"extra{draw.randrange(3)}")
    elif way == 1 and outputs:
        outputs.pop(draw.randrange(len(outputs)))
    elif way == 2 and outputs:
        outputs[draw.randrange(len(outputs))] = ""
    elif outputs and (names := _names(model)):
        outputs[draw.randrange(len(outputs))] = draw.choice(names)


def loop_to_itself(draw: random.Random, model: onnx.ModelProto) -> None:
    """It reads its own result, or that of a node that reads it."""
    chosen = _one_node(draw, model)
    if chosen and chosen[1].input and chosen[1].output:
        chosen[1].input[draw.randrange(len(chosen[1].input))] = draw.choice(list(chosen[1].output))


def swap_operators(draw: random.Random, model: onnx.ModelProto) -> None:
    """The same operands for another operator, of this model or of ONNX."""
    if not (chosen := _one_node(draw, model)):
        return
    others = [node.op_type for _, node in _nodes(model)]
    everything = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})
    chosen[1].op_type = draw.choice([*others, *draw.sample(everything, 8), "NoSuchOperator", ""])


def change_domain(draw: random.Random, model: onnx.ModelProto) -> None:
    """An operator of a domain that does not have it, or that the model does not import."""
    if chosen := _one_node(draw, model):
        chosen[1].domain = draw.choice(_DOMAINS)


# -- attributes ----------------------------------------------------------------------------------------------


def _one_attribute(draw: random.Random, model: onnx.ModelProto) -> tuple[onnx.NodeProto, AttributeProto] | None:
    found = [(node, attribute) for _, node in _nodes(model) for attribute in node.attribute]
    return draw.choice(found) if found else None


def drop_attribute(draw: random.Random, model: onnx.ModelProto) -> None:
    """Also one that the operator cannot do without."""
    if chosen := _one_attribute(draw, model):
        chosen[0].attribute.remove(chosen[1])


def retype_attribute(draw: random.Random, model: onnx.ModelProto) -> None:
    """A value of another type than the operator wants."""
    if not (chosen := _one_attribute(draw, model)):
        return
    values: list[Any] = [
        1,
        2.5,
        "text",
        [1, 2],
        [0.5],
        ["a"],
        helper.make_tensor("t", 1, [1], [1.0]),
        onnx.GraphProto(),
    ]
    new = helper.make_attribute(chosen[1].name, draw.choice(values))
    if draw.random() < 0.3:
        chosen[1].type = new.type  # the type says one thing, the content another
    else:
        chosen[1].CopyFrom(new)


def absurd_attribute(draw: random.Random, model: onnx.ModelProto) -> None:
    """A number far out of range, or lists that are longer or shorter than the rank."""
    if not (chosen := _one_attribute(draw, model)):
        return
    attribute = chosen[1]
    if attribute.type == AttributeProto.INT:
        attribute.i = draw.choice(_ABSURD_LENGTHS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = draw.choice(_ABSURD_FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = draw.choice([b"", b"NOTHING", b"\xff\xfe", b"x" * 5000, b"...,->", b"ij,jk->ik", b"SAME_UPPER"])
    elif attribute.type == AttributeProto.INTS:
        way = draw.randrange(4)
        if way == 0 and attribute.ints:
            attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(_ABSURD_LENGTHS)
        elif way == 1:
            attribute.ints.append(draw.choice(_ABSURD_LENGTHS))
        elif way == 2 and attribute.ints:
            attribute.ints.pop()
        else:
            del attribute.ints[:]
    elif attribute.type == AttributeProto.FLOATS and attribute.floats:
        attribute.floats[draw.randrange(len(attribute.floats))] = draw.choice(_ABSURD_FLOATS)


def odd_attribute(draw: random.Random, model: onnx.ModelProto) -> None:
    """One twice, one that refers to a function's, one without a type or a name, one nobody knows."""
    if not (chosen := _one_attribute(draw, model)):
        return
    node, attribute = chosen
    way = draw.randrange(4)
    if way == 0:
        node.attribute.add().CopyFrom(attribute)
    elif way == 1:
        attribute.ref_attr_name = "nothing"
    elif way == 2:
        attribute.type = AttributeProto.UNDEFINED
    else:
        attribute.name = draw.choice(["", "axis", "axes", "value", "nobody_knows"])


# -- tensors -------------------------------------------------------------------------------------------------


def _one_tensor(draw: random.Random, model: onnx.ModelProto) -> TensorProto | None:
    tensors = _tensors(model)
    return draw.choice(tensors) if tensors else None


def lying_dims(draw: random.Random, model: onnx.ModelProto) -> None:
    """Other lengths than there are numbers."""
    if (tensor := _one_tensor(draw, model)) is None:
        return
    way = draw.randrange(4)
    if way == 0 and tensor.dims:
        tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(_ABSURD_LENGTHS)
    elif way == 1:
        tensor.dims.append(draw.choice(_ABSURD_LENGTHS))
    elif way == 2 and tensor.dims:
        tensor.dims.pop()
    else:
        del tensor.dims[:]


def reshaped_dims(draw: random.Random, model: onnx.ModelProto) -> None:
    """The right count of numbers in another shape: nothing around it fits."""
    if (tensor := _one_tensor(draw, model)) is None:
        return
    dims = list(tensor.dims)
    draw.shuffle(dims)
    extra = draw.choice([[], [1], [1, 1, 1]])
    tensor.dims[:] = [*extra, *dims] if draw.random() < 0.7 else [-1 if not dims else _product(dims)]


def _product(numbers: list[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result


def truncated_data(draw: random.Random, model: onnx.ModelProto) -> None:
    """Fewer bytes than the shape needs."""
    tensor = _one_tensor(draw, model)
    if tensor is not None and tensor.raw_data:
        tensor.raw_data = tensor.raw_data[: draw.randrange(len(tensor.raw_data))]


def wrong_dtype(draw: random.Random, model: onnx.ModelProto) -> None:
    """Another element type than the bytes are of."""
    if (tensor := _one_tensor(draw, model)) is not None:
        tensor.data_type = draw.choice([*_TYPES, 99, -1])


def absurd_numbers(draw: random.Random, model: onnx.ModelProto) -> None:
    """The same shape, other contents: sizes and indices far out of range, or NaN."""
    tensor = _one_tensor(draw, model)
    if tensor is None:
        return
    if tensor.data_type == TensorProto.INT64:
        count = len(tensor.raw_data) // 8 or len(tensor.int64_data)
        del tensor.int64_data[:]
        tensor.raw_data = b"".join(
            draw.choice(_ABSURD_LENGTHS).to_bytes(8, "little", signed=True) for _ in range(count)
        )
    elif tensor.raw_data:
        tensor.raw_data = draw.choice([b"\xff", b"\x00", b"\x7f"]) * len(tensor.raw_data)


def external_tensor(draw: random.Random, model: onnx.ModelProto) -> None:
    """Data in a file that is not there, or not where a model may look."""
    if (tensor := _one_tensor(draw, model)) is not None:
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (
            ("location", draw.choice(["", "w.bin", "../w.bin", "/dev/zero", ".", "a\0b", "w" * 5000])),
            ("offset", draw.choice(["0", "-1", "x", "9" * 30])),
            ("length", draw.choice(["0", "-1", "x", "9" * 30])),
        ):
            tensor.external_data.add(key=key, value=value)


# -- values --------------------------------------------------------------------------------------------------


def lying_shape(draw: random.Random, model: onnx.ModelProto) -> None:
    """Lengths of an input or of what is in between that are absurd, or a rank that is another."""
    values = [value for value in _values(model) if value.type.HasField("tensor_type")]
    if not values:
        return
    shape = draw.choice(values).type.tensor_type.shape
    way = draw.randrange(4)
    if way == 0 and shape.dim:
        shape.dim[draw.randrange(len(shape.dim))].dim_value = draw.choice(_ABSURD_LENGTHS)
    elif way == 1 and shape.dim:
        shape.dim[draw.randrange(len(shape.dim))].dim_param = draw.choice(_SYMBOLS)
    elif way == 2:
        shape.dim.add().dim_value = draw.choice(_ABSURD_LENGTHS)
    elif shape.dim:
        del shape.dim[draw.randrange(len(shape.dim))]


def wrong_type(draw: random.Random, model: onnx.ModelProto) -> None:
    """A value of another element type, or none, or a sequence."""
    values = _values(model)
    if not values:
        return
    value = draw.choice(values)
    way = draw.randrange(4)
    if way == 0:
        value.ClearField("type")
    elif way == 1:
        value.type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    elif way == 2:
        value.type.optional_type.elem_type.tensor_type.elem_type = TensorProto.INT64
    else:
        value.type.tensor_type.elem_type = draw.choice([*_TYPES, 99])


def duplicate_name(draw: random.Random, model: onnx.ModelProto) -> None:
    """Two values, or two weights, of one name; or a value without one."""
    names = [*_names(model), ""]
    values: list[Any] = [*_values(model), *_tensors(model)]
    if values:
        draw.choice(values).name = draw.choice(names)


def drop_value(draw: random.Random, model: onnx.ModelProto) -> None:
    """An input, output or weight that is read is not there."""
    graph = draw.choice(graphs(model))
    fields: list[Any] = [field for field in (graph.input, graph.output, graph.initializer) if len(field)]
    if fields:
        chosen = draw.choice(fields)
        del chosen[draw.randrange(len(chosen))]


def odd_outputs(draw: random.Random, model: onnx.ModelProto) -> None:
    """An output that is an input, a weight, there twice, or computed nowhere."""
    names = [*_names(model), "nowhere"]
    model.graph.output.add().name = draw.choice(names)


# -- the whole -----------------------------------------------------------------------------------------------


def foreign_opset(draw: random.Random, model: onnx.ModelProto) -> None:
    """An opset that is absurd, there twice, or missing; an IR version that is."""
    way = draw.randrange(4)
    if way == 0 and model.opset_import:
        draw.choice(list(model.opset_import)).version = draw.choice(_OPSETS)
    elif way == 1:
        model.opset_import.add(domain=draw.choice(_DOMAINS), version=draw.choice(_OPSETS))
    elif way == 2:
        del model.opset_import[:]
    else:
        model.ir_version = draw.choice([-1, 0, 1, 3, 4, 8, 10, 13, 99, 2**62])


def empty_graph(draw: random.Random, model: onnx.ModelProto) -> None:
    """No nodes, or no nodes behind a place, or no inputs and outputs."""
    graph = draw.choice(graphs(model))
    way = draw.randrange(4)
    if way == 0:
        del graph.node[:]
    elif way == 1 and graph.node:
        del graph.node[draw.randrange(len(graph.node)) :]
    elif way == 2:
        del graph.input[:]
    else:
        del graph.output[:]


def nested_bodies(draw: random.Random, model: onnx.ModelProto) -> None:
    """A chain of Ifs within Ifs around a result of the model."""
    if not model.graph.output:
        return
    name = model.graph.output[0].name
    inner = helper.make_graph(
        [helper.make_node("Identity", [name], ["inner"])], "b", [], [onnx.ValueInfoProto(name="inner")]
    )
    for level in range(draw.choice([2, 10, 25, 40])):
        node = helper.make_node(
            "If", ["condition"], [f"level{level}"], then_branch=inner, else_branch=onnx.GraphProto()
        )
        node.attribute[1].g.CopyFrom(helper.make_graph([], "e", [], [onnx.ValueInfoProto(name=name)]))
        inner = helper.make_graph([node], f"b{level}", [], [onnx.ValueInfoProto(name=f"level{level}")])
    model.graph.input.append(helper.make_tensor_value_info("condition", TensorProto.BOOL, []))
    model.graph.node.extend(inner.node)
    model.graph.output.add().name = inner.output[0].name


def odd_function(draw: random.Random, model: onnx.ModelProto) -> None:
    """A node becomes a call of a function that has other operands, calls itself, or is empty."""
    if not (chosen := _one_node(draw, model)):
        return
    node = chosen[1]
    function = model.functions.add(name=node.op_type, domain="local")
    function.input.extend([f"i{number}" for number in range(draw.choice([0, len(node.input), 5]))])
    function.output.extend([f"o{number}" for number in range(draw.choice([0, len(node.output), 2]))])
    function.opset_import.extend(model.opset_import)
    if draw.random() < 0.7:
        inner = function.node.add()
        inner.CopyFrom(node)
        if draw.random() < 0.5:
            inner.input[:], inner.output[:] = function.input[:], function.output[:]
        if draw.random() < 0.2:
            inner.domain = "local"
    node.domain = "local"
    if draw.random() < 0.8:
        model.opset_import.add(domain="local", version=1)


def sparse_weight(draw: random.Random, model: onnx.ModelProto) -> None:
    """A weight becomes a sparse one whose indices or shape lie."""
    graph = draw.choice(graphs(model))
    if not graph.initializer:
        return
    dense = graph.initializer[draw.randrange(len(graph.initializer))]
    sparse = graph.sparse_initializer.add()
    sparse.values.CopyFrom(dense)
    sparse.dims.extend(draw.choice([list(dense.dims), [draw.choice(_ABSURD_LENGTHS)], []]))
    indices = [draw.choice(_ABSURD_LENGTHS) for _ in range(draw.randrange(4))]
    sparse.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [len(indices)], indices))
    graph.initializer.remove(dense)


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        *(drop_node, bypass_node, duplicate_node, move_node, retarget_input, swap_inputs, drop_input, add_inputs),
        *(change_outputs, loop_to_itself, swap_operators, change_domain),
        *(drop_attribute, retype_attribute, absurd_attribute, odd_attribute),
        *(lying_dims, reshaped_dims, truncated_data, wrong_dtype, absurd_numbers, external_tensor),
        *(lying_shape, wrong_type, duplicate_name, drop_value, odd_outputs),
        *(foreign_opset, empty_graph, nested_bodies, odd_function, sparse_weight),
    )
}


def mutate(content: bytes, number: int) -> tuple[bytes, str]:
    """Change a serialised model in one to three ways; the same number makes the same changes.

    Returns:
        the new model, and the names of the mutations.
    """
    draw = random.Random(number)
    model = onnx.ModelProto.FromString(content)
    names = draw.choices(list(MUTATIONS), k=draw.choice([1, 1, 1, 2, 2, 3]))
    for name in names:
        try:
            MUTATIONS[name](draw, model)
        except (ValueError, TypeError):
            continue  # protobuf itself refuses some of it
    return model.SerializeToString(), "+".join(names)
