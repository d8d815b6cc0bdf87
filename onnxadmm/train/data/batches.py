"""What a training step is given, and the datasets that give it."""

import hashlib
import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import DataError, OptionError
from onnxadmm.train.data.gallery import Column, Contents, Pictures
from onnxadmm.train.data.images import Augmentation, Drawn, Transform
from onnxadmm.train.losses import IGNORED

Array = NDArray[Any]
IndexArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]

#: What is held out of the training data unless asked otherwise.
HELD_OUT_SHARE = 0.1
HELD_OUT_AT_MOST = 5000
#: Samples whose weights are looked at together, and that are digested together.
_ROWS = 4096
#: Spreads digests over all numbers anew for every seed.
_MIXER = np.uint64(0xD6E8FEB86659FD93)


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


#: Stored samples by input name, and which of them are not damaged, bool ``[n]``.
_Samples = tuple[Mapping[str, Array], NDArray[np.bool_]]


@dataclass(frozen=True)
class _Choice:
    """The samples of a batch: their numbers, how many of them are no fillers, and what was drawn by input name."""

    chosen: IndexArray
    count: int
    drawn: Mapping[str, Drawn]


@dataclass(frozen=True)
class ArrayDataset:
    """Samples stored as they came (images as uint8, or encoded on a disk) and converted batch by batch.

    Attributes:
        inputs: stored arrays by input name, samples on axis 0, in the model's layout; pictures are decoded when a batch
            needs them.
        labels: int64 or float32, as the loss wants them; None without labels.
        transforms: conversion of each input to what the model reads.
        augmentation: what ``augment`` does to each image input; empty without augmentation.
        order: positions of this dataset's samples in the stored arrays, int64 ``[N]``.
        held: values of the model's inputs that have no batch, by name; batches leave them out.
        class_axis: axis of the model's logits along which the classes lie; None where that does not matter.
        classes: names of the classes in the order of their numbers; None where labels were numbers.
        notes: sentences on what was done to the data that are read.
        weighing: what samples count; None: all alike.
        contents: digest of what each stored sample was made of, uint64 ``[N, 2]``, by which data are divided; None:
            they are divided by chance.
    """

    inputs: Mapping[str, Column]
    labels: Array | None
    transforms: Mapping[str, Transform]
    augmentation: Mapping[str, Augmentation]
    order: IndexArray
    held: Mapping[str, Array] = field(default_factory=dict)
    class_axis: int | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    weighing: Weighing | None = None
    contents: Contents | None = None

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

    def some(self, count: int) -> "ArrayDataset":
        """At most so many of the samples, drawn at random and always the same ones, in their order.

        Where samples lie class by class, as those of folders do, the first ones are all alike.
        """
        if count >= len(self):
            return self
        return self.take(np.sort(np.random.default_rng(0).permutation(len(self))[:count]))

    @property
    def decodes(self) -> bool:
        """Whether pictures are decoded when a batch needs them."""
        return any(isinstance(column, Pictures) for column in self.inputs.values())

    @property
    def damage(self) -> str:
        """A sentence on the pictures that were left out because they cannot be decoded; empty without any."""
        return " ".join(column.damage.describe() for column in self.inputs.values() if isinstance(column, Pictures))

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = False,
        augment: bool = False,
        drop_last: bool = False,
        pad_last: bool = False,
        first: int = 0,
    ) -> Iterator[Batch]:
        """Go through the samples once.

        A picture that cannot be decoded is left out of its batch; in batches that have to be full, the first one of the
        batch stands in for it.

        Args:
            batch_size: samples per batch.
            seed: of the order and the augmentation; pass another for each epoch.
            shuffle: draw a random order.
            augment: apply the augmentation the data were loaded with.
            drop_last: leave out a last batch that is not full.
            pad_last: fill a last batch that is not full with the first samples, as often as it takes.
            first: number of the first batch that is made; those before it are drawn, and not read.

        Raises:
            DataError: ``drop_last`` would leave nothing, or too many pictures are damaged.
        """
        if drop_last and len(self) < batch_size:
            raise DataError(
                "data",
                expected=f"at least one batch of {batch_size} samples",
                found=f"{len(self)} samples",
                way_out=f"use a --batch-size of at most {len(self)}",
            )
        draws = np.random.default_rng(seed)
        order = draws.permutation(self.order) if shuffle else self.order
        return self._batches(
            order, batch_size, draws if augment and self.augmentation else None, drop_last, pad_last, first
        )

    def _batches(
        self,
        order: IndexArray,
        batch_size: int,
        generator: np.random.Generator | None,
        drop_last: bool,
        pad_last: bool,
        first: int,
    ) -> Iterator[Batch]:
        full = drop_last or pad_last
        drawn = itertools.islice(self._drawn(order, batch_size, generator, drop_last, pad_last), first, None)
        if not self.decodes:
            yield from (self._batch(choice, self._read(choice), full=full) for choice in drawn)
            return
        # The pictures of the next batch are decoded while those of this one are converted, and used.
        with ThreadPoolExecutor(1, "pictures-ahead") as ahead:
            waiting: tuple[_Choice, Future[_Samples]] | None = None
            for choice in itertools.chain(drawn, (None,)):
                following = None if choice is None else (choice, ahead.submit(self._read, choice))
                if waiting is not None:
                    batch = self._batch(waiting[0], waiting[1].result(), full=full)
                    if batch.count:
                        yield batch
                waiting = following

    def _drawn(
        self,
        order: IndexArray,
        batch_size: int,
        generator: np.random.Generator | None,
        drop_last: bool,
        pad_last: bool,
    ) -> Iterator[_Choice]:
        """Which samples are in each batch, and what was drawn for them."""
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            count = len(chosen)
            if count < batch_size and drop_last:
                return
            if count < batch_size and pad_last:
                chosen = np.concatenate([chosen, np.resize(order, batch_size - count)])
            drawn: dict[str, Drawn] = {}
            if generator is not None:
                drawn = {
                    name: self.augmentation[name].draw(len(chosen), generator)
                    for name in self.inputs
                    if name in self.augmentation
                }
            yield _Choice(chosen, count, drawn)

    def _read(self, choice: _Choice) -> _Samples:
        """The stored samples of a batch, pictures decoded and cut, and which of them are not damaged."""
        samples: dict[str, Array] = {}
        whole = np.ones(len(choice.chosen), np.bool_)
        for name, stored in self.inputs.items():
            if isinstance(stored, Pictures):
                boxes = choice.drawn[name].boxes if name in choice.drawn else None
                samples[name], decoded = stored.read(choice.chosen, boxes)
                whole &= decoded
            else:
                samples[name] = stored[choice.chosen]
        return samples, whole

    def _batch(self, choice: _Choice, read: _Samples, *, full: bool) -> Batch:
        samples, whole = read
        count, drawn = choice.count, choice.drawn
        inputs: dict[str, Array] = {}
        rows = np.arange(len(choice.chosen))
        if not whole.all():
            rows = np.where(whole, rows, np.argmax(whole)) if full and whole.any() else np.flatnonzero(whole)
            samples = {name: array[rows] for name, array in samples.items()}
            count = count if full and whole.any() else len(rows)
        for name, array in samples.items():
            if name in drawn:
                # Pictures that are decoded now were cut while they were.
                change = drawn[name].of(rows)
                change = replace(change, boxes=None) if isinstance(self.inputs[name], Pictures) else change
                array = self.augmentation[name].apply(array, change)
            inputs[name] = self.transforms[name].apply(array)
        used = choice.chosen[rows]
        labels = None if self.labels is None else self.labels[used]
        weights = None if self.weighing is None else self.weighing.of(used, labels)
        return Batch(inputs, labels, None, count, used, bool(drawn), origin=self.inputs, weights=weights)

    def digest(self, total: "hashlib._Hash") -> None:
        """Add the samples, in their order, and all that is stored with them: as read, or the contents of pictures.

        Args:
            total: what they are added to.
        """
        arrays: dict[str, Array] = {}
        for name, column in self.inputs.items():
            if isinstance(column, Pictures):
                total.update(f"{name}\0{column.framing}\0".encode())
                arrays[name] = column.contents
            else:
                arrays[name] = column
        arrays |= {} if self.labels is None else {"labels": self.labels}
        if self.weighing is not None and self.weighing.samples is not None:
            arrays["sample weights"] = self.weighing.samples
        for name, array in sorted(arrays.items()):
            total.update(f"{name}\0{array.dtype}\0{array.shape[1:]}\0{len(self)}\0".encode())
            for start in range(0, len(self), _ROWS):
                total.update(np.ascontiguousarray(array[self.order[start : start + _ROWS]]).data)


def hold_out(
    data: ArrayDataset, *, share: float = HELD_OUT_SHARE, at_most: int = HELD_OUT_AT_MOST, seed: int = 0
) -> tuple[ArrayDataset, ArrayDataset]:
    """Divide data into what trains and what every decision is made with.

    Pictures are divided by their contents: each is held out or not whatever else there is, so that a part stays as it
    is when files are added, and copies of a picture are in one part. Other data are divided at random; with class
    labels each class gives its share, so that rare classes are in both parts.

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
    if data.contents is not None:
        held = _by_content(data.contents[data.order], share, at_most, seed)
        return data.take(np.flatnonzero(~held)), data.take(np.flatnonzero(held))
    wanted = int(min(max(1, round(len(data) * share)), at_most, len(data) - 1))
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(data))
    labels = data.labels
    if labels is not None and labels.ndim == 1 and labels.dtype.kind == "i":
        shuffled = shuffled[_spread(labels[data.order][shuffled])]
    held = np.zeros(len(data), bool)
    held[shuffled[:wanted]] = True
    return data.take(np.flatnonzero(~held)), data.take(np.flatnonzero(held))


def held_out_count(count: int, *, share: float, by_content: bool) -> int:
    """Return about how many of so many samples ``hold_out`` holds out.

    Args:
        share: that is asked for, in (0, 1).
        by_content: whether they are divided by their contents, as pictures are.
    """
    while by_content and share * count > HELD_OUT_AT_MOST:
        share /= 2
    return int(min(max(1, round(count * share)), HELD_OUT_AT_MOST, count - 1))


def _by_content(contents: Contents, share: float, at_most: int, seed: int) -> NDArray[np.bool_]:
    """Which samples are held out, bool ``[n]``: those whose digest, mixed with the seed, is below a share of all.

    The share is halved until no more than ``at_most`` are expected, so that more samples leave it as it is, or halve
    it: then what is held out was held out before.
    """
    while share * len(contents) > at_most:
        share /= 2
    mixed = contents[:, 0] ^ np.random.default_rng(seed).integers(2**64, dtype=np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * _MIXER  # wraps around
    mixed ^= mixed >> np.uint64(29)
    held = mixed < np.uint64(int(share * 2**64))
    if held.all() or not held.any():
        held = mixed == mixed.min()
    if held.all():  # copies of one picture
        held = np.arange(len(held)) == 0
    return held


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
