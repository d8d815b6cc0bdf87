"""What a pruned model says about itself in its ``metadata_props``: a record for each time units were removed."""

import json
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.graph.model import Model
from onnxadmm.units.units import Units

METADATA_KEY: Final = "onnxadmm.pruned"


def read_records(model: Model) -> list[dict[str, Any]]:
    """Return the records of a model, the oldest first; none where it has none, or text that is not ours.

    Each has ``units``, which maps the names of groups to ``[before, after]``, and ``sha256`` of the model they were
    removed from. The first versions wrote a single record in place of a list, without ``sha256``.
    """
    try:
        found = json.loads(model.ir.metadata_props.get(METADATA_KEY, "[]"))
    except (ValueError, RecursionError):
        return []
    records = found if isinstance(found, list) else [found]
    return [record for record in records if isinstance(record, dict)]


def add_record(small: Model, original: Model, units: Units, keep: NDArray[np.bool_]) -> None:
    """Write into a shrunk model what was removed, behind what the original says about itself.

    Args:
        small: the shrunk model; changed in place.
        original: the model the units were found in.
        units: its units.
        keep: which units stay, bool ``[units.count]``.
    """
    counts = {group.name: [group.count, int(keep[group.places].sum())] for group in units.groups}
    gone = units.followers.gone(keep)
    counts |= {lock.name: [lock.count, lock.count - gone[lock.name]] for lock in units.locked if lock.name in gone}
    changed = {name: (before, after) for name, (before, after) in counts.items() if before != after}
    records = [*read_records(original), {"sha256": original.sha256, "units": changed}]
    small.ir.metadata_props[METADATA_KEY] = json.dumps(records, sort_keys=True)
