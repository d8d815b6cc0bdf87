"""What a file must satisfy before it is taken for a model.

ONNX's checker decides, on a copy without weights. Some exported files fail it though every runtime loads them (nodes
out of order, a graph without a name); so where the checker objects, onnxruntime has the last word, and only what
neither accepts is refused.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]  # protobuf ships no types

from onnxadmm.errors import ModelFileError
from onnxadmm.graph.weights import external_tensors
from onnxadmm.graph.wire import Buffer
from onnxadmm.runtime.apart import CrashError
from onnxadmm.runtime.session import AS_WRITTEN, SessionError, open_inference

OLDEST_OPSET = 7
NEWEST_OPSET = onnx.defs.onnx_opset_version()

#: Domains whose operators ONNX's checker must know; it takes any operator of any other.
_CHECKED_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")
_STRANGERS = "onnxadmm.strangers"

# How other formats begin: (offset, bytes, name).
_OTHER_FORMATS = (
    (0, b"PK\x03\x04", "a zip archive, such as PyTorch's and Keras' own formats"),
    (0, b"\x89HDF", "an HDF5 file, such as Keras' own format"),
    (0, b"GGUF", "a GGUF file"),
    (4, b"TFL3", "a TensorFlow Lite file"),
    (4, b"ORTM", "onnxruntime's own format"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the file itself"),
)


def describe_bytes(data: Buffer) -> str:
    """Say what ``data``, which are no ONNX model, seem to be."""
    for offset, magic, name in _OTHER_FORMATS:
        if bytes(data[offset : offset + len(magic)]) == magic:
            return name
    return f"{len(data)} bytes of something else"


def check_header(proto: onnx.ModelProto, *, thing: str) -> None:
    """Refuse a model without graph, outputs or opset, or with an opset that is not supported.

    Raises:
        ModelFileError: always one sentence about the first of these that holds.
    """
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise ModelFileError(thing, expected="a model with a graph", found="none", way_out="export the model again")
    if not proto.graph.output:
        raise ModelFileError(
            thing, expected="a graph with outputs", found="no output", way_out="name the outputs when exporting"
        )
    if not proto.opset_import:
        raise ModelFileError(
            thing,
            expected="a model that says its opset",
            found="none, the file may be cut off",
            way_out="copy or export the model again",
        )
    opset = next((item.version for item in proto.opset_import if item.domain in ("", "ai.onnx")), None)
    if opset is None:
        return
    if opset > NEWEST_OPSET:
        raise ModelFileError(
            thing,
            expected=f"an opset of at most {NEWEST_OPSET}, which onnx {onnx.__version__} knows",
            found=f"opset {opset}",
            way_out="install a newer onnx, or export with an older opset",
        )
    if opset < OLDEST_OPSET:
        raise ModelFileError(
            thing,
            expected=f"an opset of at least {OLDEST_OPSET}",
            found=f"opset {opset}",
            way_out="convert the model with onnx.version_converter",
        )


def check_functions(proto: onnx.ModelProto, *, thing: str) -> None:
    """Refuse functions that call themselves, on which ONNX's checker would run out of stack.

    Raises:
        ModelFileError: one does, directly or through others.
    """
    calls = {
        (function.domain, function.name): {(node.domain, node.op_type) for node in function.node}
        for function in proto.functions
    }
    waiting = dict(calls)
    while waiting:
        # Functions that call none of those still waiting are settled; a round without any is a circle.
        settled = [name for name, called in waiting.items() if not called & waiting.keys()]
        if not settled:
            names = ", ".join(name for _, name in sorted(waiting))
            raise ModelFileError(
                thing,
                expected="functions that do not call themselves",
                found=f"a circle among {names}",
                way_out="export the model again without functions",
            )
        for name in settled:
            del waiting[name]


def check_text(proto: onnx.ModelProto, *, thing: str) -> None:
    """Refuse names and doc strings that are not UTF-8: protobuf reads them, but nothing can write them again.

    Raises:
        ModelFileError: with the bytes of the first such text.
    """
    waiting: list[Any] = [proto]
    while waiting:
        for field, content in waiting.pop().ListFields():
            if field.type == field.TYPE_MESSAGE:
                waiting.extend([content] if isinstance(content, Message) else content)
            elif field.type == field.TYPE_STRING:
                for text in [content] if isinstance(content, str | bytes) else content:
                    if isinstance(text, bytes):
                        raise ModelFileError(
                            thing,
                            expected=f"UTF-8 text as {field.name}",
                            found=repr(text[:60]),
                            way_out="copy or export the model again",
                        )


def passes_checker(proto: onnx.ModelProto, *, thing: str, whole: Path | bytes) -> bool:
    """Run the checker on a copy of ``proto`` without weights; where it objects, try onnxruntime on the ``whole``.

    An operator of a name that no version of its domain has is a custom one, and no reason to object.

    Args:
        proto: the model, its large weights marked as external data.
        whole: the model with its weights, as file or as bytes.

    Returns:
        whether the checker passed; False means that only onnxruntime takes the model.

    Raises:
        ModelFileError: neither takes it.
    """
    light = onnx.ModelProto()
    light.CopyFrom(proto)
    for tensor in external_tensors(light):
        # An empty tensor needs no data, and without inference the checker compares no shapes.
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        del tensor.dims[:]
        tensor.dims.append(0)
    _set_strangers_apart(light)
    try:
        onnx.checker.check_model(light)
    except (onnx.checker.ValidationError, ValueError, UnicodeDecodeError, RuntimeError) as error:
        refusal = _first_line(error)
    else:
        return True
    runtime_refusal = _try_onnxruntime(whole)
    if runtime_refusal is None:
        return False
    raise ModelFileError(
        thing,
        expected="a model that ONNX's checker or onnxruntime accepts",
        found=f"{refusal!r} from the first and {runtime_refusal!r} from the second",
        way_out="export the model again",
    )


def _set_strangers_apart(proto: onnx.ModelProto) -> None:
    """Move operators that some tools register in ONNX's own domains to one that the checker does not look into."""
    functions = {(function.domain, function.name) for function in proto.functions}
    waiting: list[Iterable[onnx.NodeProto]] = [proto.graph.node, *(function.node for function in proto.functions)]
    while waiting:
        for node in waiting.pop():
            own = "" if node.domain == "ai.onnx" else node.domain
            called = (node.domain, node.op_type) in functions
            if node.domain in _CHECKED_DOMAINS and not called and not onnx.defs.has(node.op_type, own):
                node.domain = _STRANGERS
            for attribute in node.attribute:
                waiting.extend(graph.node for graph in (attribute.g, *attribute.graphs))
    for opsets in (proto.opset_import, *(function.opset_import for function in proto.functions)):
        opsets.add(domain=_STRANGERS, version=1)


def _try_onnxruntime(whole: Path | bytes) -> str | None:
    """Return why onnxruntime refuses the model, or None when it loads."""
    try:
        # In a process of its own: what the checker refuses may crash there.
        open_inference(whole, replace(AS_WRITTEN, prepacking=True), apart=True).close()
    except (SessionError, CrashError) as error:
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    """The first line of a foreign error message, short enough for a sentence and without a full stop."""
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0].strip().rstrip(".")
    return line if len(line) <= 160 else line[:157] + "..."
