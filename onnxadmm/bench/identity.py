"""Which model a figure belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass

from onnxadmm.graph.model import Model


@dataclass(frozen=True)
class ModelIdentity:
    """A model file as reports name it.

    Attributes:
        name: file name without its folder, or the graph's name when the model was given in memory.
        sha256: of the ``.onnx`` file, 64 hexadecimal digits.
        opset: version per operator domain; ``""`` is the default domain.
        ir_version: of the file format.
    """

    name: str
    sha256: str
    opset: Mapping[str, int]
    ir_version: int


def identify(model: Model) -> ModelIdentity:
    """Name a model by its file, content and format versions."""
    name = model.path.name if model.path is not None else model.ir.graph.name
    opset = dict(sorted(model.ir.opset_imports.items()))
    return ModelIdentity(name or "model", model.sha256, opset, model.ir.ir_version)
