"""Forward and backward of one batch, in one piece or in parts: one after the other, and in several processes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxadmm.errors import NotTrainableError, OptionError
from onnxadmm.train.artifacts import Artifacts, InputSpec
from onnxadmm.train.backward.footprint import peak_bytes
from onnxadmm.train.engine import Precision
from onnxadmm.train.workers.memory import Section, SharedBlock, flat_size, flat_views, lay_out, private_memory
from onnxadmm.train.workers.parts import Frame, Share, add_up, cut
from onnxadmm.train.workers.pool import WorkerPool

AnyArray = NDArray[Any]
FloatArray = NDArray[np.float32]


class SharedStep:
    """The loss and gradient of a batch at the weights of the moment, in memory that stays where it is.

    Args:
        frame: who computes what.
        models: gradient graph of each size of part.
        weights: initial values.
        threads: intra-op threads of each process.

    Attributes:
        weights, gradients: views into ``weights_flat`` and ``gradients_flat``, by name.
        logits: of the last batch.
        expected_bytes: estimate of the most memory that all processes together take for steps.

    Raises:
        WorkerError: a worker does not start.
    """

    def __init__(
        self,
        frame: Frame,
        models: Mapping[int, onnx.ModelProto],
        weights: Mapping[str, FloatArray],
        *,
        threads: int,
    ) -> None:
        self.workers = len(frame.cut)
        self.expected_bytes = _expected_bytes(frame, models)
        size = sum(section.bytes for section in frame.sections)
        block = SharedBlock(size) if frame.shared else None
        memory = lay_out(frame.sections, private_memory(size) if block is None else block.memory)
        self.weights_flat: FloatArray = memory["weights"]
        self.gradients_flat: FloatArray = memory["gradients/0"]
        self.weights = flat_views(frame.weights, self.weights_flat)
        self.gradients = flat_views(frame.weights, self.gradients_flat)
        self.logits: FloatArray = memory["logits"]
        for name, array in weights.items():
            self.weights[name][...] = array
        self._losses: FloatArray = memory["losses"]
        self._parts = [part for parts in frame.cut for part in parts]
        self._batch_size = frame.batch_size
        self._others: list[FloatArray] = [memory[f"gradients/{number}"] for number in range(1, self.workers)]
        self._handed_over = {item.name: memory[f"input/{item.name}"] for item in frame.inputs} if block else {}
        self._pool: WorkerPool | None = None
        if block is not None:
            self._pool = WorkerPool(frame, models=models, memory=block, threads=threads)
        try:
            # While the others start.
            self._share = Share(frame, 0, models=models, memory=memory, threads=threads)
            if self._pool is not None:
                self._pool.wait_until_ready()
        except BaseException:
            self.close()
            raise

    def run(self, batch: Mapping[str, AnyArray]) -> float:
        """Overwrite ``gradients`` and ``logits``, and return the mean loss.

        Args:
            batch: what the graph reads besides weights, C-contiguous, of a whole batch.

        Raises:
            WorkerError: a worker died, failed or hangs; weights are those from before.
        """
        if self._pool is None:
            self._share.run(batch)
        else:
            for name, array in self._handed_over.items():
                array[self._share.stop :] = batch[name][self._share.stop :]
            self._pool.step(lambda: self._share.run(batch))
            add_up(self.gradients_flat, self._others)
        return sum(float(self._losses[part.number]) * (part.size / self._batch_size) for part in self._parts)

    def close(self) -> None:
        """Free the sessions and end the workers; the arrays stay readable."""
        if self._pool is not None:
            self._pool.close()
        if hasattr(self, "_share"):
            self._share.close()


def _expected_bytes(frame: Frame, models: Mapping[int, onnx.ModelProto]) -> int:
    """Memory of steps in all processes together: weights once, everything else in each."""
    peaks = {size: peak_bytes(model.graph) for size, model in models.items()}
    weights = 4 * flat_size(frame.weights)
    return weights + sum(max(peaks[part.size] for part in parts) - weights for parts in frame.cut)


def cut_step(
    whole: Artifacts,
    prepared: Callable[[int], Artifacts],
    *,
    workers: int,
    accumulate: int,
    precision: Precision = "float32",
) -> tuple[Frame, dict[int, onnx.ModelProto]]:
    """Cut a step into parts: who computes what, and the gradient graph of each size of part.

    Args:
        whole: of the whole batch.
        prepared: makes the same for parts of some size.
        workers: processes, this one included.
        accumulate: parts each of them computes one after the other.
        precision: of products of matrices.

    Raises:
        OptionError: more parts than samples, or a model whose batch cannot be cut into them.
    """
    frame = Frame(
        cut=cut(whole.batch_size, workers=workers, accumulate=accumulate),
        weights={name: array.shape for name, array in whole.weights.items()},
        inputs=tuple(Section(spec.name, spec.shape, spec.dtype.str) for spec in _specs(whole)),
        logits=Section(whole.logits, whole.logits_shape, "<f4"),
        precision=precision,
    )
    sizes = {part.size for parts in frame.cut for part in parts}
    return frame, {size: _part(whole, size, prepared) for size in sizes}


def _part(whole: Artifacts, size: int, prepared: Callable[[int], Artifacts]) -> onnx.ModelProto:
    """The gradient graph of a part."""
    if size == whole.batch_size:
        return whole.gradient
    try:
        made = prepared(size)
    except NotTrainableError as error:
        raise _uncuttable(size, f"an error ({error.thing}: {error.found})") from error
    for spec, part in zip(_specs(whole), _specs(made), strict=True):
        if part.name != spec.name or part.shape != (size, *spec.shape[1:]):
            raise _uncuttable(size, f"{part.name} of shape {list(part.shape)}, of a whole batch {list(spec.shape)}")
    if made.logits != whole.logits or made.weights.keys() != whole.weights.keys():
        raise _uncuttable(size, "a graph that trains other weights")
    return made.gradient


def _specs(artifacts: Artifacts) -> list[InputSpec]:
    optional = (artifacts.labels, artifacts.teacher, artifacts.sample_weights)
    return [*artifacts.inputs, *(spec for spec in optional if spec is not None)]


def _uncuttable(size: int, found: str) -> OptionError:
    return OptionError(
        "--workers, --accumulate",
        expected=f"a model that trains on {size} samples of a batch alone, on axis 0 of every input",
        found=found,
        way_out="use --workers 1 and --accumulate 1, or export the model with a symbolic batch dimension",
    )
