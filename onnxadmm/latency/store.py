"""What was measured on this machine, kept for the next run in the user's cache folder."""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np
import platformdirs

from onnxadmm.admm.problem import GateGroup
from onnxadmm.bench.simd import this_machine
from onnxadmm.bench.versions import package_versions
from onnxadmm.latency.table import Table
from onnxadmm.latency.watch import Watch

_SCHEMA: Final = "onnxadmm.latency/2"
_FIGURES: Final = ("fixed", "error", "worst", "seconds")


def read(watch: Watch, groups: Sequence[GateGroup], *, terms: int) -> Table | None:
    """Return what an equal measurement found on this machine; None where there was none, or it cannot be read.

    Args:
        terms: of the work.
    """
    try:
        document = json.loads(_path(watch, groups).read_text(encoding="utf-8"))
        steps, plans = tuple(int(step) for step in document["steps"]), int(document["plans"])
        prices = np.array(document["terms"], np.float64)
        figures = {name: float(document[name]) for name in _FIGURES}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    usable = prices.shape == (len(steps), terms) and all(step > 0 for step in steps) and bool((prices >= 0).all())
    if not usable or not all(0 <= figure < np.inf for figure in figures.values()):
        return None
    return Table(steps=steps, terms=prices, plans=plans, **figures)


def write(table: Table, watch: Watch, groups: Sequence[GateGroup]) -> None:
    """Keep a table; where the cache cannot be written the next run measures again."""
    path = _path(watch, groups)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".json")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({**asdict(table), "steps": list(table.steps), "terms": table.terms.tolist()}, file)
            os.replace(name, path)
        except OSError:
            Path(name).unlink(missing_ok=True)


def _path(watch: Watch, groups: Sequence[GateGroup]) -> Path:
    """The file of a measurement: another processor, version, model, batch or level is another measurement."""
    machine = this_machine()
    parts = [
        _SCHEMA,
        watch.model.sha256,
        watch.batch,
        watch.threads,
        sorted((name, tuple(shape)) for name, shape in watch.units.shapes.sizes.items()),
        [
            (group.name, group.count, group.keep_at_least, group.keep_at_most_removed, group.multiple)
            for group in groups
        ],
        machine.cpu,
        machine.simd,
        {name: version for name, version in package_versions().items() if "onnxruntime" in name or name == "onnxadmm"},
    ]
    key = hashlib.sha256(repr(parts).encode()).hexdigest()
    return platformdirs.user_cache_path("onnxadmm", appauthor=False) / "latency" / f"{key[:32]}.json"
