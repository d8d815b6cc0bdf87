"""What becomes of a hostile model: the analysing verbs, one after the other, in this process.

No session of onnxruntime is opened: native code may crash, which other tests look into from child processes. What
ONNX's checker refuses counts as taken by onnxruntime, so that analysis meets it nevertheless: that is harder than real
life.
"""

import io
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pytest

from onnxadmm.console import stdout_console
from onnxadmm.errors import OnnxAdmmError
from onnxadmm.graph.model import load, save
from onnxadmm.planning import rank
from onnxadmm.report.inspection import inspect_units, inspection_view
from onnxadmm.surgery import find_groups, mask, shrink
from tests.hostile.mutations import mutate
from tests.hostile.seeds import seeds

#: Seconds of computing that a verb may take with a small file; waiting for a busy machine does not count.
PATIENCE = 30.0


@dataclass(frozen=True)
class Outcome:
    """How a model fared.

    Attributes:
        kind: ``works``; ``locked`` (nothing may shrink); ``refused`` (a sentence with status 2); or ``defect``.
        words: the sentence, or what was raised and where.
    """

    kind: str
    words: str = ""


class HangError(BaseException):
    """It took longer than patience lasts; nothing but the test may catch it."""


def judge(path: Path, out: Path) -> Outcome:
    """Load, inspect, plan, mask, shrink and save a model."""
    step = "load"
    try:
        with _no_sessions(), redirect_stdout(io.StringIO()):
            with _no_longer_than(PATIENCE):
                model = load(path)
            step = "inspect"
            with _no_longer_than(PATIENCE):
                units = find_groups(model)
                stdout_console().print(inspection_view(inspect_units(path.name, units)))
            step = "plan"
            with _no_longer_than(PATIENCE):
                plan = rank(model, ratio=0.3)
            step = "mask"
            with _no_longer_than(PATIENCE):
                save(mask(model, plan), out, force=True)
            step = "shrink"
            with _no_longer_than(PATIENCE):
                save(shrink(model, plan), out, force=True)
    except OnnxAdmmError as error:
        return _sentence(error, step)
    except HangError:
        return Outcome("defect", f"{step}: no end within {PATIENCE:g} s\n{traceback.format_exc(limit=-12)}")
    except Exception:
        return Outcome("defect", f"{step}: {traceback.format_exc()}")
    return Outcome("works")


def _sentence(error: OnnxAdmmError, step: str) -> Outcome:
    kind = {2: "refused", 3: "locked"}.get(error.exit_status)
    text = str(error)
    if kind is None or "\n" in text or not text.endswith(".") or len(text) > 3000:
        return Outcome("defect", f"{step}: {type(error).__name__}: {text}")
    return Outcome(kind, text)


@contextmanager
def _no_sessions() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxadmm.graph.check._try_onnxruntime", lambda _: None)
        yield


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    def ring(_: int, __: FrameType | None) -> None:
        raise HangError

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@dataclass
class Tally:
    """What became of many mutants: how many of each kind, and the defects with what shows each again."""

    counts: Counter[str]
    defects: dict[str, str]


def run_mutants(
    count: int, *, seed: int, folder: Path, told: Callable[[int, str, Outcome], None] = lambda *_: None
) -> Tally:
    """Judge that many mutants; number ``n`` is the same for the same seed, however many there are."""
    tally = Tally(Counter(), {})
    known = seeds()
    for number in range(count):
        name, content = known[number % len(known)]
        mutant, kinds = mutate(content, seed * 1_000_000_007 + number)
        path = folder / "mutant.onnx"
        path.write_bytes(mutant)
        outcome = judge(path, folder / "out.onnx")
        tally.counts[outcome.kind] += 1
        title = f"{name} {kinds} (seed {seed}, number {number})"
        if outcome.kind == "defect":
            tally.defects[title] = outcome.words
        told(number, title, outcome)
    return tally
