"""What data must fit: a model's inputs and the shape of its logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from onnxadmm.graph.fed import FedInput
from onnxadmm.graph.model import Model, from_proto
from onnxadmm.graph.shapes import infer
from onnxadmm.train.prepare.batch import batch_length, batched_inputs, fed_values
from onnxadmm.train.prepare.nodes import as_proto
from onnxadmm.train.prepare.tail import Tail, cut_tail, logits_of

#: Numbers of channels that pictures have.
CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class ModelInput(FedInput):
    """An input of the model, as data see it."""

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
        return len(self.shape) == 4 and self.batched


@dataclass(frozen=True)
class Signature:
    """What data must fit.

    Attributes:
        inputs: of the model.
        logits: shape of the logits as the model lays them out, None for open dimensions, or as a whole.
        batch_axis: axis of the logits that counts samples.
        class_axis: axis of the logits that a Softmax or ArgMax behind them runs along; None where none says so.
    """

    inputs: tuple[ModelInput, ...]
    logits: tuple[int | None, ...] | None
    batch_axis: int = 0
    class_axis: int | None = None


def signature_of(model: onnx.ModelProto | Model, *, output: str | None = None, keep_sigmoid: bool = False) -> Signature:
    """Read a model's inputs and the shape of its logits.

    Args:
        output: output the loss uses, needed when several lead to different logits.
        keep_sigmoid: as for ``cut_tail``.

    Raises:
        NotTrainableError, OptionError: as ``cut_tail`` does.
    """
    proto = as_proto(model)
    _, tail = cut_tail(proto, output=output, keep_sigmoid=keep_sigmoid)
    # In the graph as it is: the copy may hold nodes of our own, in place of ones of the same shape.
    (start,) = logits_of(proto, output=output, keep_sigmoid=keep_sigmoid)
    logits, batch_axis = layouts_of(proto, [start])[start]
    return Signature(inputs_of(proto), logits, batch_axis, class_axis=_class_axis(tail, logits))


def inputs_of(model: onnx.ModelProto) -> tuple[ModelInput, ...]:
    """The inputs that must be fed."""
    batched = batched_inputs(model.graph)
    return tuple(
        ModelInput(
            value.name,
            _dimensions(value) or (),
            np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
            batched=value.name in batched,
        )
        for value in fed_values(model.graph)
    )


Layout = tuple[tuple[int | None, ...] | None, int]


def layouts_of(model: onnx.ModelProto, names: Sequence[str]) -> Mapping[str, Layout]:
    """Shape of some tensors, None for open dimensions or as a whole, and their axis that counts samples.

    The axis is the one whose length follows the batch of the inputs; 0 where none or more than one does, -1 where a
    tensor has no such axis.
    """
    shapes = infer(from_proto(model))
    stated = batch_length(model.graph)
    found: dict[str, Layout] = {}
    for name in names:
        lengths, dynamic = shapes.shape(name), shapes.dynamic(name)
        if lengths is None or dynamic is None:
            found[name] = (None, 0)
            continue
        batch = stated or shapes.batch
        axes = [
            axis
            for axis, (length, moves) in enumerate(zip(lengths, dynamic, strict=True))
            if length == batch and (moves or stated is not None)
        ]
        # What was merged into the batch, as samples and times in [N T, C], still begins with it.
        merged = bool(lengths) and (dynamic[0] or stated is not None)
        axis = axes[0] if axes else (0 if merged else -1)
        shape = tuple(None if moves else length for length, moves in zip(lengths, dynamic, strict=True))
        found[name] = (shape, axis)
    return found


def _class_axis(tail: Tail, shape: tuple[int | None, ...] | None) -> int | None:
    """The axis of the tail's Softmax, counted from the front; None where it is not one axis."""
    axis = tail.class_axis
    if axis is None or shape is None or not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    if tail.flattened and any(length != 1 for length in shape[axis + 1 :]):
        return None
    return axis


def _dimensions(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)
