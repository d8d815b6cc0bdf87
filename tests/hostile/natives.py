"""Native code on mutated models in which no node is known to crash: ``python -m tests.hostile.natives --count 10000``.

Shapes are inferred in this package's own process, and a harmless model is opened and run there. Whatever ends the
process, forked for that, is a defect.
"""

import argparse
import faulthandler
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnxadmm.bench.inputs import random_inputs
from onnxadmm.errors import OnnxAdmmError
from onnxadmm.graph import check
from onnxadmm.graph.harmless import is_harmless
from onnxadmm.graph.model import from_proto, load
from onnxadmm.graph.runtime import open_session
from onnxadmm.graph.shapes import infer
from tests.hostile.mutations import MUTATIONS
from tests.hostile.seeds import seeds

#: What native code may take for granted: the others break a file where it is read.
KINDS = (
    *("change_outputs", "add_inputs", "drop_input", "swap_inputs", "retarget_input", "swap_operators"),
    *("absurd_attribute", "odd_attribute", "drop_attribute", "retype_attribute"),
    *("reshaped_dims", "lying_dims", "lying_shape", "absurd_numbers"),
)
_STRETCH = 200  # mutants of one forked process


@dataclass(frozen=True)
class Crash:
    """A mutant that ended the process.

    Attributes:
        number: of the mutant.
        ending: negative number of the signal.
        what: the model that it was made from, the kinds of mutations, and what was done with it.
    """

    number: int
    ending: int
    what: str


def mutant(number: int, seed: int) -> tuple[str, onnx.ModelProto]:
    """Return a changed model, and what was changed."""
    name, content = seeds()[number % len(seeds())]
    draw = random.Random(seed * 1_000_000_007 + number)
    model = onnx.ModelProto.FromString(content)
    kinds = draw.choices(KINDS, k=draw.choice([1, 1, 2, 2, 3]))
    for kind in kinds:
        try:
            MUTATIONS[kind](draw, model)
        except (ValueError, TypeError):
            continue  # protobuf itself refuses some of it
    return f"{name} {'+'.join(kinds)}", model


def attempt(proto: onnx.ModelProto, stage: Path, title: str) -> None:
    """Infer the shapes of a model; open and run it where it is harmless."""
    real = check._try_onnxruntime
    try:
        check._try_onnxruntime = lambda _: None  # type: ignore[assignment]  # analysis is to meet what it refuses
        stage.write_text(f"{title}: inference")
        with suppress(Exception):  # not at its boundary here
            infer(from_proto(proto))
        check._try_onnxruntime = lambda _: "no"  # type: ignore[assignment]  # what only it takes runs apart
        model = load(proto)
        if is_harmless(model):
            for as_written in (True, False):
                stage.write_text(f"{title}: run, as written {as_written}")
                with open_session(model, as_written=as_written, here=True) as session:
                    session.run(random_inputs(model, batch=1, seed=0))
    except (OnnxAdmmError, MemoryError):
        return
    finally:
        check._try_onnxruntime = real


def crashes(count: int, *, seed: int) -> Iterator[Crash]:
    """Try that many mutants, and yield those that end the process."""
    with tempfile.TemporaryDirectory() as name:
        done, stage = Path(name) / "done", Path(name) / "stage"
        next_one = 0
        while next_one < count:
            child = os.fork()
            if not child:
                _stretch(range(next_one, min(count, next_one + _STRETCH)), seed, done, stage)
            _, status = os.waitpid(child, 0)
            last = int(done.read_text())
            if status:
                yield Crash(last, os.waitstatus_to_exitcode(status), stage.read_text())
            next_one = last + 1


def _stretch(numbers: range, seed: int, done: Path, stage: Path) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    faulthandler.disable()  # pytest's; the crash is told by the parent
    status = 1
    try:
        for number in numbers:
            done.write_text(str(number))
            title, proto = mutant(number, seed)
            attempt(proto, stage, title)
        status = 0
    finally:
        os._exit(status)


def main() -> int:
    """Print what crashes, and end with status 1 if anything does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = 0
    for crash in crashes(given.count, seed=given.seed):
        found += 1
        print(f"number {crash.number}, ending {crash.ending}: {crash.what}", flush=True)
    print(f"{given.count} mutants, {found} ended the process")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
