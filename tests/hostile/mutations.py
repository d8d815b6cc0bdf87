"""What may be wrong with a model, kind by kind: each changes a message in place, at a place drawn at random."""

import random
from collections.abc import Callable

import onnx
from onnx import TensorProto, helper

from tests.hostile.node_mutations import (
    absurd_attribute,
    add_inputs,
    bypass_node,
    change_domain,
    change_outputs,
    drop_attribute,
    drop_input,
    drop_node,
    duplicate_node,
    loop_to_itself,
    move_node,
    odd_attribute,
    retarget_input,
    retype_attribute,
    swap_inputs,
    swap_operators,
)
from tests.hostile.places import (
    ABSURD_LENGTHS,
    DOMAINS,
    OPSETS,
    graphs,
    one_node,
)
from tests.hostile.value_mutations import (
    absurd_numbers,
    drop_value,
    duplicate_name,
    external_tensor,
    lying_dims,
    lying_shape,
    odd_outputs,
    reshaped_dims,
    truncated_data,
    wrong_dtype,
    wrong_type,
)

#: A kind of mutation; it does nothing where a model has no place for it.
Mutation = Callable[[random.Random, onnx.ModelProto], None]


def foreign_opset(draw: random.Random, model: onnx.ModelProto) -> None:
    """An opset that is absurd, there twice, or missing; an IR version that is."""
    way = draw.randrange(4)
    if way == 0 and model.opset_import:
        draw.choice(list(model.opset_import)).version = draw.choice(OPSETS)
    elif way == 1:
        model.opset_import.add(domain=draw.choice(DOMAINS), version=draw.choice(OPSETS))
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
    if not (chosen := one_node(draw, model)):
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
    sparse.dims.extend(draw.choice([list(dense.dims), [draw.choice(ABSURD_LENGTHS)], []]))
    indices = [draw.choice(ABSURD_LENGTHS) for _ in range(draw.randrange(4))]
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
