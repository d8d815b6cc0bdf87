"""Where the weights of a model lie, and the tensors that map them from there."""

import gc
import mmap
import os
import stat
import weakref
from collections.abc import Iterator
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx
import onnx_ir

from onnxadmm.errors import ModelFileError
from onnxadmm.graph.wire import IN_FILE, Buffer

# A mapped file must not be truncated by others while the model lives, so only what is worth it is mapped.
_LISTED = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.UINT64, onnx.TensorProto.UINT32)
_LONGEST_QUOTED = 200  # characters
SMALLEST_MAPPED = 64 * 2**20  # bytes

_mapped: "weakref.WeakSet[mmap.mmap]" = weakref.WeakSet()


def read_file(path: Path) -> Buffer:
    """Return the bytes of a file: mapped when it is large, read when it is not.

    Raises:
        OSError: the file cannot be opened or read.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size >= SMALLEST_MAPPED:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            _mapped.add(mapped)
            return memoryview(mapped)
        return memoryview(file.read())


def refuse_special(path: Path) -> None:
    """Refuse what has no end or makes a reader wait: pipes, sockets and devices.

    Raises:
        OSError: it is one of these, or is not there.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("a pipe or a device, which is not read")


def give_back_pages() -> None:
    """Let the system take back the memory of models that are gone, and of mapped files.

    Graphs refer to themselves in circles, so a model that nobody holds waits for the collector. Pages of a file that
    were read once count as this process's memory until they are given back, which adds up when a large model is copied;
    they are read again when they are needed.
    """
    gc.collect()
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapped in _mapped:
            mapped.madvise(mmap.MADV_DONTNEED)


class WeightFiles:
    """The files that hold a model's weights: the model file itself, and its external data next to it.

    Args:
        thing: what to call the model in errors.
        model_data: bytes of the model file.
        folder: where external data may lie; None when the model was given in memory.
    """

    def __init__(self, thing: str, model_data: Buffer, folder: Path | None) -> None:
        self._thing = thing
        self._folder = folder
        self._files: dict[str, Buffer] = {IN_FILE: model_data}

    @property
    def external(self) -> bool:
        """Whether any weight lies outside of the model file."""
        return any(not location.startswith(IN_FILE) for location in self._files)

    @property
    def total_bytes(self) -> int:
        """Size of all files that were opened, the model file included."""
        on_disk = (location == IN_FILE or not location.startswith(IN_FILE) for location in self._files)
        return sum(len(data) for data, counts in zip(self._files.values(), on_disk, strict=True) if counts)

    def add(self, data: Buffer) -> str:
        """Keep ``data`` that stand in no file, and return the location under which ``slice`` finds them."""
        location = f"{IN_FILE}{len(self._files)}"
        self._files[location] = data
        return location

    def slice(self, tensor: onnx.TensorProto) -> Buffer:
        """Return the bytes of a tensor whose ``data_location`` is EXTERNAL.

        Raises:
            ModelFileError: the location is unsafe, or the file is missing or too short, or holds another number of
                bytes than the shape needs.
        """
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        needed = byte_count(self._thing, tensor)
        try:
            offset = int(entries.get("offset") or 0)
            length = int(entries.get("length") or needed)
        except ValueError:
            raise self._refuse(tensor, "whole numbers as offset and length", _short(repr(entries))) from None
        data = self._open(location)
        where = "the model file" if location == IN_FILE else location
        if length != needed:
            raise self._refuse(tensor, f"{needed} bytes for shape {list(tensor.dims)}", f"{length} in {where}")
        if offset < 0 or offset + length > len(data):
            raise ModelFileError(
                self._thing,
                expected=f"{length} bytes for {tensor.name!r} at offset {offset} of {where}",
                found=f"a file of {len(data)} bytes",
                way_out="copy or export the model again, the file seems cut off",
            )
        return data[offset : offset + length]

    def _refuse(self, tensor: onnx.TensorProto, expected: str, found: str) -> ModelFileError:
        return ModelFileError(
            self._thing, expected=f"{expected} of {tensor.name!r}", found=found, way_out="export the model again"
        )

    def _open(self, location: str) -> Buffer:
        if location not in self._files:
            self._files[location] = read_external(self._thing, location, self._folder)
        return self._files[location]


def read_external(thing: str, location: str, folder: Path | None) -> Buffer:
    """Return the bytes of the external data file ``location``, which must lie within ``folder``.

    Raises:
        ModelFileError: there is no folder, the path leaves it (also through a symbolic link), or no file is there.
    """
    if folder is None:
        raise ModelFileError(
            thing,
            expected="all weights inside of a model given in memory",
            found=f"external data in {location!r}",
            way_out="give the path of the model's file",
        )
    absolute = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
    if not location or "\0" in location or absolute or ".." in PureWindowsPath(location).parts:
        raise ModelFileError(
            thing,
            expected="external data in the model's own folder",
            found=f"the location {_short(location)!r}",
            way_out="export the model again with its data next to it",
        )
    path = folder / location
    try:
        resolved = path.resolve()
        if not resolved.is_relative_to(folder.resolve()):
            raise ModelFileError(
                thing,
                expected="external data in the model's own folder",
                found=f"{location!r}, a symbolic link to {resolved}",
                way_out="copy the data next to the model",
            )
        if not resolved.is_file():
            raise ModelFileError(
                thing,
                expected=f"external data in {path}",
                found="a directory" if resolved.is_dir() else "no such file",
                way_out="put the data file next to the model",
            )
        return read_file(resolved)
    except (OSError, RuntimeError) as error:  # RuntimeError: links that go in circles, before Python 3.13
        raise ModelFileError(
            thing,
            expected=f"readable external data in {folder / _short(location)}",
            found=error.strerror if isinstance(error, OSError) and error.strerror else str(error),
            way_out="check the file",
        ) from error


def _short(text: str) -> str:
    """Text from a file, for a sentence: whoever wrote the file decides its length."""
    return text if len(text) <= _LONGEST_QUOTED else f"{text[:_LONGEST_QUOTED]}..."


def byte_count(thing: str, tensor: onnx.TensorProto) -> int:
    """Number of bytes that a tensor's shape and data type need.

    Raises:
        ModelFileError: the data type cannot be stored as bytes, or a dimension is negative.
    """
    try:
        width = onnx_ir.DataType(tensor.data_type).bitwidth
    except (TypeError, ValueError):
        width = 0
    if width == 0 or any(length < 0 for length in tensor.dims):
        raise ModelFileError(
            thing,
            expected=f"{tensor.name!r} to be numbers of a known type and shape",
            found=f"data type {tensor.data_type} and shape {list(tensor.dims)}",
            way_out="export the model again",
        )
    return (prod(int(length) for length in tensor.dims) * int(width) + 7) // 8


def refuse_short(thing: str, tensor: onnx.TensorProto) -> None:
    """Refuse a tensor of less than a byte per element that holds fewer than its shape says.

    Those of whole bytes are refused when they are read; these would be filled up, to whatever length they claim.

    Raises:
        ModelFileError: there are fewer.
    """
    if not _is_packed(tensor.data_type) or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return
    stored = len(tensor.raw_data) if tensor.HasField("raw_data") else len(tensor.int32_data)
    if stored < byte_count(thing, tensor):
        raise ModelFileError(
            thing,
            expected=f"{byte_count(thing, tensor)} bytes of data in {tensor.name!r} of shape {list(tensor.dims)}",
            found=f"{stored} bytes",
            way_out="copy or export the model again",
        )


def _is_packed(data_type: int) -> bool:
    try:
        return int(onnx_ir.DataType(data_type).bitwidth) < 8
    except (TypeError, ValueError):
        return False


def mapped_tensor(tensor: onnx.TensorProto, data: Buffer) -> onnx_ir.TensorProtocol:
    """Return a tensor over ``data``, without a copy; shape and data type come from ``tensor``.

    Types of less than a byte stay packed. The array is read-only, and aligned only as ``data`` is.
    """
    dtype = onnx_ir.DataType(tensor.data_type)
    shape = onnx_ir.Shape(list(tensor.dims))
    if dtype.bitwidth < 8:
        return onnx_ir.PackedTensor(np.frombuffer(data, dtype=np.uint8), dtype, shape=shape, name=tensor.name)
    element = np.dtype(dtype.numpy()).newbyteorder("<")
    array = np.frombuffer(data, dtype=element) if len(data) else np.empty(0, dtype=element)
    return onnx_ir.Tensor(array.reshape(tuple(tensor.dims)), dtype=dtype, shape=shape, name=tensor.name)


class ListedTensor(onnx_ir.serde.TensorProtoTensor):
    """Whole numbers that a file lists one by one: small ones take a byte each, and eight as raw data.

    They are written as they were read.
    """

    def __init__(self, proto: onnx.TensorProto) -> None:
        own = onnx.TensorProto()
        own.CopyFrom(proto)
        super().__init__(own)
        self._array = super().numpy()

    def numpy(self) -> np.ndarray:
        """Return the numbers, without reading the message again."""
        return self._array


def is_listed(tensor: onnx.TensorProto) -> bool:
    """Whether whole numbers of more than a byte are stored one by one."""
    return tensor.data_type in _LISTED and not tensor.HasField("raw_data")


def external_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All tensors of the model, at any depth, whose data lie outside of the message."""
    for tensor in all_tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            yield tensor


def all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All dense tensors of the model: initializers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _node_tensors(node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _node_tensors(node)


def _node_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from _graph_tensors(attribute.g)
        for graph in attribute.graphs:
            yield from _graph_tensors(graph)
