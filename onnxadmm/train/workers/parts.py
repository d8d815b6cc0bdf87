"""A batch cut into parts: who computes which samples, and the gradient of the whole from those of the parts.

The loss is a mean over samples, so with n_i of B samples in part i and g_i the gradient of its own mean::

    g = sum_i (n_i / B) g_i
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import OptionError
from onnxadmm.train.backward.gradient import gradient_name
from onnxadmm.train.engine import BoundSession, Precision
from onnxadmm.train.losses import LOSS
from onnxadmm.train.workers.memory import Section, flat_size, flat_views

AnyArray = NDArray[Any]
FloatArray = NDArray[np.float32]

#: Elements per slice: those of all arrays stay in the second-level cache.
_SLICE = 1 << 14


@dataclass(frozen=True)
class Part:
    """Samples ``start .. start + size - 1`` of every batch; ``number`` counts the parts of a batch from 0."""

    start: int
    size: int
    number: int


Cut = tuple[tuple[Part, ...], ...]


def cut(batch_size: int, *, workers: int, accumulate: int) -> Cut:
    """The parts of each process, in the order of the samples; their sizes differ by at most 1.

    Raises:
        OptionError: there are more parts than samples.
    """
    if workers * accumulate > batch_size:
        raise OptionError(
            "--workers, --accumulate",
            expected=f"at most as many parts as the batch has samples ({batch_size})",
            found=f"{workers} workers with {accumulate} parts each",
            way_out="use fewer workers, a smaller --accumulate or a larger --batch-size",
        )
    found: list[tuple[Part, ...]] = []
    start = number = 0
    for share in _divide(batch_size, workers):
        parts = []
        for size in _divide(share, accumulate):
            parts.append(Part(start, size, number))
            start, number = start + size, number + 1
        found.append(tuple(parts))
    return tuple(found)


def _divide(count: int, ways: int) -> list[int]:
    return [count // ways + (place < count % ways) for place in range(ways)]


@dataclass(frozen=True)
class Frame:
    """What the processes that share a batch have in common.

    Attributes:
        cut: the parts of each process.
        weights: shapes by name.
        inputs: arrays of a whole batch, by name of the graph's input.
        logits: as the graph names them, of a whole batch.
        precision: of products of matrices.
    """

    cut: Cut
    weights: Mapping[str, tuple[int, ...]]
    inputs: tuple[Section, ...]
    logits: Section
    precision: Precision = "float32"

    @property
    def batch_size(self) -> int:
        return sum(part.size for parts in self.cut for part in parts)

    @property
    def sections(self) -> tuple[Section, ...]:
        """The memory of one step: a gradient for every process; the batch itself only where it must be handed over."""
        size = flat_size(self.weights)
        return (
            Section("weights", (size,), "<f4"),
            Section("losses", (sum(map(len, self.cut)),), "<f4"),
            Section("logits", self.logits.shape, self.logits.dtype),
            *(Section(f"gradients/{number}", (size,), "<f4") for number in range(len(self.cut))),
            *((Section(f"input/{item.name}", item.shape, item.dtype) for item in self.inputs) if self.shared else ()),
        )

    @property
    def shared(self) -> bool:
        return len(self.cut) > 1


class Share:
    """The parts one process computes, one after the other, and what they add to the gradient of the batch.

    Args:
        frame: of the step.
        number: of the process.
        models: gradient graph of each size of part.
        memory: arrays of ``frame.sections``.
        threads: intra-op threads.
    """

    def __init__(
        self,
        frame: Frame,
        number: int,
        *,
        models: Mapping[int, Any],
        memory: Mapping[str, AnyArray],
        threads: int,
    ) -> None:
        self._parts = frame.cut[number]
        self._whole = frame.batch_size
        self._logits_name = frame.logits.name
        self._logits, self._losses = memory["logits"], memory["losses"]
        self._total: FloatArray = memory[f"gradients/{number}"]
        # Several parts are written where each is added from, a single one where it belongs.
        self._scratch = self._total if len(self._parts) == 1 else np.zeros_like(self._total)
        weights = flat_views(frame.weights, memory["weights"])
        gradients = flat_views(frame.weights, self._scratch)
        self._sessions: dict[int, BoundSession] = {}
        for size in {part.size for part in self._parts}:
            # Processes that share the cores must not burn them while they wait.
            session = BoundSession(models[size], threads=threads, spinning=not frame.shared, precision=frame.precision)
            for name, array in weights.items():
                session.bind_input(name, array)
                session.bind_output(gradient_name(name), gradients[name])
            self._sessions[size] = session

    @property
    def stop(self) -> int:
        """Number of the sample behind the last one of these parts."""
        return self._parts[-1].start + self._parts[-1].size

    def run(self, batch: Mapping[str, AnyArray]) -> None:
        """Write the logits and losses of these parts, and their share of the gradient.

        Args:
            batch: arrays of the whole batch, C-contiguous, by name of the graph's input.
        """
        for part in self._parts:
            session, stop = self._sessions[part.size], part.start + part.size
            for name, array in batch.items():
                # A whole batch is not cut: then inputs without a batch axis, such as a mask, are allowed.
                session.bind_input(name, array if part.size == self._whole else array[part.start : stop])
            session.bind_output(LOSS, self._losses[part.number : part.number + 1].reshape(()))
            session.bind_output(self._logits_name, self._logits[part.start : stop])
            session.run()
            self._add(np.float32(part.size / self._whole), first=part is self._parts[0])

    def close(self) -> None:
        """Free the sessions."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def _add(self, weight: np.float32, *, first: bool) -> None:
        if first and weight != 1:
            np.multiply(self._scratch, weight, out=self._total)
        elif not first:
            for start in range(0, self._total.size, _SLICE):
                part = self._scratch[start : start + _SLICE]
                part *= weight
                self._total[start : start + _SLICE] += part


def add_up(total: FloatArray, others: Sequence[FloatArray]) -> None:
    """Add gradients of other processes to ``total``, in place."""
    for start in range(0, total.size, _SLICE):
        here = slice(start, start + _SLICE)
        for other in others:
            total[here] += other[here]
