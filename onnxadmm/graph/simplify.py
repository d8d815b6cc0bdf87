"""The one door to onnxsim."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from onnxadmm.errors import ModelFileError
from onnxadmm.graph.harmless import is_harmless
from onnxadmm.graph.model import Model, from_proto, to_proto
from onnxadmm.runtime.apart import run_apart

LARGEST_SIMPLIFIED = 1_500_000_000  # bytes; onnxsim serialises the model several times

_LARGEST_GROWTH = 0.01  # of the bytes of all weights: what is computed from little is not to be stored
_SMALL = 2**16  # bytes; sizes and masks that are folded are worth that

#: Simplifies the first file into the second, which is only written when onnxsim's own check passes.
_PROGRAM = """
import sys, onnx, onnxsim
result, ok = onnxsim.simplify(onnx.load(sys.argv[1]), skip_fuse_bn=True)
if ok:
    onnx.save(result, sys.argv[2])
"""

_console = threading.Lock()


@dataclass(frozen=True)
class Simplified:
    """What became of a model.

    Attributes:
        model: the simplified model, or the very model that was given.
        changed: whether it is another one.
        note: one clause that says what happened, for a log line or a report.
    """

    model: Model
    changed: bool
    note: str


def simplify(model: Model) -> Simplified:
    """Fold constants and shape arithmetic, and drop what is redundant; BatchNormalization stays, since it trains.

    What is promised: inputs, outputs and their dynamic axes, opset, IR version, metadata, doc strings of the model and
    of the nodes that stay, functions, path and sha256 are those of ``model``. Never raises: a model that onnxsim
    cannot take, or whose interface it would change, is handed back as it is.

    Names: onnxsim keeps the names of initializers that it leaves alone, also where they reached their node through
    Identity. Weights that it computes anew are anonymous (``_v_17``). Those that stand where a node of the same name
    had an initializer of the same shape get that initializer's name back.
    """
    if model.file_bytes > LARGEST_SIMPLIFIED:
        return Simplified(model, False, f"not simplified, {model.file_bytes} bytes are too large for onnxsim")
    try:
        original = to_proto(model)
        if is_harmless(model):
            # Imported here: it takes a while, and only this function needs it.
            import onnxsim

            with _quiet():
                result, ok = onnxsim.simplify(original, skip_fuse_bn=True)
        else:
            result, ok = _simplified_apart(original)
        if not ok:
            return Simplified(model, False, "not simplified, onnxsim's own check failed")
    except Exception as error:  # onnxsim raises RuntimeError, ValueError and what onnx and onnxruntime raise
        reason = (str(error).splitlines() or [""])[0][:160]
        return Simplified(model, False, f"not simplified, onnxsim failed: {type(error).__name__} {reason}".rstrip(". "))
    difference = _interface_change(original, result)
    if difference is not None:
        return Simplified(model, False, f"not simplified, onnxsim would change {difference}")
    stored, before = _stored_bytes(result), _stored_bytes(original)
    if stored - before > max(_LARGEST_GROWTH * before, _SMALL):
        return Simplified(model, False, f"not simplified, that would store {stored} bytes of weights for {before}")
    if _structure(original) == _structure(result):
        return Simplified(model, False, "already simple")
    _restore_weight_names(original, result)
    _restore_descriptions(original, result)
    try:
        simplified = from_proto(result)
    except ModelFileError as error:
        return Simplified(model, False, f"not simplified, the result is broken: {error.found}")
    before, after = len(original.graph.node), len(result.graph.node)
    return Simplified(replace(model, ir=simplified.ir), True, f"simplified from {before} to {after} nodes")


def _simplified_apart(original: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """Simplify in a process of its own, since onnxsim computes what is constant and may crash doing so."""
    with tempfile.TemporaryDirectory(prefix="onnxadmm-") as folder:
        given, made = Path(folder) / "model.onnx", Path(folder) / "simple.onnx"
        given.write_bytes(original.SerializeToString())
        run_apart(_PROGRAM, str(given), str(made))
        return (onnx.load(made), True) if made.exists() else (original, False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Send what C++ and Python write to the console nowhere; other threads' output during this time is lost too."""
    with _console, ExitStack() as stack:
        sys.stdout.flush()
        sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        for descriptor in (1, 2):
            try:
                saved = os.dup(descriptor)
            except OSError:  # a process without console has none to silence
                continue
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, descriptor)
            os.dup2(nowhere, descriptor)
        yield
        sys.stdout.flush()
        sys.stderr.flush()


def _fed(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    initializers = {tensor.name for tensor in graph.initializer}
    return [item for item in graph.input if item.name not in initializers]


def _interface_change(original: onnx.ModelProto, result: onnx.ModelProto) -> str | None:
    """What differs between the interfaces, None when nothing does. Axes may be more precise, they are restored."""
    for kind, before, after in (
        ("inputs", _fed(original.graph), _fed(result.graph)),
        ("outputs", list(original.graph.output), list(result.graph.output)),
    ):
        if [item.name for item in before] != [item.name for item in after]:
            return f"the {kind} {[item.name for item in before]} to {[item.name for item in after]}"
        for old, new in zip(before, after, strict=True):
            if old.type.tensor_type.elem_type != new.type.tensor_type.elem_type:
                return f"the type of {old.name!r}"
    if {(item.domain, item.version) for item in original.opset_import if item.domain == ""} != {
        (item.domain, item.version) for item in result.opset_import if item.domain == ""
    }:
        return "the opset"
    return None


def _stored_bytes(proto: onnx.ModelProto) -> int:
    """Bytes of all constants of the main graph, and of functions, which simplifying writes out."""
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    constants = [node for node in nodes if node.op_type == "Constant"]
    return sum(int(each.ByteSize()) for each in (*proto.graph.initializer, *constants))


def _structure(proto: onnx.ModelProto) -> tuple[object, ...]:
    nodes = tuple((node.op_type, tuple(node.input), tuple(node.output)) for node in proto.graph.node)
    return nodes, frozenset(tensor.name for tensor in proto.graph.initializer)


def _restore_weight_names(original: onnx.ModelProto, result: onnx.ModelProto) -> None:
    """Give weights that were computed anew the name of the weight in whose place they stand."""
    old_shapes = {tensor.name: tuple(tensor.dims) for tensor in original.graph.initializer}
    source = {
        node.output[0]: node.input[0]
        for node in original.graph.node
        if node.op_type == "Identity" and node.input[0] in old_shapes
    }
    old_nodes = {node.name: node for node in original.graph.node if node.name}
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    used = tensors.keys() | {name for node in result.graph.node for name in (*node.input, *node.output)}
    used |= {item.name for item in (*original.graph.input, *original.graph.output)} - old_shapes.keys()
    renamed: dict[str, str] = {}
    for node in result.graph.node:
        old = old_nodes.get(node.name)
        if old is None or old.op_type != node.op_type:
            continue
        for before, after in zip(old.input, node.input, strict=False):
            name = source.get(before, before)
            fresh = after in tensors and after not in old_shapes and after not in renamed
            if fresh and name not in used and old_shapes.get(name) == tuple(tensors[after].dims):
                renamed[after] = name
                used.add(name)
    # A name may also be meant in a subgraph, which would have to be searched for shadowing; none of them is touched.
    if any(attribute.HasField("g") for node in result.graph.node for attribute in node.attribute):
        return
    for old_name, new_name in renamed.items():
        tensors[old_name].name = new_name
    for node in result.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    infos = [info for info in result.graph.value_info if info.name not in renamed]
    kept = onnx.GraphProto(value_info=infos)
    result.graph.ClearField("value_info")
    result.graph.value_info.MergeFrom(kept.value_info)


def _restore_descriptions(original: onnx.ModelProto, result: onnx.ModelProto) -> None:
    """Put back what onnxsim drops, adds or makes more precise without being asked."""
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        if original.HasField(name):
            setattr(result, name, getattr(original, name))
        else:
            result.ClearField(name)
    result.graph.name = original.graph.name
    result.graph.doc_string = original.graph.doc_string
    for field in ("metadata_props", "training_info"):
        result.ClearField(field)
        getattr(result, field).MergeFrom(getattr(original, field))
    result.graph.ClearField("metadata_props")
    result.graph.metadata_props.MergeFrom(original.graph.metadata_props)
    result.graph.ClearField("output")
    result.graph.output.MergeFrom(original.graph.output)
    _restore_inputs(original, result)
    old_nodes = {(node.name, node.op_type): node for node in original.graph.node if node.name}
    for node in result.graph.node:
        old = old_nodes.get((node.name, node.op_type))
        if old is not None:
            node.doc_string = old.doc_string
            node.ClearField("metadata_props")
            node.metadata_props.MergeFrom(old.metadata_props)


def _restore_inputs(original: onnx.ModelProto, result: onnx.ModelProto) -> None:
    """List among the inputs what was listed, and every initializer where the IR version wants that (below 4)."""
    present = {tensor.name: tensor for tensor in result.graph.initializer}
    before = {tensor.name for tensor in original.graph.initializer}
    inputs = [item for item in original.graph.input if item.name not in before or item.name in present]
    if original.ir_version < 4:
        listed = {item.name for item in inputs}
        inputs += [
            onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
            for name, tensor in present.items()
            if name not in listed
        ]
    kept = onnx.GraphProto(input=inputs)
    result.graph.ClearField("input")
    result.graph.input.MergeFrom(kept.input)
