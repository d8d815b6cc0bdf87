"""What there is to do in a network, as far as it depends on the units that stay."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.graph.model import Model
from onnxadmm.rules.facts import CostTerm
from onnxadmm.units.products import Products
from onnxadmm.units.units import Units

DoubleArray = NDArray[np.float64]


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates of every layer, and the numbers that are written between them; equal products are one term.

    Attributes:
        macs: multiply-accumulates of one sample.
        written: numbers that nodes put out, of one sample or some.
        unit_count: how many units there are.
    """

    macs: tuple[CostTerm, ...]
    written: tuple[CostTerm, ...]
    unit_count: int

    @property
    def terms(self) -> tuple[CostTerm, ...]:
        """All of them."""
        return self.macs + self.written

    def shares(self) -> tuple[DoubleArray, DoubleArray]:
        """Return the share of each term among its kind in the whole network: two arrays float64 ``[terms]``, each 0
        for terms of the other kind.
        """
        whole = np.array([term.constant * math.prod(axis.shape[-1] for axis in term.axes) for term in self.terms])
        macs, written = whole.copy(), whole.copy()
        macs[len(self.macs) :], written[: len(self.macs)] = 0.0, 0.0
        return macs / (macs.sum() or 1.0), written / (written.sum() or 1.0)

    def products(self, *, step: int) -> Products:
        """Return the terms as sums, where an axis is as long as the next multiple of ``step``."""
        return Products(self.terms, self.unit_count, step=step)


def work_of(model: Model, units: Units) -> Work:
    """Return what there is to do in a model.

    Args:
        model: the one the units were found in, or it with functions and weights written out.
    """
    macs, written = _chosen(units.mac_terms, units.count), _chosen(_written(model.ir.graph, units), units.count)
    return Work(_merged(macs), _merged(written), units.count)


def _chosen(terms: Iterable[CostTerm], count: int) -> Iterable[CostTerm]:
    """Yield the terms as if what follows the units stayed: that is little, and measured where it matters."""
    for term in terms:
        yield replace(term, axes=tuple(np.where(axis < count, axis, -1) for axis in term.axes))


def _written(graph: onnx_ir.Graph, units: Units) -> Iterable[CostTerm]:
    for node in graph:
        for value in node.outputs:
            axes, shape = units.axes.get(value.name or ""), units.shapes.shape(value.name or "")
            if axes is not None and shape is not None:
                labelled = tuple(axis for axis in axes if axis is not None)
                whole = math.prod(axis.shape[-1] for axis in labelled)
                yield CostTerm(value.name or "", float(math.prod(shape)) / whole, labelled)


def _merged(terms: Iterable[CostTerm]) -> tuple[CostTerm, ...]:
    """Add up terms of the same axes; those of none depend on no unit."""
    found: dict[tuple[tuple[int, ...] | bytes, ...], CostTerm] = {}
    for term in terms:
        if term.axes:
            key = tuple(part for axis in term.axes for part in (axis.shape, axis.tobytes()))
            before = found.get(key)
            found[key] = term if before is None else replace(before, constant=before.constant + term.constant)
    return tuple(found.values())
