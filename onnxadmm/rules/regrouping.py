"""Reshapes that split or merge labelled axes: which of the axes carries the units.

A run of axes (a1 .. ak) becomes (b1 .. bm), the same positions in row-major order. For the survivors to be
a box on both sides, one axis of each side carries the units, the others stay whole. The choice waits until
every lock is known: it takes an axis that weights write and read, else one of heads, else the one with the
most positions, and mere copies last. Patches of an image are heads to whatever multiplies them one by one, and may
be more than its channels; it is the channels that weights write and read.
"""

from collections.abc import Sequence

import numpy as np

from onnxadmm.rules.facts import Axis, Facts, Regrouped
from onnxadmm.rules.labels import LabelArray


def resolve_regrouped(facts: Facts) -> None:
    """Tie or lock the axes of every regrouped run; runs without a choice go first, since they may decide others."""
    pending = list(facts.regrouped)
    stream = _stream(facts)
    while pending:
        forced = [run for run in pending if not _has_choice(facts, run)]
        # A run with heads in it tells others, which only see what the heads are cut from, where heads are.
        chosen = forced or [run for run in pending if _has_heads(facts, run)] or pending[:1]
        for run in chosen:
            _resolve(facts, run, stream)
        done = {id(run) for run in chosen}
        pending = [run for run in pending if id(run) not in done]


def _stream(facts: Facts) -> LabelArray:
    """Return the labels that weights write and weights read, as along a residual stream, and that may go: ``[n]``."""
    reading = {(read.tensor, read.axis) for read in facts.reads}
    found: dict[bool, list[LabelArray]] = {True: [], False: []}
    for name in sorted({tensor for tensor, _ in reading}):
        for index, axis in enumerate(facts.axes.get(name, ())):
            if axis is not None:
                found[(name, index) in reading].append(facts.labels.roots(axis.reshape(-1)))
    empty = np.empty(0, np.int64)
    labels = np.intersect1d(np.concatenate([empty, *found[True]]), np.concatenate([empty, *found[False]]))
    return labels[~facts.labels.locked(labels)]


def _free(facts: Facts, side: Sequence[tuple[int, Axis]]) -> list[int]:
    """Return the indices of axes of which some positions may go."""
    return [index for index, (_, axis) in enumerate(side) if axis is not None and not facts.labels.locked(axis).all()]


def _has_choice(facts: Facts, run: Regrouped) -> bool:
    sources, targets = _free(facts, run.sources), _free(facts, run.targets)
    return bool(sources and targets) and (len(sources) > 1 or len(targets) > 1)


def _has_heads(facts: Facts, run: Regrouped) -> bool:
    return any(axis is not None and facts.labels.is_head(axis) for _, axis in (*run.sources, *run.targets))


def _resolve(facts: Facts, run: Regrouped, stream: LabelArray) -> None:
    sources, targets = _free(facts, run.sources), _free(facts, run.targets)
    carriers: tuple[int | None, int | None] = (None, None)
    if sources and targets:
        carriers = _carrier(facts, run.sources, sources, stream), _carrier(facts, run.targets, targets, stream)
    for side, carrier in zip((run.sources, run.targets), carriers, strict=True):
        for index, (_, axis) in enumerate(side):
            if axis is not None and index != carrier:
                facts.labels.lock(axis, f"{run.where} splits or merges it with an axis that carries the units")
    if carriers[0] is not None and carriers[1] is not None:
        facts.labels.tie(_grid(run.sources, carriers[0]), _grid(run.targets, carriers[1]))


def _carrier(facts: Facts, side: Sequence[tuple[int, Axis]], free: Sequence[int], stream: LabelArray) -> int:
    roots = facts.labels.roots(stream)

    def rank(index: int) -> tuple[bool, bool, bool, int, int]:
        size, axis = side[index]
        assert axis is not None  # free axes carry labels
        flows = bool(np.isin(facts.labels.roots(axis), roots).any())
        return int(axis[0]) not in facts.copies, flows, facts.labels.is_head(axis), size, -index

    return max(free, key=rank)


def _grid(side: Sequence[tuple[int, Axis]], carrier: int) -> LabelArray:
    """Return the carrier's label at every position of the run: int64 ``[product of sizes]``."""
    sizes = [size for size, _ in side]
    labels = side[carrier][1]
    assert labels is not None  # carriers carry labels
    view = labels.reshape([size if index == carrier else 1 for index, size in enumerate(sizes)])
    return np.broadcast_to(view, sizes).reshape(-1)
