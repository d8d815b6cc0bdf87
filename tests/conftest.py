"""What several rooms' tests share: the embedded digits, cut down, and commands run in this process."""

import contextlib
import io
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxadmm.bench.latency import measure_latency
from onnxadmm.bench.profile import profile_nodes
from onnxadmm.cli import main
from onnxadmm.demo import DemoFiles, demo_files
from onnxadmm.graph.model import Model, to_proto
from onnxadmm.operators import outside, table
from onnxadmm.runtime.custom_ops import paths_in_use
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.preflight.preflight import Preflight, preflight
from tests.processes import call
from tests.shared import SCALE2, compiled


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--networks", type=int, default=420, help="random networks of all operators that are pruned")
    parser.addoption("--mutants", type=int, default=500, help="mutated models that are analysed")
    parser.addoption("--kills", type=int, default=10, help="whole runs that are killed at a random moment")
    parser.addoption("--cases", type=int, help="of each test at most so many of its cases, evenly chosen")


def pytest_configure() -> None:
    """Signals are as a terminal leaves them: what starts tests in the background has its children ignore them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out cases of tests that have many, if that is asked for."""
    most = config.getoption("--cases")
    if most is None:
        return
    tests: dict[str, list[pytest.Item]] = {}
    for item in items:
        tests.setdefault(item.nodeid.partition("[")[0], []).append(item)
    chosen = {id(item) for cases in tests.values() for item in evenly(cases, most)}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in chosen])
    items[:] = [item for item in items if id(item) in chosen]


T = TypeVar("T")


def evenly(cases: Sequence[T], most: int) -> list[T]:
    """At most so many of the cases, the first one and others at equal distances."""
    count = min(len(cases), most)
    return [cases[number * len(cases) // count] for number in range(count)]


@pytest.fixture
def networks(request: pytest.FixtureRequest) -> int:
    """How many random networks of all operators are pruned."""
    return int(request.config.getoption("--networks"))


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How many whole runs are killed."""
    return int(request.config.getoption("--kills"))


@pytest.fixture
def mutants(request: pytest.FixtureRequest) -> int:
    """How many mutated models are analysed."""
    return int(request.config.getoption("--mutants"))


@dataclass(frozen=True)
class Ran:
    """What a command did: its exit status, and what it wrote to stdout and stderr."""

    status: int
    stdout: str
    stderr: str


Command = Callable[..., Ran]


def run_command(*words: object) -> Ran:
    """Run ``onnxadmm`` with some words in this process."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        status = main([str(word) for word in words])
    return Ran(status, stdout.getvalue(), stderr.getvalue())


@pytest.fixture
def command() -> Command:
    """Run ``onnxadmm`` with some words in this process."""
    return run_command


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runs measure is kept in a folder of the tests, also by their child processes, and not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@contextlib.contextmanager
def timing_briefly() -> Iterator[None]:
    """Time models as briefly as can be in the report of a run: how long they take is not tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxadmm.run.measure.measure_latency", partial(measure_latency, seconds=0.02))
        patch.setattr("onnxadmm.run.measure.profile_nodes", partial(profile_nodes, seconds=0.02))
        yield


@pytest.fixture(scope="module")
def quick_latency() -> Iterator[None]:
    """Time models briefly in all tests of a file."""
    with timing_briefly():
        yield


def _preflight_in_a_fork(folder: Path, order: Mapping[str, object], timeout: float) -> int | None:
    """Run the child of a preflight as ``preflight._run`` does, in a process that need not import anything."""
    from onnxadmm.train.preflight.child import main as child

    (folder / "order.json").write_text(json.dumps(order))
    try:
        ended = call(child, folder, timeout=timeout)
    except TimeoutError:
        return None
    (folder / "stderr.txt").write_text(ended.stdout + ended.stderr)
    return ended.returncode


@pytest.fixture(scope="session", autouse=True)
def _one_preflight() -> Iterator[None]:
    """A child process tries out every model and loss once, not for each run that trains it."""
    found: dict[object, Preflight] = {}

    def once(model: Model, *, batch: Batch, **named: object) -> Preflight:
        shapes = {name: array.shape[1:] for name, array in batch.inputs.items()}
        content = to_proto(model).SerializeToString(deterministic=True)
        key = (content, repr((shapes, batch.labels is None, sorted(named.items()), outside.sources(), paths_in_use())))
        if key not in found:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("onnxadmm.train.preflight.preflight._run", _preflight_in_a_fork)
                found[key] = preflight(model, batch=batch, **named)  # type: ignore[arg-type]  # as the run gives them
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxadmm.run.trying.preflight", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _short_rehearsal() -> Iterator[None]:
    """Before a run a few steps are timed, and no more: how long they take is not tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxadmm.run.rehearsal._SECONDS", (0.0, 0.0))
        yield


@pytest.fixture(scope="session")
def scale2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of the custom operator com.example::Scale2, y = 2 x."""
    return compiled(SCALE2.read_text(), tmp_path_factory.mktemp("scale2") / "libscale2.so")


@pytest.fixture(scope="session")
def digits() -> DemoFiles:
    """The embedded network and data."""
    return demo_files()


@pytest.fixture(scope="session")
def few_digits(digits: DemoFiles) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The first 640 training images as the network reads them, float32 ``[640, 1, 8, 8]`` from 0 to 1, and labels."""
    with np.load(digits.training) as archive:
        images, labels = archive["images"][:640], archive["labels"][:640]
    return (images[:, None] / np.float32(16)).astype(np.float32), labels.astype(np.int64)


@pytest.fixture
def restored_table() -> Iterator[None]:
    """Whatever a test declares or plants in the table of operators is gone after it."""
    kept = {(entry.domain, entry.name): entry for entry in table.operators()}
    known, loaded = dict(outside._sources), set(outside._loaded)
    yield
    table._TABLE.clear()
    table._TABLE.update(kept)
    outside._sources.clear()
    outside._sources.update(known)
    outside._loaded.clear()
    outside._loaded.update(loaded)
