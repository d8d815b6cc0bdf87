"""What data must fit: a model's inputs and the shape of its logits."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxadmm.graph.model import Model
from onnxadmm.train.prepare.nodes import as_proto
from onnxadmm.train.prepare.tail import cut_tail

#: Numbers of channels that pictures have.
CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class ModelInput:
    """An input of the model: shape with the batch on axis 0, None for open dimensions."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    @property
    def channels_last(self) -> bool:
        """Whether an image input is ``[N, H, W, C]``."""
        return len(self.shape) == 4 and self.shape[1] not in CHANNELS and self.shape[3] in CHANNELS

    @property
    def channel_axis(self) -> int | None:
        """Axis of the channels of an image, or of the features of a table."""
        if len(self.shape) < 2:
            return None
        return len(self.shape) - 1 if self.channels_last else 1

    @property
    def is_image(self) -> bool:
        return len(self.shape) == 4


@dataclass(frozen=True)
class Signature:
    """What data must fit: the inputs, and the shape of the logits (None for open dimensions, or as a whole)."""

    inputs: tuple[ModelInput, ...]
    logits: tuple[int | None, ...] | None


def signature_of(model: onnx.ModelProto | Model, *, output: str | None = None) -> Signature:
    """Read a model's inputs and the shape of its logits.

    Args:
        output: output the loss uses, needed when several lead to different logits.

    Raises:
        NotTrainableError, OptionError: as ``cut_tail`` does.
    """
    proto = as_proto(model)
    copy, tail = cut_tail(proto, output=output)
    inferred = onnx.shape_inference.infer_shapes(copy)
    weights = {tensor.name for tensor in copy.graph.initializer}
    inputs = [value for value in copy.graph.input if value.name not in weights]
    known = {value.name: value for value in (*inferred.graph.value_info, *inferred.graph.output)}
    return Signature(
        tuple(
            ModelInput(
                value.name,
                _dimensions(value) or (),
                np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
            )
            for value in inputs
        ),
        _dimensions(known[tail.logits]) if tail.logits in known else None,
    )


def _dimensions(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)
