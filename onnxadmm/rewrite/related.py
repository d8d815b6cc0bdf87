"""Whether one model can be what was left of another at all, before anything is run."""

from collections.abc import Sequence

import onnx_ir

from onnxadmm.errors import ModelFileError
from onnxadmm.graph.model import Model
from onnxadmm.rewrite.record import read_records


def refuse_unrelated(original: Model, shrunk: Model) -> None:
    """Refuse a model that was not made from the original: removing units changes neither inputs nor outputs.

    Lengths and types that only one of the two states are not held against it.

    Raises:
        ModelFileError: names, types or shapes of the inputs or outputs differ, or it says that it was made from
            another model.
    """
    for kind, wanted, found in (
        ("inputs", _inputs(original), _inputs(shrunk)),
        ("outputs", original.ir.graph.outputs, shrunk.ir.graph.outputs),
    ):
        if [value.name for value in wanted] != [value.name for value in found] or not all(map(_alike, wanted, found)):
            raise _unrelated(shrunk, expected=f"the {kind} of the original, {_told(wanted)}", found=_told(found))
    records = read_records(shrunk)
    if records and records != read_records(original) and records[-1].get("sha256", original.sha256) != original.sha256:
        raise _unrelated(
            shrunk,
            expected=f"a model made from the original, with sha256 {original.sha256[:12]}",
            found=f"one made from {str(records[-1]['sha256'])[:12]}",
        )


def _inputs(model: Model) -> list[onnx_ir.Value]:
    """The inputs that are no weights: old models list these too, and weights do shrink."""
    return [value for value in model.ir.graph.inputs if not value.is_initializer()]


def _alike(one: onnx_ir.Value, other: onnx_ir.Value) -> bool:
    if one.type is not None and other.type is not None and one.type != other.type:
        return False
    if one.shape is None or other.shape is None:
        return True
    return len(one.shape) == len(other.shape) and all(
        left == right
        for left, right in zip(one.shape, other.shape, strict=True)
        if isinstance(left, int) and isinstance(right, int)
    )


def _told(values: Sequence[onnx_ir.Value]) -> str:
    """Name, type and shape of each, such as ``x float[N, 3, 32, 32]``."""
    return ", ".join(_describe(value) for value in values) or "none"


def _describe(value: onnx_ir.Value) -> str:
    kind = value.dtype.name.lower() if value.dtype is not None else "of unknown type"
    if value.shape is None:
        return f"{value.name} {kind}"
    lengths = ", ".join(str(dim if isinstance(dim, int) else dim.value or "?") for dim in value.shape)
    return f"{value.name} {kind}[{lengths}]"


def _unrelated(shrunk: Model, *, expected: str, found: str) -> ModelFileError:
    return ModelFileError(
        "the shrunk model" if shrunk.path is None else str(shrunk.path),
        expected=expected,
        found=found,
        way_out="give what `onnxadmm shrink` made of this model and plan",
    )
