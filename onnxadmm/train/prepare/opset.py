"""Raising or lowering the operator set of a training copy to one that the engine trains."""

import onnx
from onnx import helper, inliner, numpy_helper, version_converter

from onnxadmm.errors import NotTrainableError
from onnxadmm.graph.constants import constant_of_node
from onnxadmm.train.engine import OPSET
from onnxadmm.train.prepare.nodes import opset_of, set_attribute

#: The loss needs 13; a copy of an older opset is raised to this one, which every gradient was checked with.
RAISED_OPSET = 17
OLDEST_OPSET = 13
#: From this one on Resize has attributes that say which places of its input it reads.
_RESIZE_SAYS_WHERE = 11
_HIDDEN = "onnxadmm.hidden"


def convert_opset(model: onnx.ModelProto, *, oldest: int = OLDEST_OPSET) -> onnx.ModelProto:
    """Bring the copy to an opset the engine trains, when it is too new or too old for the loss.

    Operators newer than the engine are replaced by their function bodies; those that the runtime's optimiser wrote
    into a model older than them are hidden from the converter.

    Args:
        oldest: least operator set that will do; up to 17.

    Raises:
        NotTrainableError: neither ONNX's version converter nor a plain restamp can do it.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    opset = opset_of(model)
    if OLDEST_OPSET <= opset <= OPSET:
        return model if opset >= oldest else _raised(model)
    target = OPSET if opset > OPSET else RAISED_OPSET
    try:
        # The converter stops at inferred shapes that disagree with recorded ones.
        del model.graph.value_info[:]
        if opset > OPSET:
            model = _inline_newer(model)
        hidden = _rename_domain(model, {n.op_type for n in model.graph.node if _is_ahead(n, opset)}, "", _HIDDEN)
        converted = version_converter.convert_version(model, target)
        if opset < _RESIZE_SAYS_WHERE:
            _spell_out_resizing(converted)
        _rename_domain(converted, hidden, _HIDDEN, "")
    except (version_converter.ConvertError, RuntimeError, ValueError, onnx.shape_inference.InferenceError) as error:
        if opset > OPSET and all(_is_unchanged(node, opset) for node in model.graph.node):
            return _restamped(model)
        raise NotTrainableError(
            f"opset {opset}",
            expected=f"opset {OLDEST_OPSET} to {OPSET} for training",
            found=f"a graph that cannot be converted to {target} ({' '.join(str(error).split())[:200]})",
            way_out=f"export the model with opset {OPSET} or older",
        ) from error
    if opset_of(converted) != target:
        raise NotTrainableError(
            f"opset {opset}",
            expected=f"opset {OLDEST_OPSET} to {OPSET} for training",
            found=f"a graph the converter left at {opset_of(converted)}",
            way_out=f"export the model with opset {OPSET} or older",
        )
    return converted


def _raised(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with an opset from 13 on, in opset 17, by its number: one operator alone means another there.

    ONNX's converter would do the same, and refuses graphs with operators that it does not know.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    _spell_out_regions(result.graph)
    for entry in result.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = RAISED_OPSET
    return result


def _spell_out_regions(graph: onnx.GraphProto) -> None:
    """Write down how RoiAlign counts pixels, whose default is another since opset 16; in bodies too."""
    for node in graph.node:
        named = {item.name for item in node.attribute}
        if node.op_type == "RoiAlign" and not node.domain and "coordinate_transformation_mode" not in named:
            node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "output_half_pixel"))
        for item in node.attribute:
            for body in (*item.graphs, *([item.g] if item.type == onnx.AttributeProto.GRAPH else [])):
                _spell_out_regions(body)


def _spell_out_resizing(model: onnx.ModelProto) -> None:
    """Write down which places a Resize reads that was an Upsample or a Resize before it could say so.

    The converter leaves it at the defaults, which are others: result ``i`` stands at ``i / scale`` of the input. The
    nearest place is the one before, or the one behind where all axes become shorter.
    """
    known = {node.output[0]: constant_of_node(node) for node in model.graph.node if node.op_type == "Constant"}
    known |= {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Resize" and node.domain in ("", "ai.onnx"):
            scales = known.get(node.input[2])
            shorter = scales is not None and bool((scales <= 1.0).all())
            set_attribute(node, "coordinate_transformation_mode", "asymmetric")
            set_attribute(node, "nearest_mode", "ceil" if shorter else "floor")


def _inline_newer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace operators that the engine's opset has not by the function bodies ONNX defines them with."""
    newer = {node.op_type for node in model.graph.node if node.domain in ("", "ai.onnx") and not _has(node.op_type)}
    if not newer:
        return model
    chosen = [("", name) for name in sorted(newer)]
    # Some bodies depend on types and shapes.
    inferred = onnx.shape_inference.infer_shapes(model)
    _spell_out_defaults(inferred, newer)
    listed = {value.name for value in inferred.graph.input}
    inferred.graph.value_info.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in inferred.graph.initializer
        if tensor.name not in listed
    )
    inlined = inliner.inline_selected_functions(inferred, chosen, inline_schema_functions=True)
    del inlined.graph.value_info[:]
    # The runtime names what it fuses after what it was; without names, all of it alike.
    for index, node in enumerate(inlined.graph.node):
        node.name = node.name or f"{node.op_type}/inlined.{index}"
    return inlined


def _spell_out_defaults(model: onnx.ModelProto, operators: set[str]) -> None:
    """Write down attributes left at their defaults, in place: the inliner drops what a body takes from them."""
    for node in model.graph.node:
        if node.op_type in operators and node.domain in ("", "ai.onnx"):
            given = {item.name for item in node.attribute}
            schema = onnx.defs.get_schema(node.op_type, opset_of(model))
            defaults = [item.default_value for name, item in schema.attributes.items() if name not in given]
            node.attribute.extend(item for item in defaults if item.type != onnx.AttributeProto.UNDEFINED)


def _has(operator: str, opset: int = OPSET) -> bool:
    try:
        onnx.defs.get_schema(operator, opset)
    except onnx.defs.SchemaError:
        return False
    return True


def _is_ahead(node: onnx.NodeProto, opset: int) -> bool:
    return node.domain in ("", "ai.onnx") and not _has(node.op_type, opset)


def _rename_domain(model: onnx.ModelProto, operators: set[str], old: str, new: str) -> set[str]:
    """Move some operators to another domain, in place; returns them."""
    for node in model.graph.node:
        if node.op_type in operators and ("" if node.domain == "ai.onnx" else node.domain) == old:
            node.domain = new
    others = [entry for entry in model.opset_import if entry.domain != _HIDDEN]
    del model.opset_import[:]
    model.opset_import.extend(others)
    if operators and new == _HIDDEN:
        model.opset_import.append(helper.make_opsetid(_HIDDEN, 1))
    return operators


def _is_unchanged(node: onnx.NodeProto, opset: int) -> bool:
    """Whether a node means the same in the engine's opset: same inputs and attributes, only types were added."""
    if node.domain not in ("", "ai.onnx"):
        return True
    if not _has(node.op_type):
        return False
    new, old = onnx.defs.get_schema(node.op_type, opset), onnx.defs.get_schema(node.op_type, OPSET)
    names = [value.name for value in new.inputs]
    return names == [value.name for value in old.inputs] and all(item.name in old.attributes for item in node.attribute)


def _restamped(model: onnx.ModelProto) -> onnx.ModelProto:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = OPSET
    return model
