"""The solver's ``Trainer`` over the training engine."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxadmm.errors import DataError
from onnxadmm.graph.model import Model
from onnxadmm.train.artifacts import Artifacts, InputSpec, prepare
from onnxadmm.train.batches import Batch
from onnxadmm.train.engine import AnyArray, BoundSession, gradient_name
from onnxadmm.train.losses import LOSS, Loss
from onnxadmm.train.optimizer import AdamW

FloatArray = NDArray[np.float32]

#: Weights start at multiples of this many float32 (64 bytes), which vector kernels like.
_ALIGNMENT = 16


class OrtTrainer:
    """A network in training whose weights and gradients are numpy arrays the engine works on in place.

    Implements ``onnxadmm.admm.problem.Trainer[Batch]``. All weights lie in one buffer, all gradients in another;
    ``weights`` and ``gradients`` are views into them, keyed by the user's own initializer names. Whatever is
    written to a weight counts from the next ``backward`` on, whatever is written to a gradient in the next
    ``update``.

    Args:
        model: left as it is; read the result back with ``trained``.
        loss: what is minimised.
        batch_size: samples in every batch that ``backward`` is given.
        threads: intra-op threads of the engine; 0 leaves the choice to it.
        weight_decay: decoupled, per unit of learning rate.
        trainable: names of the initializers to train; all weights of layers when omitted.
        output: output the loss uses, needed when several lead to different logits.
        input_shapes: shape of one sample per input, without the batch, where the model leaves it open.

    Raises:
        NotTrainableError, OptionError, TrainingUnavailableError: as ``prepare`` does.
    """

    def __init__(
        self,
        model: onnx.ModelProto | Model,
        *,
        loss: Loss,
        batch_size: int,
        threads: int = 1,
        weight_decay: float = 0.0,
        trainable: Sequence[str] | None = None,
        output: str | None = None,
        input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.artifacts: Artifacts = prepare(
            model,
            loss=loss,
            batch_size=batch_size,
            trainable=trainable,
            output=output,
            input_shapes=input_shapes,
        )
        self._weights_flat, weights = _buffer(self.artifacts.weights)
        self._gradients_flat, gradients = _buffer(self.artifacts.weights)
        self._gradients_flat.fill(0.0)
        self._weights = MappingProxyType(weights)
        self._gradients = MappingProxyType(gradients)
        self._optimizer = AdamW(self._weights_flat.size, weight_decay=weight_decay)
        self._loss = np.zeros((), np.float32)
        self._logits = np.zeros(self.artifacts.logits_shape, np.float32)
        self._session = BoundSession(self.artifacts.gradient, threads=threads)
        for name in weights:
            self._session.bind_input(name, weights[name])
            self._session.bind_output(gradient_name(name), gradients[name])
        self._session.bind_output(LOSS, self._loss)
        self._session.bind_output(self.artifacts.logits, self._logits)

    @property
    def weights(self) -> Mapping[str, FloatArray]:
        return self._weights

    @property
    def gradients(self) -> Mapping[str, FloatArray]:
        return self._gradients

    @property
    def logits(self) -> FloatArray:
        """Logits of the last ``backward``, ``[N, ...]``: a view the next one overwrites."""
        return self._logits

    @property
    def batch_size(self) -> int:
        return self.artifacts.batch_size

    def backward(self, batch: Batch) -> float:
        """Run forward and backward at the current weights, overwrite ``gradients``, return the mean loss.

        Raises:
            DataError: an array of the batch is missing or has another shape or dtype than the training graph.
        """
        for spec in self.artifacts.inputs:
            self._bind(spec, batch.inputs.get(spec.name))
        if self.artifacts.labels is not None:
            self._bind(self.artifacts.labels, batch.labels)
        if self.artifacts.teacher is not None:
            self._bind(self.artifacts.teacher, batch.teacher)
        self._session.run()
        return float(self._loss)

    def update(self, learning_rate: float) -> None:
        """Take one AdamW step on ``weights`` from what ``gradients`` holds now."""
        self._optimizer.step(self._weights_flat, self._gradients_flat, learning_rate)

    def reset_optimizer(self) -> None:
        """Forget the optimizer's moments and step count; weights stay."""
        self._optimizer.reset()

    def snapshot(self) -> dict[str, FloatArray]:
        """Copies of all weights."""
        return {name: array.copy() for name, array in self._weights.items()}

    def restore(self, weights: Mapping[str, FloatArray]) -> None:
        """Write ``weights`` (some or all, of the right shapes) into the live ones."""
        for name, array in weights.items():
            self._weights[name][...] = array

    def close(self) -> None:
        """Free the engine; ``weights`` and ``gradients`` stay readable."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _bind(self, spec: InputSpec, array: AnyArray | None) -> None:
        if array is None or array.shape != spec.shape or array.dtype != spec.dtype:
            found = "nothing" if array is None else f"{array.dtype} of shape {list(array.shape)}"
            raise DataError(
                f"batch, {spec.name}",
                expected=f"{spec.dtype} of shape {list(spec.shape)}",
                found=found,
                way_out="give whole batches of the trainer's batch size",
            )
        self._session.bind_input(spec.name, np.ascontiguousarray(array))


def _buffer(arrays: Mapping[str, FloatArray]) -> tuple[FloatArray, dict[str, FloatArray]]:
    """One flat float32 buffer with a copy of each array in it, and the views, by name."""
    starts: dict[str, int] = {}
    size = 0
    for name, array in arrays.items():
        starts[name] = size
        size += -(-array.size // _ALIGNMENT) * _ALIGNMENT
    whole = np.zeros(size + _ALIGNMENT, np.float32)
    shift = -(whole.ctypes.data // 4) % _ALIGNMENT
    flat = whole[shift : shift + size]
    views: dict[str, FloatArray] = {}
    for name, array in arrays.items():
        view = flat[starts[name] : starts[name] + array.size].reshape(array.shape)
        view[...] = array
        views[name] = view
    return flat, views
