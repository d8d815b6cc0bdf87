"""The network that is calibrated: its layers, what of them reads which units, and their constants."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.problem import UnitArray
from onnxadmm.calibrate.effort import WIDEST
from onnxadmm.calibrate.fit import Bounds
from onnxadmm.calibrate.layers import Layer, find_layers
from onnxadmm.calibrate.pairs import Pair, find_pairs
from onnxadmm.graph.constants import constant, constants_by_name, with_constants
from onnxadmm.graph.model import Model
from onnxadmm.rewrite.gates import gate_value
from onnxadmm.rewrite.mask import mask, without_units
from onnxadmm.units.units import Units

Array = NDArray[Any]
DoubleArray = NDArray[np.float64]
KeepArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Network:
    """A model, its units, and the layers of it that can be fitted.

    Attributes:
        model: as given; never changed.
        units: its units.
        narrows: whether pairs of layers get other bases when their inner size shrinks. Where single entries go as well
            they are compared in the bases of the file.
    """

    model: Model
    units: Units
    narrows: bool = True

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Layers that read units, in the order of the graph."""
        return tuple(layer for layer in self.every_layer if layer.weight in self._readers)

    @cached_property
    def every_layer(self) -> tuple[Layer, ...]:
        """Layers that can be fitted, those that read no units as well, in the order of the graph."""
        return tuple(find_layers(self.model))

    @cached_property
    def reads(self) -> Mapping[str, UnitArray]:
        """For each layer, by node, the unit of each row, -1 where there is none: int64 ``[blocks, width]``."""
        found = {}
        for layer in self.every_layer:
            of_none = np.full(self._constants[layer.weight].shape[layer.reading], -1)
            found[layer.node] = layer.units_of_rows(self._readers.get(layer.weight, of_none))
        return found

    @cached_property
    def pairs(self) -> Mapping[int, Pair]:
        """Pairs of layers whose inner size is a group, by the first unit of the group."""
        narrow = [layer for layer in self.every_layer if self.matrix(layer).shape[1] <= WIDEST]
        return find_pairs(self.model, self.units, narrow) if self.narrows else {}

    @cached_property
    def sample_bytes(self) -> float:
        """Bytes of what all layers read, for one sample, as far as shapes are known."""
        shapes = self.units.shapes
        found = {layer.data: shapes.shape(layer.data) for layer in self.every_layer}
        return sum(4.0 * prod(shape) / shapes.batch for shape in found.values() if shape is not None)

    @cached_property
    def unknown(self) -> NDArray[np.bool_]:
        """Units that something reads which is no layer here: bool ``[units.count]``."""
        known = {layer.weight for layer in self.layers}
        others = [reader.units for reader in self.units.readers if reader.tensor not in known]
        others += [gate.reader.units for gate in self.units.gates]
        found = np.zeros(self.units.count + 1, np.bool_)  # the last element takes what belongs to no unit
        for units in others:
            found[units] = True
        return found[:-1]

    @cached_property
    def _readers(self) -> Mapping[str, UnitArray]:
        """Units along the reading axis, of each weight that a layer reads them with."""
        axes = {layer.weight: layer.reading for layer in self.every_layer}
        return {reader.tensor: reader.units for reader in self.units.readers if axes.get(reader.tensor) == reader.axis}

    @cached_property
    def _constants(self) -> Mapping[str, Array]:
        values = constants_by_name(self.model)
        names = [layer.weight for layer in self.every_layer]
        names += [layer.offset.tensor for layer in self.every_layer if layer.offset is not None]
        arrays = ((name, constant(values[name])) for name in names)
        return {name: array for name, array in arrays if array is not None}

    def matrix(self, layer: Layer) -> DoubleArray:
        """Return the weight of a layer, float64 ``[blocks, width, outputs]``."""
        return layer.matrix(self._constants[layer.weight])

    def with_matrix(self, layer: Layer, matrix: DoubleArray, shift: DoubleArray) -> dict[str, Array]:
        """Return the constants of a layer for a matrix, and a shift of its outputs ``[blocks, outputs]``."""
        constants = {layer.weight: layer.weight_of(matrix, self._constants[layer.weight])}
        if layer.offset is not None:
            before = self._constants[layer.offset.tensor]
            after = before.astype(np.float64) + shift.reshape(before.shape) / layer.offset.factor
            constants[layer.offset.tensor] = after.astype(before.dtype)
        return constants

    def offset(self, layer: Layer) -> DoubleArray:
        """Return what is added to the outputs of a layer, float64 ``[blocks, outputs]``; zeros where nothing is."""
        blocks, _, outputs = self.matrix(layer).shape
        if layer.offset is None:
            return np.zeros((blocks, outputs))
        constants = self._constants[layer.offset.tensor].astype(np.float64)
        return constants.reshape(blocks, outputs) * layer.offset.factor

    def bounds(self, layer: Layer) -> Bounds | None:
        """Return the limits of a layer's outputs without their offset; None where there are none."""
        if layer.limits is None:
            return None
        offset = self.offset(layer).astype(np.float32)[:, None]
        low, high = (np.float32(limit) for limit in layer.limits)
        return Bounds(low - offset, high - offset)

    def without_units(self, constants: Mapping[str, Array], keep: KeepArray) -> dict[str, Array]:
        """Return constants by which the model, its gates open, cannot see the units that go.

        Args:
            constants: others that differ from the model's, by name; the result holds them as well.
            keep: which units stay, bool ``[units.count]``.
        """
        stays = np.append(keep, True)  # unit -1 is the last element: it always stays
        gates = [gate for gate in self.units.gates if not stays[gate.reader.units].all()]
        return {
            **constants,
            **without_units({**self._read, **constants}, self.units, keep),
            **{gate.reader.tensor: gate_value(gate, stays[gate.reader.units]) for gate in gates},
        }

    def first_reader(self, units: slice) -> int:
        """Return the place, among the nodes of the graph, of the first that changes when some units of a group go."""
        pair = self.pairs.get(units.start)
        if pair is not None:
            return pair.layers[0].index
        inside = np.zeros(self.units.count + 1, np.bool_)  # the last element is for what belongs to no unit
        inside[units] = True
        weights = {reader.tensor for reader in self.units.readers if inside[reader.units].any()}
        results = {gate.result for gate in self.units.gates if inside[gate.reader.units].any()}
        places = (
            index
            for index, node in enumerate(self.model.ir.graph)
            if (node.outputs and node.outputs[0].name in results)
            or any(value is not None and value.name in weights for value in node.inputs)
        )
        return next(places, 0)

    @cached_property
    def _read(self) -> Mapping[str, Array]:
        """Constants that readers and zero points name."""
        values = constants_by_name(self.model)
        names = {reader.tensor for reader in self.units.readers}
        names |= {point.tensor for point in self.units.zero_points.values()}
        arrays = ((name, constant(values[name])) for name in names if name in values)
        return {name: array for name, array in arrays if array is not None}

    def masked(self, constants: Mapping[str, Array], keep: KeepArray) -> Model:
        """Return the model with some constants replaced that cannot see the units that go."""
        return mask(with_constants(self.model, constants), self.units, keep)
