"""Whole runs that are killed at random moments and taken up again: ``python -m tests.hostile.runs --count 100``.

Each run is a fork of this process that is ended by SIGKILL at a random moment; the next call, with ``--resume`` where
there is a checkpoint, has to end with the files of a run that nobody has killed, and with nothing beside them.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnxsim  # noqa: F401  # once, so that no fork spends half of its time on it

from onnxadmm.bench.latency import measure_latency
from onnxadmm.cli import main as command
from onnxadmm.demo import demo_files
from onnxadmm.run import checkpoint, measure, trying
from onnxadmm.train.preflight.preflight import Preflight

RESULTS = {"model.onnx", "plan.json", "report.json", "report.md", "report.html", "history.jsonl"}
_SAME = ("model.onnx", "plan.json", "history.jsonl")


def _words(folder: Path, out: Path) -> list[str]:
    options = ["--params", "0.5", "--epochs", "1", "--retrain-epochs", "1", "--batch-size", "64", "--workers", "1"]
    return ["compress", str(demo_files().model), "--data", str(folder / "data.npz"), "--out", str(out), *options]


def _start(words: list[str]) -> int:
    """Fork a run that writes a checkpoint after every iteration; its process identifier."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        checkpoint._SECONDS_BETWEEN, checkpoint._SHARE_OF_TIME = 0.0, 1e9  # type: ignore[misc]
        # Neither is what is tested here, and both take most of the time.
        trying.preflight = lambda *_, **__: Preflight(0.0, (), (), {}, 0.0)  # type: ignore[assignment]
        measure.measure_latency = partial(measure_latency, seconds=0.01)  # type: ignore[assignment]
        status = command(words)
    finally:
        os._exit(status)


def _finish(words: list[str]) -> int:
    _, status = os.waitpid(_start(words), 0)
    return os.waitstatus_to_exitcode(status)


def _found(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def kill_and_resume(folder: Path, whole: Path, out: Path, *, after: float, twice: float | None) -> str:
    """Kill a run after some seconds, maybe the next one too, and go on: what is wrong then, or nothing."""
    for seconds in (after, twice):
        if seconds is None:
            continue
        resume = ["--resume"] if (out / "unfinished" / "checkpoint.npz").exists() else []
        force = ["--force"] if (out / "model.onnx").exists() else []
        child = _start([*_words(folder, out), *resume, *force])
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    left = _found(out) if out.exists() else set()
    way = ["--resume", "--force"] if (out / "unfinished" / "checkpoint.npz").exists() else ["--force"]
    status = _finish([*_words(folder, out), *way])
    if status:
        return f"status {status} from {way}, after {sorted(left)}"
    if _found(out) != RESULTS:
        return f"{sorted(_found(out))}, after {sorted(left)}"
    different = [name for name in _SAME if (out / name).read_bytes() != (whole / name).read_bytes()]
    return f"other {different}, after {sorted(left)}" if different else ""


def main() -> int:
    """Kill that many runs, print what went wrong, and end with status 1 if anything did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with np.load(demo_files().training) as archive:
            np.savez(folder / "data.npz", images=archive["images"][:256], labels=archive["labels"][:256])
        began = time.monotonic()
        status = _finish(_words(folder, folder / "whole"))
        lasts = time.monotonic() - began
        if status:
            print(f"the run itself ends with status {status}")
            return 1
        for number in range(given.count):
            after, twice = draw.uniform(0.0, lasts), draw.choice([None, draw.uniform(0.0, lasts)])
            fault = kill_and_resume(folder, folder / "whole", folder / f"out{number}", after=after, twice=twice)
            if fault:
                wrong += 1
                print(f"number {number}, killed after {after:.2f} and {twice} of {lasts:.2f} s: {fault}", flush=True)
    print(f"{given.count} runs killed, {wrong} not taken up as they should")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
