"""How many bytes a model takes as a file once units are gone."""

import numpy as np
from numpy.typing import NDArray

from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model, clone, written_size
from onnxadmm.rewrite.record import add_record
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.units.cost import FileSize
from onnxadmm.units.units import Units


def file_size(model: Model, units: Units, *, original: int, single_file: bool = False) -> FileSize:
    """Return what a budget of bytes has to know of a model; nothing is written or counted yet.

    Args:
        model: the model the units were found in; what its weights hold may change, what they are not.
        original: bytes of the file that was given.
        single_file: whether weights are written into the file, also where the model has external data.
    """

    def written(keep: NDArray[np.bool_]) -> int:
        small = shrink(model, units, keep)
        if bool(keep.all()):
            # The largest that the file can be: all written out that is cut anywhere, no weights equal that were not,
            # every group told of.
            cut = {name for name, axes in units.axes.items() if any(axis is not None for axis in axes)}
            small = clone(inline(model, cut=cut))
            add_record(small, model, units, _one_less(units))
        return written_size(small, single_file=single_file)

    return FileSize(original, written)


def _one_less(units: Units) -> NDArray[np.bool_]:
    keep = np.ones(units.count, dtype=np.bool_)
    keep[[group.start for group in units.groups]] = False
    return keep
