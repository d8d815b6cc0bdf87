"""Which group feeds which: the layers that read one group write another."""

from onnxadmm.units.units import Units


def fed_groups(units: Units) -> dict[str, tuple[str, ...]]:
    """Return by group the groups, locked ones included, that are written by the weights that read it.

    Every group has its entry, in the order of ``units.groups`` and ``units.locked``; one that is read by nothing, or
    that may not shrink, feeds none that is known.
    """
    written = [(group.name, group.tensors) for group in units.groups]
    written += [(lock.name, lock.tensors) for lock in units.locked]
    writers: dict[str, list[str]] = {}
    for name, tensors in written:
        for tensor in tensors:
            writers.setdefault(tensor, []).append(name)
    found: dict[str, dict[str, None]] = {name: {} for name, _ in written}
    for reader in units.readers:
        for group in units.groups:
            if ((reader.units >= group.start) & (reader.units < group.start + group.count)).any():
                found[group.name].update(dict.fromkeys(writers.get(reader.tensor, [])))
    return {name: tuple(targets) for name, targets in found.items()}
