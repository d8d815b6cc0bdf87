"""The solver's ``Trainer`` over the training engine."""

import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxadmm.admm.state import State
from onnxadmm.errors import DataError, OptionError
from onnxadmm.graph.model import Model
from onnxadmm.train.artifacts import Artifacts, InputSpec, prepare
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.engine import AnyArray, EngineChoice, Precision, check_precision
from onnxadmm.train.losses import Loss
from onnxadmm.train.optimizer import AdamW
from onnxadmm.train.workers.count import worthwhile_workers
from onnxadmm.train.workers.step import SharedStep, cut_step

FloatArray = NDArray[np.float32]


class OrtTrainer:
    """A network in training whose weights and gradients are numpy arrays the engine works on in place.

    Implements ``onnxadmm.admm.problem.Trainer[Batch]``. All weights lie in one buffer, all gradients in another;
    ``weights`` and ``gradients`` are views into them, keyed by the user's own initializer names. Whatever is
    written to a weight counts from the next ``backward`` on, whatever is written to a gradient in the next
    ``update``.

    Args:
        model: left as it is; ``with_constants(model, trainer.weights)`` is it as trained so far.
        loss: what is minimised.
        batch_size: samples in every batch that ``backward`` is given.
        threads: intra-op threads of the engine; 0 leaves the choice to it.
        workers: processes that share each batch, this one included; None: as many as pay.
        accumulate: parts each process computes one after the other, for the sake of memory.
        steps: how long the training will be, which decides what pays.
        weight_decay: decoupled, per unit of learning rate.
        trainable: names of the initializers to train; all weights of layers when omitted.
        output: output the loss uses, needed when several lead to different logits.
        input_shapes: shape of one sample per input, without the batch, where the model leaves it open.
        freeze_untrainable, batch_statistics, engine: as for ``prepare``.
        precision: of products of matrices; all else is float32.

    Raises:
        NotTrainableError, OptionError, TrainingUnavailableError: as ``prepare`` does.
        OptionError: more parts than samples, a model whose batch cannot be cut into them, or a precision that is not to
            be had here.
        WorkerError: a worker does not start.

    Attributes:
        spent: seconds that all calls of ``backward`` have taken so far.
    """

    def __init__(
        self,
        model: onnx.ModelProto | Model,
        *,
        loss: Loss,
        batch_size: int,
        threads: int = 1,
        workers: int | None = 1,
        accumulate: int = 1,
        steps: int = 0,
        weight_decay: float = 0.0,
        trainable: Sequence[str] | None = None,
        output: str | None = None,
        input_shapes: Mapping[str, tuple[int, ...]] | None = None,
        freeze_untrainable: bool = False,
        batch_statistics: Collection[str] = (),
        engine: EngineChoice = "auto",
        precision: Precision = "float32",
    ) -> None:
        def prepared(size: int) -> Artifacts:
            return prepare(
                model,
                loss=loss,
                batch_size=size,
                trainable=trainable,
                output=output,
                input_shapes=input_shapes,
                freeze_untrainable=freeze_untrainable,
                batch_statistics=batch_statistics,
                engine=engine,
                threads=threads,
            )

        check_precision(precision)
        self.artifacts: Artifacts = prepared(batch_size)
        count = workers or worthwhile_workers(self.artifacts, steps=steps, threads=threads, accumulate=accumulate)
        try:
            frame, models = cut_step(
                self.artifacts, prepared, workers=count, accumulate=accumulate, precision=precision
            )
        except OptionError:
            if workers is not None or count == 1:
                raise
            frame, models = cut_step(self.artifacts, prepared, workers=1, accumulate=accumulate, precision=precision)
        self._step = SharedStep(frame, models, self.artifacts.weights, threads=threads)
        self._weights = MappingProxyType(self._step.weights)
        self._gradients = MappingProxyType(self._step.gradients)
        self._optimizer = AdamW(self._step.weights_flat.size, weight_decay=weight_decay)
        self.spent = 0.0

    @property
    def weights(self) -> Mapping[str, FloatArray]:
        return self._weights

    @property
    def gradients(self) -> Mapping[str, FloatArray]:
        return self._gradients

    @property
    def logits(self) -> FloatArray:
        """Logits of the last ``backward``, ``[N, ...]``: a view the next one overwrites."""
        return self._step.logits

    @property
    def workers(self) -> int:
        """Processes that share each batch, this one included."""
        return self._step.workers

    @property
    def expected_bytes(self) -> int:
        """Estimate, from the training graph, of what steps and the optimizer take in all processes together."""
        return self._step.expected_bytes + 2 * self._step.weights_flat.nbytes

    @property
    def batch_size(self) -> int:
        return self.artifacts.batch_size

    def backward(self, batch: Batch) -> float:
        """Run forward and backward at the current weights, overwrite ``gradients``, return the mean loss.

        Raises:
            DataError: an array of the batch is missing or has another shape or dtype than the training graph.
            WorkerError: a worker died, failed or hangs; weights are those from before.
        """
        given = {spec.name: _fitting(spec, batch.inputs.get(spec.name)) for spec in self.artifacts.inputs}
        for spec, array in ((self.artifacts.labels, batch.labels), (self.artifacts.teacher, batch.teacher)):
            if spec is not None:
                given[spec.name] = _fitting(spec, array)
        if (spec := self.artifacts.sample_weights) is not None:
            given[spec.name] = _fitting(spec, None if batch.weights is None else _spread(batch.weights, spec.shape))
        begin = time.perf_counter()
        loss = self._step.run(given)
        self.spent += time.perf_counter() - begin
        return loss

    def update(self, learning_rate: float) -> None:
        """Take one AdamW step on ``weights`` from what ``gradients`` holds now."""
        self._optimizer.step(self._step.weights_flat, self._step.gradients_flat, learning_rate)

    def state(self) -> State:
        """What the next steps depend on besides the weights: the optimizer's moments and step count; live."""
        return self._optimizer.state()

    def load(self, state: State) -> None:
        """Go on from what ``state`` gave.

        Raises:
            CheckpointError: it is that of another network.
        """
        self._optimizer.load(state)

    def snapshot(self) -> dict[str, FloatArray]:
        """Copies of all weights."""
        return {name: array.copy() for name, array in self._weights.items()}

    def restore(self, weights: Mapping[str, FloatArray]) -> None:
        """Write ``weights`` (some or all, of the right shapes) into the live ones."""
        for name, array in weights.items():
            self._weights[name][...] = array

    def close(self) -> None:
        """Free the engine and end the workers; ``weights`` and ``gradients`` stay readable."""
        self._step.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _spread(weights: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Weights of samples ``[N]`` as those of all their positions; others as they are."""
    if weights.ndim != 1 or len(weights) != shape[0]:
        return weights
    return np.broadcast_to(weights.reshape(-1, *[1] * (len(shape) - 1)), shape)


def _fitting(spec: InputSpec, array: AnyArray | None) -> AnyArray:
    """The array, C-contiguous, if it is what the graph expects."""
    if array is None or array.shape != spec.shape or array.dtype != spec.dtype:
        found = "nothing" if array is None else f"{array.dtype} of shape {list(array.shape)}"
        raise DataError(
            f"batch, {spec.name}",
            expected=f"{spec.dtype} of shape {list(spec.shape)}",
            found=found,
            way_out="give whole batches of the trainer's batch size",
        )
    return np.ascontiguousarray(array)
