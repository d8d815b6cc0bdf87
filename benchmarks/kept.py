"""Trainings of benchmarks/quality.py that are interrupted and go on: each is a checkpoint in the folder of its cell."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.pictured import ROOT
from onnxadmm.admm.state import State
from onnxadmm.run.checkpoint import SCHEMA, Checkpoints, Header, read_checkpoint

#: Where a training keeps its state, and the state of an equal one to go on from, empty without.
Keeping = tuple[Callable[[State], None], State]


#: Cells that were interrupted.
UNFINISHED: Final = ROOT / "out" / "quality"


@dataclass
class Kept:
    """The trainings of the cell that is being measured.

    Attributes:
        folder: of the cell.
        earlier: seconds that each training took before it was interrupted.
    """

    folder: Path = UNFINISHED
    earlier: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def training(self, name: str) -> Iterator[Keeping]:
        """Keep a training under a name, and go on with it where there is one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path, begin = self.folder / f"{name}.npz", time.perf_counter()
        state: State = {}
        if path.exists():
            header, state = read_checkpoint(path)
            self.earlier[name] = header.seconds[name]

        def now() -> Header:
            seconds = self.earlier.get(name, 0.0) + time.perf_counter() - begin
            return Header(SCHEMA, sha256="", data="", options={}, history=(), seconds={name: seconds}, left=0.0)

        checkpoints = Checkpoints(path, now)
        try:
            yield checkpoints.keep, state
        finally:
            checkpoints.flush()

    def begin(self, cell: str, *, anew: bool) -> None:
        """Turn to another cell, without what there is of it where it begins anew."""
        self.folder, self.earlier = UNFINISHED / cell, {}
        if anew:
            self.end()

    def end(self) -> None:
        """Forget what there is of the cell."""
        shutil.rmtree(self.folder, ignore_errors=True)


def retraining_at(rate: float) -> str:
    """The name of a retraining."""
    return f"retrain-{rate:g}"


KEPT: Final = Kept()
