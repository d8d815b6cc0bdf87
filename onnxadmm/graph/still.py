"""Operators that draw at random while running, held still in the copies that a proof compares.

Two runs of one such model differ, so nothing could be said of two models. Dropout in training mode takes its inference
form, the identity: what it drops depends on how long an axis is, and that changes where units go. Every other operator
that draws gets a seed, the same on both sides: nothing shrinks through it, so both sides draw the same numbers.
"""

import zlib
from collections.abc import Iterator

import onnx_ir

from onnxadmm.graph.constants import constant
from onnxadmm.graph.model import Model, clone
from onnxadmm.operators.table import find

_TRAINING_MODE = 2  # operand of Dropout from opset 12 on; before, inference is all there is


def still(model: Model) -> tuple[Model, tuple[str, ...]]:
    """Return a copy of the model whose operators do not draw anew in each run.

    Args:
        model: the model; it is not changed, and handed back where nothing in it draws.

    Returns:
        The copy, and the operators that were held still, such as ``"Dropout (drop1)"``, in the order of the graph.
    """
    if not any(map(_draws, _nodes(model))):
        return model, ()
    copy = clone(model)
    held = []
    for node in filter(_draws, list(_nodes(copy))):
        name = node.name or next((value.name for value in node.outputs if value.name), "")
        held.append(f"{node.op_type} ({name})")
        if node.op_type == "Dropout":
            node.replace_input_with(_TRAINING_MODE, None)
        else:
            # Of the result's name, which both sides share; nodes may be at other places.
            seed = zlib.crc32((node.outputs[0].name or "").encode()) % 2**16
            node.attributes.add(onnx_ir.AttrFloat32("seed", float(seed)))
    return copy, tuple(held)


def about_drawing(held: tuple[str, ...]) -> str:
    """Return the sentence on a model in which ``still`` found operators."""
    dropped = [name for name in held if name.startswith("Dropout ")]
    if dropped:
        return (
            f"{', '.join(dropped)} drops at random: the file was exported in training mode, export it after "
            "model.eval(). The proof is about its inference form."
        )
    return f"{', '.join(held)} draws at random in every run. In the proof both models got the same draw."


def _nodes(model: Model) -> Iterator[onnx_ir.Node]:
    yield from model.ir.graph.all_nodes()
    for function in model.ir.functions.values():
        yield from function.all_nodes()


def _draws(node: onnx_ir.Node) -> bool:
    if not find(node.domain, node.op_type).draws:
        return False
    if node.op_type != "Dropout":
        return True
    mode = node.inputs[_TRAINING_MODE] if len(node.inputs) > _TRAINING_MODE else None
    if mode is None:
        return False
    known = constant(mode)
    # Whether it is fed or computed is no matter: the proof is about the inference form.
    return known is None or bool(known.any())
