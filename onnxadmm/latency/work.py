"""What there is to do in a network, as far as it depends on the units that stay."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx_ir
from numpy.typing import NDArray

from onnxadmm.admm.problem import GateGroup
from onnxadmm.graph.model import Model
from onnxadmm.rules.facts import CostTerm
from onnxadmm.units.products import Products
from onnxadmm.units.units import Units

DoubleArray = NDArray[np.float64]

#: A step as long as any axis: a length counts as the whole of it while anything is left.
WHOLE: Final = 2**31


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates of every layer, and the numbers that are written between them; equal products are one term.

    Attributes:
        macs: multiply-accumulates of one sample.
        written: numbers that nodes put out, of one sample or some.
        unit_count: how many units there are.
        branches: for each group that may go altogether, the operators that run while anything of it is left.
    """

    macs: tuple[CostTerm, ...]
    written: tuple[CostTerm, ...]
    unit_count: int
    branches: tuple[CostTerm, ...] = ()

    @property
    def terms(self) -> tuple[CostTerm, ...]:
        """All of them."""
        return self.macs + self.written + self.branches

    def shares(self) -> DoubleArray:
        """Return the share of each term among its kind in the whole network: float64 ``[3, terms]``, 0 elsewhere."""
        whole = np.array([term.constant * math.prod(axis.shape[-1] for axis in term.axes) for term in self.terms])
        found = np.zeros((3, whole.size))
        first = 0
        for kind, terms in zip(found, (self.macs, self.written, self.branches), strict=True):
            own = whole[first : first + len(terms)]
            kind[first : first + len(terms)] = own / (own.sum() or 1.0)
            first += len(terms)
        return found

    def steps(self, vector: int) -> tuple[int, ...]:
        """Return what lengths are rounded up to: none, half a vector and a vector of so many numbers.

        Where there are branches that may go, ``WHOLE`` is the last; it counts for them, and they for no other.
        """
        return (*sorted({1, max(1, vector // 2), vector}), *([WHOLE] if self.branches else []))

    def counted(self, step: int) -> NDArray[np.bool_]:
        """Return which terms have a price with this step: bool ``[terms]``."""
        return (np.arange(len(self.terms)) < len(self.terms) - len(self.branches)) ^ (step == WHOLE)

    def products(self, *, step: int) -> Products:
        """Return the terms as sums, where an axis is as long as the next multiple of ``step``."""
        return Products(self.terms, self.unit_count, step=step)


def work_of(model: Model, units: Units, groups: Sequence[GateGroup] = ()) -> Work:
    """Return what there is to do in a model.

    Args:
        model: the one the units were found in, or it with functions and weights written out.
        groups: of it, as far as they may shrink.
    """
    branches = (
        CostTerm(group.name, 1.0, (np.concatenate(list(group.members)),)) for group in groups if not group.keep_at_least
    )
    macs, written = _chosen(units.mac_terms, units.count), _chosen(_written(model.ir.graph, units), units.count)
    return Work(_merged(macs), _merged(written), units.count, tuple(branches))


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
