"""Weights that a cut has to write out, and that need more room than the cut saves."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from onnxadmm.errors import NothingToPruneError, PlanError
from onnxadmm.graph.constants import constants_by_name, stored_bytes
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import Model
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.units.units import Units


def leave_out_growing(
    model: Model,
    ignore: tuple[str, ...],
    *,
    find: Callable[[tuple[str, ...]], Units],
    choose: Callable[[Units], NDArray[np.bool_]],
) -> tuple[Units, NDArray[np.bool_], tuple[str, ...]]:
    """Find units and choose what stays, until no group's cut makes the model store more than it did.

    Args:
        model: the model the units are found in.
        ignore: patterns of groups that are left alone whatever they save.
        find: finds the units, but for such groups.
        choose: says which units stay, bool ``[units.count]``.

    Returns:
        the units; which of them stay; ``ignore`` and the groups that do not pay.

    Raises:
        NothingToPruneError: no group is left.
    """
    asked = len(ignore)
    while True:
        units = find(ignore)
        if not units.groups and len(ignore) > asked:
            raise NothingToPruneError(
                "the model",
                expected="a group whose cut makes the file smaller",
                found=f"none: the cuts of {', '.join(ignore[asked:])} have to write out more than they save",
                way_out="ask for a smaller result, of which so little is left that it pays",
            )
        keep = choose(units)
        growing = growing_groups(model, units, keep)
        if not growing:
            return units, keep, ignore
        ignore += tuple(name.replace("[", "[[]").replace("?", "[?]").replace("*", "[*]") for name in growing)


def growing_groups(model: Model, units: Units, keep: NDArray[np.bool_]) -> tuple[str, ...]:
    """Return the groups whose cut makes a shrunk model store more than the model does; none where it stores less.

    Args:
        model: the model the units were found in.
        units: its units.
        keep: which units stay.

    Returns:
        names of the groups that cut a weight which is written out for it.
    """
    if bool(keep.all()) or inline(model) is model:
        return ()
    small = shrink(model, units, keep)
    if stored_bytes(small) <= stored_bytes(model):
        return ()
    given = constants_by_name(model)
    axes = [
        axis[axis < units.count]  # what follows others is nobody's cut
        for name in small.ir.graph.initializers
        if name not in given
        for axis in units.axes.get(name, ())
        if axis is not None
    ]
    touched = np.zeros(units.count + 1, np.bool_)  # unit -1 is the last element: it stays
    for axis in axes:
        touched[axis.reshape(-1)] = True
    gone = touched[:-1] & ~keep
    return tuple(group.name for group in units.groups if gone[group.places].any())


def refuse_growth(model: Model, small: Model) -> None:
    """Refuse a shrunk model whose weights need more room than those of the model.

    Raises:
        PlanError: they do.
    """
    before, after = stored_bytes(model), stored_bytes(small)
    if after > before:
        given = constants_by_name(model)
        written = [name for name in small.ir.graph.initializers if name not in given]
        raise PlanError(
            "the plan",
            expected=f"weights that need at most {before:,} bytes, as those of the model do",
            found=f"{after:,} bytes, since {', '.join(written[:3]) or 'a function'} is written out to be cut",
            way_out="make the plan anew, which leaves out what does not pay, or leave it out with --ignore",
        )
