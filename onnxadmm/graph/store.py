"""Writing models: streamed, atomic, with external data and sparse weights where they belong."""

import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import onnx
import onnx_ir

from onnxadmm.errors import ModelFileError, OutputError
from onnxadmm.files import cannot_write, discard, hidden_beside, hold, put_in_place, refuse_existing, sweep
from onnxadmm.graph.sparse import OLDEST_IR_VERSION, to_sparse
from onnxadmm.graph.weights import ListedTensor
from onnxadmm.graph.wire import (
    GRAPH_INITIALIZER,
    IN_FILE,
    MODEL_GRAPH,
    RAW_DATA,
    SMALLEST_LIFTED,
    head,
    mark,
)

# protobuf serialises less than 2 GiB; the rest is room for what is not weights.
LARGEST_MESSAGE = 2**31 - 2**26
#: Bytes of a weight of a message in memory below which it is copied with the graph.
_COPIED_BELOW = 2**16
_PAGE = 4096  # bytes; runtimes map external data by pages
_SMALLEST_PAGED = 2**20


@dataclass(frozen=True)
class Extras:
    """What a model file holds and ``onnx_ir`` does not.

    Attributes:
        sparse_names: initializers that were stored sparse.
        training_info: serialised ``TrainingInfoProto`` messages.
        external_data: whether weights were stored outside of the ``.onnx`` file.
        bare_opset: whether the version of ONNX's own operators stands without their empty domain.
        map_types: serialised ``TypeProto`` messages of values that hold maps, by name: what ZipMap puts out.
    """

    sparse_names: frozenset[str] = frozenset()
    training_info: tuple[bytes, ...] = ()
    external_data: bool = False
    bare_opset: bool = False
    map_types: Mapping[str, bytes] = field(default_factory=dict)


def take_map_types(graph: onnx.GraphProto) -> dict[str, bytes]:
    """Take the types of values that hold maps out of a graph; ``onnx_ir`` reads none, and no weight has one."""
    taken: dict[str, bytes] = {}
    for value in (*graph.output, *graph.value_info):
        kind = value.type.sequence_type.elem_type if value.type.HasField("sequence_type") else value.type
        if kind.HasField("map_type"):
            taken[value.name] = value.type.SerializeToString(deterministic=True)
            value.ClearField("type")
    return taken


@dataclass(frozen=True)
class _Skeleton:
    """A message without large weights.

    Attributes:
        proto: the model; ``graph.initializer`` is empty.
        initializers: the main graph's, in order; those in ``weights`` have no data yet.
        weights: large weights by name.
    """

    proto: onnx.ModelProto
    initializers: tuple[onnx.TensorProto, ...]
    weights: dict[str, onnx_ir.TensorProtocol]

    @property
    def weight_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.weights.values())


def to_message(ir: onnx_ir.Model, extras: Extras, *, thing: str) -> onnx.ModelProto:
    """Return the model as one dense message.

    Raises:
        ModelFileError: it would be more than 2 GB.
    """
    skeleton = _skeleton(ir, extras, lifted_from=_COPIED_BELOW)
    if skeleton.weight_bytes > LARGEST_MESSAGE:
        raise ModelFileError(
            thing,
            expected="at most 2 GB of weights in one message",
            found=f"{skeleton.weight_bytes} bytes",
            way_out="save the model to a file and use that",
        )
    for tensor in skeleton.initializers:
        if tensor.name in skeleton.weights:
            tensor.raw_data = skeleton.weights[tensor.name].tobytes()
        skeleton.proto.graph.initializer.append(tensor)
    return skeleton.proto


def to_weightless_message(ir: onnx_ir.Model, extras: Extras) -> onnx.ModelProto:
    """Return the model as a message in which large weights are inputs: all that shape inference needs."""
    skeleton = _skeleton(ir, extras, lifted_from=_COPIED_BELOW)
    graph = skeleton.proto.graph
    listed = {value.name for value in graph.input}
    for tensor in skeleton.initializers:
        if tensor.name not in skeleton.weights:
            graph.initializer.append(tensor)
        elif tensor.name not in listed:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return skeleton.proto


def write(ir: onnx_ir.Model, extras: Extras, path: Path, *, sparse: bool | Collection[str], force: bool) -> int:
    """Write the model and return the bytes written; see ``onnxadmm.graph.model.save``."""
    _refuse_target(path, force=force)
    data_path = path.with_name(f"{path.name}.data")
    skeleton = _skeleton(ir, extras)
    asked = ir.graph.initializers.keys() if sparse is True else frozenset(sparse or ())
    _store_sparse(skeleton, ir, extras, asked=asked if ir.ir_version >= OLDEST_IR_VERSION else frozenset())
    external = bool(skeleton.weights) and (extras.external_data or skeleton.weight_bytes > LARGEST_MESSAGE)
    if external:
        _refuse_target(data_path, force=force)
    sweep(path.parent)
    temporary, temporary_data = hidden_beside(path), hidden_beside(data_path)
    written = 0
    with ExitStack() as clean:
        try:
            if external:
                clean.callback(discard, temporary_data)
                data_file = clean.enter_context(temporary_data.open("xb"))
                hold(data_file)
                written += _write_external(skeleton, data_file, location=data_path.name)
                data_file.flush()
            clean.callback(discard, temporary)
            file = clean.enter_context(temporary.open("xb"))
            hold(file)
            written += _write_message(skeleton, file, weights_inside=not external)
            file.flush()
            if sys.platform == "win32":  # where no open file can be renamed
                file.close()
            put_in_place(({temporary_data: data_path} if external else {}) | {temporary: path})
        except OSError as error:
            raise cannot_write(path, error) from error
        except ValueError as error:  # protobuf: more than 2 GB even without initializers
            raise ModelFileError(
                str(path),
                expected="at most 2 GB besides the weights",
                found=str(error),
                way_out="keep large constants in initializers",
            ) from error
    return written


class _Counted(BytesIO):
    """A file that forgets what is written and knows how much that was."""

    def __init__(self) -> None:
        super().__init__()
        self._size = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self._size += size
        return size

    def tell(self) -> int:
        return self._size


def written_size(ir: onnx_ir.Model, extras: Extras) -> int:
    """Return the bytes that ``write`` would write where no more weights are asked to be sparse.

    External data is included; each large weight that lies there names the file, here taken to be ``model.onnx.data``.
    """
    skeleton = _skeleton(ir, extras)
    _store_sparse(skeleton, ir, extras, asked=frozenset())
    external = bool(skeleton.weights) and (extras.external_data or skeleton.weight_bytes > LARGEST_MESSAGE)
    data = _write_external(skeleton, _Counted(), location="model.onnx.data") if external else 0
    return data + _write_message(skeleton, _Counted(), weights_inside=not external)


def _refuse_target(path: Path, *, force: bool) -> None:
    if not os.path.isdir(path.parent):
        raise OutputError(
            str(path), expected=f"an existing folder {path.parent}", found="none", way_out="create it first"
        )
    refuse_existing(path, force=force)


def _skeleton(ir: onnx_ir.Model, extras: Extras, *, lifted_from: int = SMALLEST_LIFTED) -> _Skeleton:
    weights = {
        name: value.const_value
        for name, value in ir.graph.initializers.items()
        if value.const_value is not None and _is_lifted(value.const_value, lifted_from)
    }
    # Copying the graph takes longer than copying small weights.
    copy = ir.clone() if weights else ir
    for name, tensor in weights.items():
        copy.graph.initializers[name].const_value = onnx_ir.ExternalTensor(
            IN_FILE,
            0,
            tensor.nbytes,
            tensor.dtype,
            shape=onnx_ir.Shape(tensor.shape.numpy()),
            name=name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )
    proto = onnx_ir.serde.serialize_model(copy)
    for opset in proto.opset_import:
        if extras.bare_opset and not opset.domain:
            opset.ClearField("domain")
    for serialised in extras.training_info:
        proto.training_info.add().ParseFromString(serialised)
    _drop_shapes_of(proto.graph, set(copy.graph.initializers))
    for value in (*proto.graph.output, *proto.graph.value_info):
        if value.name in extras.map_types:
            value.type.ParseFromString(extras.map_types[value.name])
    initializers = []
    for tensor in proto.graph.initializer:
        kept = onnx.TensorProto()
        kept.CopyFrom(tensor)
        if kept.name in weights:
            kept.ClearField("external_data")
            kept.ClearField("data_location")
        initializers.append(kept)
    proto.graph.ClearField("initializer")
    return _Skeleton(proto, tuple(initializers), weights)


def _is_lifted(tensor: onnx_ir.TensorProtocol, lifted_from: int) -> bool:
    if tensor.dtype == onnx_ir.DataType.STRING or isinstance(tensor, ListedTensor):
        return False
    return tensor.nbytes >= lifted_from or isinstance(tensor, onnx_ir.ExternalTensor)


def _drop_shapes_of(graph: onnx.GraphProto, initializers: set[str]) -> None:
    """Drop value infos that only repeat an initializer's shape, in subgraphs too: ``onnx_ir`` writes one for each."""
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                _drop_shapes_of(body, {tensor.name for tensor in body.initializer})
    kept = [
        info
        for info in graph.value_info
        if info.name not in initializers or info.doc_string or len(info.metadata_props)
    ]
    if len(kept) < len(graph.value_info):
        copies = onnx.GraphProto(value_info=kept)
        graph.ClearField("value_info")
        graph.value_info.MergeFrom(copies.value_info)


def _store_sparse(skeleton: _Skeleton, ir: onnx_ir.Model, extras: Extras, *, asked: Collection[str]) -> None:
    """Move weights into ``sparse_initializer`` where that is smaller."""
    public = {value.name for value in (*ir.graph.inputs, *ir.graph.outputs)}
    for name, value in ir.graph.initializers.items():
        if value.const_value is None or not (name in extras.sparse_names or (name in asked and name not in public)):
            continue
        sparse = to_sparse(name, value.const_value)
        if sparse is None:
            continue
        skeleton.weights.pop(name, None)
        skeleton.proto.graph.sparse_initializer.append(sparse)
        infos = [info for info in skeleton.proto.graph.value_info if info.name == name]
        for info in infos:
            skeleton.proto.graph.value_info.remove(info)


def _pieces(skeleton: _Skeleton, *, weights_inside: bool) -> Iterator[tuple[bytes, onnx_ir.TensorProtocol | None]]:
    """The initializers as they stand in the file: a header, and the weight whose bytes follow it."""
    stored_sparse = {sparse.values.name for sparse in skeleton.proto.graph.sparse_initializer}
    for tensor in skeleton.initializers:
        if tensor.name in stored_sparse:
            continue
        content = tensor.SerializeToString(deterministic=True)
        weight = skeleton.weights.get(tensor.name) if weights_inside else None
        if weight is None:
            yield head(GRAPH_INITIALIZER, len(content)) + content, None
        else:
            raw = head(RAW_DATA, weight.nbytes)
            yield head(GRAPH_INITIALIZER, len(content) + len(raw) + weight.nbytes) + content + raw, weight


def _write_message(skeleton: _Skeleton, file: BinaryIO, *, weights_inside: bool) -> int:
    """Stream the ``.onnx`` file: everything but the graph, then the graph, whose weights come last, one at a time."""
    graph = skeleton.proto.graph.SerializeToString(deterministic=True)
    outer = onnx.ModelProto()
    outer.CopyFrom(skeleton.proto)
    outer.ClearField("graph")
    file.write(outer.SerializeToString(deterministic=True))
    total = len(graph)
    for piece, weight in _pieces(skeleton, weights_inside=weights_inside):
        total += len(piece) + (0 if weight is None else weight.nbytes)
    file.write(head(MODEL_GRAPH, total))
    file.write(graph)
    for piece, weight in _pieces(skeleton, weights_inside=weights_inside):
        file.write(piece)
        if weight is not None:
            file.write(weight.tobytes())
    return file.tell()


def _write_external(skeleton: _Skeleton, file: BinaryIO, *, location: str) -> int:
    """Write the large weights one after the other, and note in the skeleton where each one lies."""
    for tensor in skeleton.initializers:
        weight = skeleton.weights.get(tensor.name)
        if weight is None:
            continue
        if weight.nbytes >= _SMALLEST_PAGED:
            file.write(b"\0" * (-file.tell() % _PAGE))
        mark(tensor, location, file.tell(), weight.nbytes)
        file.write(weight.tobytes())
    return file.tell()
