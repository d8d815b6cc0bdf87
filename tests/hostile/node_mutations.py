"""What may be wrong with nodes and their attributes."""

import random
from typing import Any

import onnx
from onnx import AttributeProto, helper

from tests.hostile.places import (
    ABSURD_FLOATS,
    ABSURD_LENGTHS,
    DOMAINS,
    graphs,
    names_of,
    nodes_of,
    one_node,
    spoil_lengths,
)


def drop_node(draw: random.Random, model: onnx.ModelProto) -> None:
    """What it computed has no origin any more."""
    if chosen := one_node(draw, model):
        chosen[0].node.remove(chosen[1])


def bypass_node(draw: random.Random, model: onnx.ModelProto) -> None:
    """Readers of its first result read its first operand, of another shape and type."""
    chosen = one_node(draw, model)
    if not chosen or not chosen[1].input or not chosen[1].output:
        return
    old, new = chosen[1].output[0], chosen[1].input[0]
    for _, node in nodes_of(model):
        node.input[:] = [new if name == old else name for name in node.input]
    chosen[0].node.remove(chosen[1])


def duplicate_node(draw: random.Random, model: onnx.ModelProto) -> None:
    """Every result is computed twice."""
    if chosen := one_node(draw, model):
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
    chosen = one_node(draw, model)
    if chosen and chosen[1].input:
        names = names_of(model)
        chosen[1].input[draw.randrange(len(chosen[1].input))] = draw.choice([*names, *names, "nowhere", ""])


def swap_inputs(draw: random.Random, model: onnx.ModelProto) -> None:
    """Operands in another order."""
    if chosen := one_node(draw, model):
        names = list(chosen[1].input)
        draw.shuffle(names)
        chosen[1].input[:] = names


def drop_input(draw: random.Random, model: onnx.ModelProto) -> None:
    """One operand fewer, maybe none."""
    chosen = one_node(draw, model)
    if chosen and chosen[1].input:
        chosen[1].input.pop(draw.randrange(len(chosen[1].input)))
        if draw.random() < 0.2:
            del chosen[1].input[:]


def add_inputs(draw: random.Random, model: onnx.ModelProto) -> None:
    """More operands than the operator takes."""
    if (chosen := one_node(draw, model)) and (names := names_of(model)):
        chosen[1].input.extend(draw.choices(names, k=draw.choice([1, 2, 5])))


def change_outputs(draw: random.Random, model: onnx.ModelProto) -> None:
    """More results than it has, fewer, nameless ones, or those of another node."""
    if not (chosen := one_node(draw, model)):
        return
    outputs = chosen[1].output
    way = draw.randrange(4)
    if way == 0:
        outputs.append(f"extra{draw.randrange(3)}")
    elif way == 1 and outputs:
        outputs.pop(draw.randrange(len(outputs)))
    elif way == 2 and outputs:
        outputs[draw.randrange(len(outputs))] = ""
    elif outputs and (names := names_of(model)):
        outputs[draw.randrange(len(outputs))] = draw.choice(names)


def loop_to_itself(draw: random.Random, model: onnx.ModelProto) -> None:
    """It reads its own result, or that of a node that reads it."""
    chosen = one_node(draw, model)
    if chosen and chosen[1].input and chosen[1].output:
        chosen[1].input[draw.randrange(len(chosen[1].input))] = draw.choice(list(chosen[1].output))


def swap_operators(draw: random.Random, model: onnx.ModelProto) -> None:
    """The same operands for another operator, of this model or of ONNX."""
    if not (chosen := one_node(draw, model)):
        return
    others = [node.op_type for _, node in nodes_of(model)]
    everything = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})
    chosen[1].op_type = draw.choice([*others, *draw.sample(everything, 8), "NoSuchOperator", ""])


def change_domain(draw: random.Random, model: onnx.ModelProto) -> None:
    """An operator of a domain that does not have it, or that the model does not import."""
    if chosen := one_node(draw, model):
        chosen[1].domain = draw.choice(DOMAINS)


def _one_attribute(draw: random.Random, model: onnx.ModelProto) -> tuple[onnx.NodeProto, AttributeProto] | None:
    found = [(node, attribute) for _, node in nodes_of(model) for attribute in node.attribute]
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
        attribute.i = draw.choice(ABSURD_LENGTHS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = draw.choice(ABSURD_FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = draw.choice([b"", b"NOTHING", b"\xff\xfe", b"x" * 5000, b"...,->", b"ij,jk->ik", b"SAME_UPPER"])
    elif attribute.type == AttributeProto.INTS:
        spoil_lengths(draw, attribute.ints)
    elif attribute.type == AttributeProto.FLOATS and attribute.floats:
        attribute.floats[draw.randrange(len(attribute.floats))] = draw.choice(ABSURD_FLOATS)


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
