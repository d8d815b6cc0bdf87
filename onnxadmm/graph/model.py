"""The door between ONNX files and the graph every room works on.

A file's large weights are never parsed: they are mapped from where they lie, in the file or in its external data, so
loading costs little more memory than the graph itself. What ``onnx_ir`` does not carry (sparse storage, training
information) is kept beside the graph and written back.
"""

import hashlib
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx
import onnx_ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types

from onnxadmm.errors import ModelFileError
from onnxadmm.graph import store
from onnxadmm.graph.check import check_functions, check_header, check_text, describe_bytes, passes_checker
from onnxadmm.graph.sparse import densify
from onnxadmm.graph.unsized import free_unsized
from onnxadmm.graph.weights import (
    ListedTensor,
    WeightFiles,
    all_tensors,
    external_tensors,
    is_listed,
    mapped_tensor,
    read_file,
    refuse_short,
    refuse_special,
)
from onnxadmm.graph.wire import IN_FILE, Buffer, WireError, lift_weights, mark

# It warns on stderr of what a model lacks; what matters of that is refused here, in a sentence.
logging.getLogger("onnx_ir").addHandler(logging.NullHandler())

_IN_MEMORY = "the model given in memory"


@dataclass(frozen=True)
class Model:
    """A loaded ONNX model.

    Attributes:
        ir: the graph; initializers are dense, and the nodes stand in topological order.
        path: the file it came from, None when it was given in memory.
        sha256: of the ``.onnx`` file's bytes, or of the serialised message given in memory.
        file_bytes: size of the ``.onnx`` file and of its external data together.
        extras: what the graph cannot carry; ``clone`` and ``dataclasses.replace(model, ir=...)`` keep it.
        input_shapes: whole shapes of inputs, by name, at which sizes that the file leaves free are counted and timed;
            see ``onnxadmm.graph.stated``.

    Examples:
        ```python
        model = oa.load("model.onnx")
        print(model.file_bytes, model.sha256, len(model.ir.graph))
        ```
    """

    ir: onnx_ir.Model
    path: Path | None
    sha256: str
    file_bytes: int
    extras: store.Extras = field(default_factory=store.Extras)
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        name = "in memory" if self.path is None else repr(str(self.path))
        nodes = len(self.ir.graph)
        return f"Model({name}: {nodes} nodes, {self.file_bytes:,} bytes, sha256 {self.sha256[:12]})"


#: What every function takes a model as.
Source = str | Path | onnx.ModelProto | Model


def load(source: Source) -> Model:
    """Load a model from a file or a protobuf message; a ``Model`` is handed back as it is.

    Opset 7 to the newest that the ``onnx`` package knows, any IR version (kept as it is), weights inside the file or
    in external data, dense or sparse. The file and its data must not be written to in place while the model lives:
    large ones stay mapped. Replacing them, as ``save`` does, is fine.

    Args:
        source: path, message or model.

    Returns:
        The model, which every function takes in place of a path.

    Raises:
        ModelFileError: the file is missing, no ONNX model, cut off, too old or too new, neither ONNX's checker nor
            onnxruntime accepts it, or its external data are missing, too short or outside of its folder.

    Examples:
        ```python
        model = oa.load("model.onnx")
        plan = oa.rank(model, ratio=0.5)
        ```
    """
    if isinstance(source, Model):
        return source
    if isinstance(source, onnx.ModelProto):
        return from_proto(source)
    path = Path(source)
    thing = str(source)
    if os.path.isdir(path):
        raise ModelFileError(thing, expected="an ONNX file", found="a directory", way_out="give the file inside of it")
    try:
        refuse_special(path)
        data = read_file(path)
    except FileNotFoundError:
        raise ModelFileError(
            thing, expected="an ONNX file", found="no such file", way_out="check the path and the spelling"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise ModelFileError(
            thing, expected="a readable ONNX file", found=str(error), way_out="check the file and its permissions"
        ) from error
    if not len(data):
        raise ModelFileError(
            thing, expected="an ONNX file", found="an empty file", way_out="copy or export the model again"
        )
    return _from_bytes(data, thing=thing, path=path, folder=path.parent, whole=path)


def from_proto(proto: onnx.ModelProto, *, path: Path | None = None) -> Model:
    """Take a model from a protobuf message, which is copied.

    Args:
        path: the file the message was read from; needed only when its weights are external data next to that file.

    Raises:
        ModelFileError: as ``load``; also when the message is larger than the 2 GB that protobuf can serialise.
    """
    thing = _IN_MEMORY if path is None else str(path)
    try:
        data = proto.SerializeToString(deterministic=True)
    except (ValueError, MemoryError) as error:
        raise ModelFileError(
            thing,
            expected="a message of at most 2 GB",
            found=str(error),
            way_out="save it with external data and give the path",
        ) from error
    if not data:
        raise ModelFileError(
            thing, expected="a model", found="an empty message", way_out="give the message of a whole model"
        )
    folder = None if path is None else path.parent
    return _from_bytes(memoryview(data), thing=thing, path=path, folder=folder, whole=data)


def with_proto(model: Model, proto: onnx.ModelProto) -> Model:
    """Return the model with the graph of a message that was made of it and holds all weights; nothing is checked."""
    return replace(model, ir=onnx_ir.from_proto(proto))


def to_proto(model: Model) -> onnx.ModelProto:
    """Return the model as one message that needs no other file: all weights inside and dense.

    Raises:
        ModelFileError: that would be more than the 2 GB that protobuf can serialise; ``save`` can write it.
    """
    return store.to_message(model.ir, model.extras, thing=_IN_MEMORY if model.path is None else str(model.path))


def complaint(model: Model) -> str | None:
    """Return what ONNX's checker, with strict shape inference, says against a model; None when it passes.

    Weights are not looked at, so this is fast for models of any size.
    """
    try:
        onnx.checker.check_model(store.to_weightless_message(model.ir, model.extras), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        return " ".join(str(error).split())[:300].rstrip(". ")
    return None


def clone(model: Model) -> Model:
    """Copy the structure, so that either copy may be edited; the weights' memory is shared."""
    return replace(model, ir=model.ir.clone())


def save(
    model: Model,
    path: str | Path,
    *,
    sparse: bool | Collection[str] = False,
    single_file: bool = False,
    force: bool = False,
) -> int:
    """Write the model to ``path``; under that name stands either the whole model or what stood there before.

    Weights become external data in ``<name>.data`` next to the file when the source had external data or when they
    exceed 2 GB. Initializers that were sparse in the source are sparse again.

    Args:
        model: as ``load``, ``shrink`` or ``compress`` gives it.
        path: the file.
        sparse: also store every float initializer, or those of these names, sparse when that takes fewer bytes (see
            ``onnxadmm.graph.sparse``); without effect below IR version 6, which knows no sparse tensors.
        single_file: weights that fit into 2 GB stand inside of the file, also where the source had external data.
        force: replace existing files.

    Returns:
        Bytes written, external data included.

    Raises:
        OutputError: the file or its data exist and may not be overwritten, the folder is missing or cannot be written
            to, or the disk is full. Nothing is left behind.

    Examples:
        ```python
        plan = oa.rank("model.onnx", ratio=0.5)
        size = oa.save(oa.shrink("model.onnx", plan), "half.onnx", force=True)
        ```
    """
    extras = replace(model.extras, external_data=False) if single_file else model.extras
    return store.write(model.ir, extras, Path(path), sparse=sparse, force=force)


def written_size(model: Model, *, single_file: bool = False) -> int:
    """Return the bytes that ``save`` would write, external data included, with no more sparse weights than before.

    Args:
        single_file: as for ``save``.
    """
    return store.written_size(model.ir, replace(model.extras, external_data=False) if single_file else model.extras)


def _from_bytes(data: Buffer, *, thing: str, path: Path | None, folder: Path | None, whole: Path | bytes) -> Model:
    proto = _parse(data, thing=thing)
    check_header(proto, thing=thing)
    check_functions(proto, thing=thing)
    check_text(proto, thing=thing)
    _shorten_domain(proto)
    files = WeightFiles(thing, data, folder)
    sparse_names = densify(proto, thing=thing, files=files)
    for tensor in all_tensors(proto):
        refuse_short(thing, tensor)
    slices = [files.slice(tensor) for tensor in external_tensors(proto)]
    in_order = passes_checker(proto, thing=thing, whole=whole)
    free_unsized(proto)
    tensors: dict[str, onnx_ir.TensorProtocol] = {}
    for number, (tensor, content) in enumerate(zip(external_tensors(proto), slices, strict=True)):
        location = f"{IN_FILE}{number}"
        tensors[location] = mapped_tensor(tensor, content)
        mark(tensor, location, 0, len(content))
    training = tuple(info.SerializeToString(deterministic=True) for info in proto.training_info)
    map_types = store.take_map_types(proto.graph)
    bare_opset = any(not opset.HasField("domain") for opset in proto.opset_import)
    try:
        ir = onnx_ir.from_proto(proto)
        for graph in _graphs(ir):
            _place_weights(graph, tensors)
            if not in_order:
                graph.sort()
    except (ValueError, TypeError, KeyError, AssertionError, NotImplementedError, onnx_ir.serde.SerdeError) as error:
        raise ModelFileError(
            thing,
            expected="a graph that can be read",
            found=" ".join(_root_cause(error).split())[:200].rstrip("."),
            way_out="export the model again",
        ) from error
    return Model(
        ir=ir,
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        file_bytes=files.total_bytes,
        extras=store.Extras(
            sparse_names=sparse_names,
            training_info=training,
            external_data=files.external,
            bare_opset=bare_opset,
            map_types=map_types,
        ),
    )


def _shorten_domain(proto: onnx.ModelProto) -> None:
    """Import ONNX's own operators under their empty domain, in place, where a file writes it out as ``ai.onnx``."""
    for part in (proto, *proto.functions):
        if all(each.domain for each in part.opset_import):
            for each in part.opset_import:
                each.domain = "" if each.domain == "ai.onnx" else each.domain


def _parse(data: Buffer, *, thing: str) -> onnx.ModelProto:
    try:
        proto = onnx.ModelProto()
        proto.ParseFromString(lift_weights(data))
    except WireError as error:
        # Every exporter writes the IR version first: a file that begins with it was an ONNX file once.
        if error.cut_off and data[0] == 0x08 and describe_bytes(data).endswith("something else"):
            raise ModelFileError(
                thing,
                expected="a whole ONNX file",
                found=f"one that is cut off after {len(data)} bytes",
                way_out="copy or export the model again",
            ) from error
        raise _not_onnx(thing, data) from error
    except (DecodeError, UnicodeDecodeError) as error:
        raise _not_onnx(thing, data) from error
    if not proto.ir_version and not proto.HasField("graph"):
        raise _not_onnx(thing, data)
    return proto


def _not_onnx(thing: str, data: Buffer) -> ModelFileError:
    return ModelFileError(
        thing, expected="an ONNX model", found=describe_bytes(data), way_out="export the model to ONNX first"
    )


def _graphs(ir: onnx_ir.Model) -> Iterator[onnx_ir.Graph]:
    yield from ir.graphs()
    for function in ir.functions.values():
        yield function.graph
        yield from function.subgraphs()


def _place_weights(graph: onnx_ir.Graph, tensors: Mapping[str, onnx_ir.TensorProtocol]) -> None:
    """Give initializers and attributes of ``graph`` their mapped tensors, and take small ones out of protobuf."""
    for value in graph.initializers.values():
        if value.const_value is not None:
            value.const_value = _place(value.const_value, tensors)
    for node in graph:
        for attribute in list(node.attributes.values()):
            if attribute.is_ref():
                continue
            if attribute.type == onnx_ir.AttributeType.TENSOR:
                tensor = _place(attribute.as_tensor(), tensors)
                node.attributes.add(onnx_ir.AttrTensor(attribute.name, tensor, doc_string=attribute.doc_string))
            elif attribute.type == onnx_ir.AttributeType.TENSORS:
                placed = [_place(tensor, tensors) for tensor in attribute.as_tensors()]
                node.attributes.add(onnx_ir.AttrTensors(attribute.name, placed, doc_string=attribute.doc_string))


def _place(tensor: onnx_ir.TensorProtocol, tensors: Mapping[str, onnx_ir.TensorProtocol]) -> onnx_ir.TensorProtocol:
    if isinstance(tensor, onnx_ir.ExternalTensor):
        placed = tensors[str(tensor.location)]
    elif isinstance(tensor, onnx_ir.TensorProtoTensor) and is_listed(tensor.raw):
        return ListedTensor(tensor.raw)
    elif isinstance(tensor, onnx_ir.TensorProtoTensor):
        # Reading from protobuf copies at every access; an array of the values does not.
        array = tensor.numpy()
        placed = onnx_ir.Tensor(array, dtype=tensor.dtype, shape=onnx_ir.Shape(array.shape))
    else:
        return tensor
    placed.name = tensor.name
    placed.doc_string = tensor.doc_string
    placed.metadata_props.update(tensor.metadata_props)
    return placed


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
