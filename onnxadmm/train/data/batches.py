"""What a training step is given, and the datasets that give it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError, OptionError
from onnxadmm.train.data.images import Augmentation, Transform
from onnxadmm.train.losses import IGNORED

Array = NDArray[Any]
IndexArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]

#: What is held out of the training data unless asked otherwise.
HELD_OUT_SHARE = 0.1
HELD_OUT_AT_MOST = 5000
#: Samples whose weights are looked at together.
_ROWS = 4096


@dataclass(frozen=True)
class Weighing:
    """What samples count: the product of what each of both says.

    Attributes:
        classes: by number of the class, float32 ``[C]``; None: all alike.
        samples: by number of the sample in the data, float32 ``[N]``; None: all alike.
    """

    classes: FloatArray | None
    samples: FloatArray | None

    def of(self, chosen: NDArray[np.int64], labels: Array | None) -> FloatArray:
        """Return the weights of some samples: float32 ``[n]``, with class weights of the shape of their labels.

        Args:
            chosen: numbers of the samples.
            labels: theirs. What has no label counts as 1: it is learned from the teacher alone.
        """
        found = np.ones(len(chosen), np.float32) if self.samples is None else self.samples[chosen]
        if self.classes is None or labels is None:
            return found
        known = labels != IGNORED
        by_class = np.where(known, self.classes[np.where(known, labels, 0)], np.float32(1))
        return np.asarray(found.reshape(-1, *[1] * (labels.ndim - 1)) * by_class, np.float32)

    def scaled(self, labels: Array | None) -> "Weighing":
        """Return it with weights whose mean over all samples, or over all labels, is 1."""
        count = len(labels) if labels is not None else len(self.samples) if self.samples is not None else 0
        sums, answers = 0.0, 0
        for start in range(0, count, _ROWS):
            chosen = np.arange(start, min(count, start + _ROWS))
            weights = self.of(chosen, None if labels is None else labels[start : start + _ROWS])
            sums, answers = sums + float(weights.sum(dtype=np.float64)), answers + weights.size
        factor = np.float32(answers / sums)
        if self.samples is not None:
            return Weighing(self.classes, self.samples * factor)
        return Weighing(None if self.classes is None else self.classes * factor, None)


@dataclass(frozen=True)
class Batch:
    """Some samples, ready for the engine.

    Attributes:
        inputs: arrays of the model's own dtypes and layouts by input name, batch on axis 0.
        labels: int64 ``[N, ...]`` for cross-entropy, float32 of the logits' shape otherwise; None without labels.
        teacher: the teacher's logits, float32 of the logits' shape; None without a teacher.
        weights: what samples count, float32 ``[N]``, or what positions do, of the shape of the labels; None: all alike.
        count: samples that are real; those behind them repeat the last one to fill the batch.
        indices: number of each sample in the data it was loaded from, int64 ``[N]``; None when unknown.
        augmented: whether the inputs were drawn at random, so that nothing computed of them may be reused.
        origin: stands for the data that ``indices`` number; None when unknown.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    teacher: NDArray[np.float32] | None
    count: int
    indices: IndexArray | None = None
    augmented: bool = False
    origin: object | None = None
    weights: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class ArrayDataset:
    """Samples in memory, stored as they came (images as uint8) and converted batch by batch.

    Attributes:
        inputs: stored arrays by input name, samples on axis 0, in the model's layout.
        labels: int64 or float32, as the loss wants them; None without labels.
        transforms: conversion of each input to what the model reads.
        augmentation: what ``augment`` does to each image input; empty without augmentation.
        order: positions of this dataset's samples in the stored arrays, int64 ``[N]``.
        held: values of the model's inputs that have no batch, by name; batches leave them out.
        class_axis: axis of the model's logits along which the classes lie; None where that does not matter.
        notes: sentences on what was done to the data that are read.
        weighing: what samples count; None: all alike.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    transforms: Mapping[str, Transform]
    augmentation: Mapping[str, Augmentation]
    order: IndexArray
    held: Mapping[str, Array] = field(default_factory=dict)
    class_axis: int | None = None
    notes: tuple[str, ...] = ()
    weighing: Weighing | None = None

    def __len__(self) -> int:
        return len(self.order)

    @property
    def has_labels(self) -> bool:
        return self.labels is not None

    @property
    def gaps(self) -> bool:
        """Whether some of the class labels are ``IGNORED``."""
        return self.labels is not None and self.labels.dtype.kind == "i" and bool((self.labels == IGNORED).any())

    @property
    def sample_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of one sample per input, without the batch, in the model's layout."""
        return {name: tuple(array.shape[1:]) for name, array in self.inputs.items()}

    def take(self, indices: IndexArray) -> "ArrayDataset":
        """The samples at some positions, as a dataset that shares the memory of this one."""
        return replace(self, order=self.order[indices])

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        augment: bool = False,
        drop_last: bool = False,
        pad_last: bool = False,
    ) -> Iterator[Batch]:
        """Go through the samples once.

        Args:
            batch_size: samples per batch.
            seed: of the order and the augmentation; pass another for each epoch.
            shuffle: draw a random order.
            augment: apply the augmentation the data were loaded with.
            drop_last: leave out a last batch that is not full.
            pad_last: fill a last batch that is not full by repeating its last sample.

        Raises:
            DataError: ``drop_last`` would leave nothing.
        """
        if drop_last and len(self) < batch_size:
            raise DataError(
                "data",
                expected=f"at least one batch of {batch_size} samples",
                found=f"{len(self)} samples",
                way_out=f"use a --batch-size of at most {len(self)}",
            )
        return self._batches(batch_size, seed, shuffle, augment and bool(self.augmentation), drop_last, pad_last)

    def _batches(
        self, batch_size: int, seed: int, shuffle: bool, augment: bool, drop_last: bool, pad_last: bool
    ) -> Iterator[Batch]:
        generator = np.random.default_rng(seed)
        order = generator.permutation(self.order) if shuffle else self.order
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            count = len(chosen)
            if count < batch_size and drop_last:
                return
            if count < batch_size and pad_last:
                chosen = np.concatenate([chosen, np.repeat(chosen[-1:], batch_size - count)])
            yield self._batch(chosen, count, generator if augment else None)

    def _batch(self, chosen: IndexArray, count: int, generator: np.random.Generator | None) -> Batch:
        inputs: dict[str, Array] = {}
        for name, stored in self.inputs.items():
            samples = stored[chosen]
            if generator is not None and name in self.augmentation:
                samples = self.augmentation[name].apply(samples, generator)
            inputs[name] = self.transforms[name].apply(samples)
        labels = None if self.labels is None else self.labels[chosen]
        augmented, weighing = generator is not None, self.weighing
        weights = None if weighing is None else weighing.of(chosen, labels)
        return Batch(inputs, labels, None, count, chosen, augmented, origin=self.inputs, weights=weights)


def hold_out(
    data: ArrayDataset, *, share: float = HELD_OUT_SHARE, at_most: int = HELD_OUT_AT_MOST, seed: int = 0
) -> tuple[ArrayDataset, ArrayDataset]:
    """Divide data at random into what trains and what every decision is made with.

    With class labels each class gives its share, so that rare classes are in both parts.

    Args:
        share: part that is held out, in (0, 1).
        at_most: most samples that are held out.

    Returns:
        The training part, then the held-out part; together they are ``data``, without overlap.

    Raises:
        OptionError: ``share`` is not between 0 and 1.
        DataError: fewer than two samples.
    """
    if not 0.0 < share < 1.0:
        raise OptionError("held_out", expected="above 0 and below 1", found=str(share), way_out="0.1 is usual")
    if len(data) < 2:
        raise DataError(
            "data", expected="at least 2 samples", found=str(len(data)), way_out="give data that can be divided"
        )
    wanted = int(min(max(1, round(len(data) * share)), at_most, len(data) - 1))
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(data))
    labels = data.labels
    if labels is not None and labels.ndim == 1 and labels.dtype.kind == "i":
        shuffled = shuffled[_spread(labels[data.order][shuffled])]
    held = np.zeros(len(data), bool)
    held[shuffled[:wanted]] = True
    return data.take(np.flatnonzero(~held)), data.take(np.flatnonzero(held))


def _spread(labels: Array) -> IndexArray:
    """Order positions so that every prefix holds all classes in proportion.

    The k-th of the n samples of a class stands at (k + 1/2) / n of the way.
    """
    by_class = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(starts, sizes)
    place = np.empty(len(labels))
    place[by_class] = (rank + 0.5) / np.repeat(sizes, sizes)
    return np.argsort(place, kind="stable")


def concatenate(parts: Sequence[Array]) -> Array:
    """Join arrays along the batch axis without a copy when there is only one; single numbers become a row."""
    return parts[0] if len(parts) == 1 else np.concatenate([np.atleast_1d(part) for part in parts])
