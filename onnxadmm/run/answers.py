"""What a network answers to labelled samples: which class for which, how surely, and in how many it is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.train.data.batches import ArrayDataset
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.losses import IGNORED
from onnxadmm.train.metrics import log_softmax

Array = NDArray[Any]
IntegerArray = NDArray[np.int64]
DoubleArray = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """Answers to samples that have labels; one for each position that has one.

    Attributes:
        truth, given: distinct pairs of a label and the class that was answered, int64 ``[pairs]``.
        counts: how often each of them came, int64 ``[pairs]``.
        shares: share of right answers in each sample, float64 ``[N]``; NaN where it has no label.
        sureness: mean probability of the class that was answered.
        loss: mean cross-entropy.
    """

    truth: IntegerArray
    given: IntegerArray
    counts: IntegerArray
    shares: DoubleArray
    sureness: float
    loss: float

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def present(self) -> IntegerArray:
        """The classes that some label names, in order."""
        return np.unique(self.truth)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.counts[self.truth == self.given].sum() / max(1, self.total))

    @property
    def balanced(self) -> float:
        """The mean over classes of the share of right answers: answering always the commonest class is a guess too."""
        return float(np.mean([self._share_of(each, each) for each in self.present]))

    def usual(self, label: int) -> tuple[int, float]:
        """Return what is answered most often to a label, and in which share of its answers."""
        of_it = self.truth == label
        given, counts = self.given[of_it], self.counts[of_it]
        return int(given[counts.argmax()]), float(counts.max() / counts.sum())

    def _share_of(self, label: int, answer: int) -> float:
        of_it = self.truth == label
        return float(self.counts[of_it & (self.given == answer)].sum() / self.counts[of_it].sum())


def answers_of(predictor: Predictor, data: ArrayDataset, *, batch_size: int) -> Answers:
    """Ask a network for the classes of samples with class labels.

    Args:
        predictor: its logits are ``[N, C, ...]``.
        data: at least one sample.
        batch_size: samples that are asked for together.

    Raises:
        NotTrainableError: as ``Predictor.logits`` does.
    """
    return joined([_of_batch(predictor.logits(dict(batch.inputs)), batch.labels) for batch in data.batches(batch_size)])


def joined(parts: Sequence[Answers]) -> Answers:
    """Return the answers to all samples of some parts, in their order."""
    pairs = np.concatenate([np.stack([part.truth, part.given]) for part in parts], axis=1)
    distinct, place = np.unique(pairs, axis=1, return_inverse=True)
    counts = np.zeros(distinct.shape[1], np.int64)
    np.add.at(counts, place.reshape(-1), np.concatenate([part.counts for part in parts]))
    weights = np.array([part.total for part in parts], np.float64)
    total = max(1.0, float(weights.sum()))
    return Answers(
        truth=distinct[0],
        given=distinct[1],
        counts=counts,
        shares=np.concatenate([part.shares for part in parts]),
        sureness=float(weights @ [part.sureness for part in parts]) / total,
        loss=float(weights @ [part.loss for part in parts]) / total,
    )


def _of_batch(logits: Array, labels: Array | None) -> Answers:
    truth = np.asarray(labels, np.int64)
    known = truth != IGNORED
    logarithms = log_softmax(logits.astype(np.float64))
    given = logits.argmax(axis=1)
    right = (given == truth) & known
    # [N, ...] -> [N, positions]
    answers = known.reshape(len(truth), -1).sum(axis=1)
    shares = np.full(len(truth), np.nan)
    np.divide(right.reshape(len(truth), -1).sum(axis=1), answers, out=shares, where=answers > 0)
    distinct, counts = np.unique(np.stack([truth[known], given[known]]), axis=1, return_counts=True)
    picked = np.take_along_axis(logarithms, np.where(known, truth, 0)[:, None], axis=1)[:, 0][known]
    return Answers(
        truth=distinct[0],
        given=distinct[1],
        counts=counts.astype(np.int64),
        shares=shares,
        sureness=float(np.exp(logarithms.max(axis=1)[known]).mean()) if known.any() else 0.0,
        loss=float(-picked.mean()) if known.any() else 0.0,
    )
