"""The door between ONNX files and the graph every room works on."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnx_ir

from onnxadmm.errors import ModelFileError, OutputError


@dataclass(frozen=True)
class Model:
    """A loaded ONNX model.

    Attributes:
        ir: the graph; initializers are always dense.
        path: the file it came from, None when it was given in memory.
        sha256: of the ``.onnx`` file's bytes, or of the serialised message given in memory.
        file_bytes: size of the ``.onnx`` file and of its external data together.
    """

    ir: onnx_ir.Model
    path: Path | None
    sha256: str
    file_bytes: int


def load(source: str | Path | onnx.ModelProto | Model) -> Model:
    """Load a model from a file or from memory; a ``Model`` is handed back as it is."""
    if isinstance(source, Model):
        return source
    if isinstance(source, onnx.ModelProto):
        return from_proto(source)
    path = Path(source)
    if not path.is_file():
        raise ModelFileError(str(path), expected="an ONNX file", found="no such file", way_out="check the path")
    data = path.read_bytes()
    ir = onnx_ir.load(path)
    return Model(ir=ir, path=path, sha256=hashlib.sha256(data).hexdigest(), file_bytes=len(data))


def from_proto(proto: onnx.ModelProto, *, path: Path | None = None) -> Model:
    """Take a model from a protobuf message."""
    data = proto.SerializeToString(deterministic=True)
    ir = onnx_ir.from_proto(onnx.ModelProto.FromString(data))
    return Model(ir=ir, path=path, sha256=hashlib.sha256(data).hexdigest(), file_bytes=len(data))


def to_proto(model: Model) -> onnx.ModelProto:
    """Return the model as one self-contained protobuf message."""
    return onnx_ir.to_proto(model.ir)


def clone(model: Model) -> Model:
    """Copy the structure; weights are shared."""
    return replace(model, ir=model.ir.clone())


def save(model: Model, path: str | Path, *, sparse: bool = False, overwrite: bool = False) -> int:
    """Write the model; returns the bytes written."""
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(str(path), expected="a new file", found="an existing one", way_out="choose another name")
    data = to_proto(model).SerializeToString()
    path.write_bytes(data)
    return len(data)
