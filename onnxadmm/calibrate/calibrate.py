"""The walk of a calibration: statistics, order, error curves, allocation, refit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import GateGroup, KeepArray, Problem, UnitArray
from onnxadmm.calibrate.frontier import Feed, Frontier
from onnxadmm.calibrate.layers import Layer, find_layers
from onnxadmm.calibrate.moments import Moments, fit
from onnxadmm.calibrate.order import Reading, reading_of, removal_order
from onnxadmm.graph.constants import constant, constants_by_name, set_constants, with_constants
from onnxadmm.graph.model import Model, clone
from onnxadmm.rewrite.mask import mask
from onnxadmm.units.units import Units

Array = NDArray[Any]
DoubleArray = NDArray[np.float64]
#: How far a model is from the original on the samples: a number that is 0 for the original itself.
Distance = Callable[[Model], float]


@dataclass(frozen=True)
class Effort:
    rows: int = 64
    levels: tuple[float, ...] = (0.875, 0.75, 0.5, 0.25)
    share: float = 1 / 64
    ridges: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    order_ridge: float = 1e-2
    threads: int = 2
    room: int = 2 << 30


class Calibration:
    def __init__(
        self, model: Model, units: Units, problem: Problem, batches: Sequence[Feed], effort: Effort = Effort()
    ) -> None:
        self.model, self.units, self.problem = model, units, problem
        self.batches, self.effort = batches, effort
        values = constants_by_name(model)
        self.weights = {}
        self.layers = find_layers(model)
        for layer in self.layers:
            for name in (layer.weight, layer.offset.tensor if layer.offset else None):
                if name is not None:
                    self.weights[name] = constant(values[name])
        self.by_weight = {layer.weight: layer for layer in self.layers}
        self.reads: dict[str, UnitArray] = {}
        for reader in units.readers:
            layer = self.by_weight.get(reader.tensor)
            if layer is not None and layer.reading == reader.axis:
                self.reads[layer.node] = layer.units_of_rows(reader.units)

    def rows_of(self, layer: Layer, number: int, feed: Feed, data: Array) -> NDArray[np.float32]:
        count = len(next(iter(feed.values())))
        generator = np.random.default_rng([layer.index, number])
        return layer.rows(data, self.effort.rows * count, generator)

    def statistics(self) -> dict[str, Moments]:
        found = {}
        chosen = [layer for layer in self.layers if layer.node in self.reads]
        for layer in chosen:
            matrix = layer.matrix(self.weights[layer.weight])
            found[layer.node] = Moments.empty(matrix.shape[0], matrix.shape[1])
        frontier = Frontier(self.batches, threads=self.effort.threads, room=0)
        names = {layer.data for layer in chosen}
        last = max(layer.index for layer in chosen)
        for number, values in enumerate(frontier.advance(self.model, names, last)):
            for layer in chosen:
                found[layer.node].add(self.rows_of(layer, number, self.batches[number], values[layer.data]))
        return found

    def curves(self, moments, distance):
        result = []
        for group in self.problem.groups:
            inside = range(group.start, group.start + group.count)
            readings, owners = [], []
            for layer in self.layers:
                if layer.node not in self.reads:
                    continue
                units = self.reads[layer.node]
                local = np.where((units >= group.start) & (units < group.start + group.count), units - group.start, -1)
                if not (local >= 0).any():
                    continue
                m = moments[layer.node]
                m = m.about_the_mean() if layer.offset else m
                matrix = layer.matrix(self.weights[layer.weight])
                for block in range(layer.blocks):
                    readings.append(
                        reading_of(m.second[block], matrix[block], local[block], ridge=self.effort.order_ridge)
                    )
                owners.append(layer)
            size = group.count // group.block_count
            stops = sorted({max(1, round(size * level)) for level in self.effort.levels} - {size})
            points = {size: 0.0}
            snapshots = {}

            def on_stop(left):
                arrays, at = {}, 0
                for layer in owners:
                    matrix = np.stack([readings[at + b].weight for b in range(layer.blocks)])
                    at += layer.blocks
                    arrays.update(self.changed(layer, matrix, moments[layer.node]))
                snapshots[left] = arrays

            steps = removal_order(
                readings, group.block_numbers, fewest=1, share=self.effort.share, stops=stops, on_stop=on_stop
            )
            steps = steps + group.start
            for left, arrays in snapshots.items():
                keep = np.ones(self.units.count, bool)
                keep[steps[: size - left].reshape(-1)] = False
                points[left] = distance(mask(with_constants(self.model, arrays), self.units, keep))
            result.append((steps, points))
        return result

    def changed(self, layer, matrix, moments):
        weight = self.weights[layer.weight]
        arrays = {layer.weight: layer.weight_of(matrix, weight)}
        if layer.offset:
            before = layer.matrix(weight)
            shift = np.einsum("bw,bwo->bo", moments.first / max(1, moments.count), before - matrix)
            arrays.update(self.shifted(layer, shift))
        return arrays

    def shifted(self, layer, shift):
        old = self.weights[layer.offset.tensor]
        return {layer.offset.tensor: (old + (shift.reshape(old.shape) / layer.offset.factor)).astype(old.dtype)}

    def refit(self, keep, only_readers=True):
        stays = np.append(keep, True)
        current = clone(self.model)
        current = mask(self.model, self.units, keep)
        chosen = []
        touched = set()
        for layer in self.layers:
            reads = self.reads.get(layer.node)
            if reads is None and only_readers:
                continue
            chosen.append(layer)
        room = self.effort.room
        whole = Frontier(self.batches, threads=self.effort.threads, room=room)
        cut = Frontier(self.batches, threads=self.effort.threads, room=room)
        new = {}
        changed = False
        for layer in chosen:
            reads = self.reads.get(layer.node)
            weight = layer.matrix(self.weights[layer.weight])
            rows_stay = np.ones(weight.shape[:2], bool) if reads is None else stays[reads]
            if rows_stay.all() and not changed:
                continue
            changed = True
            halves = (Moments.empty(*weight.shape), Moments.empty(*weight.shape))
            names = [layer.data]
            single = weight.astype(np.float32)
            for number, (before, after) in enumerate(
                zip(
                    whole.advance(self.model, names, layer.index),
                    cut.advance(current, names, layer.index),
                    strict=True,
                )
            ):
                feed = self.batches[number]
                targets = self.rows_of(layer, number, feed, before[layer.data]) @ single
                halves[number % 2].add(self.rows_of(layer, number, feed, after[layer.data]), targets)
            found = fit(halves, weight, rows_stay, with_shift=layer.offset is not None, ridges=self.effort.ridges)
            arrays = {layer.weight: layer.weight_of(found.matrix, self.weights[layer.weight])}
            if layer.offset:
                arrays.update(self.shifted(layer, found.shift))
            set_constants(current, arrays)
            new.update(arrays)
        return new
