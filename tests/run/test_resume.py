"""Interrupted runs: whatever ended them, going on gives what a run without interruption gives."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import CheckpointError, DataError, DivergedError, OptionError, OutputError, VerificationError
from onnxadmm.progress import Iteration, Silent
from onnxadmm.report.reading import read_history
from onnxadmm.rewrite.verify import Verification
from onnxadmm.run import checkpoint, proving
from onnxadmm.run.checkpoint import read_checkpoint
from tests.conftest import Command
from tests.shared import needs_training_build

pytestmark = pytest.mark.usefixtures("quick_latency")

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]
#: Eight iterations in each of three epochs of nine steps, then three epochs of retraining.
RECIPE = oa.Recipe(epochs=3, retrain_epochs=3, batch_size=64)
PRUNE_ROWS = 24
RESULTS = {"model.onnx", "plan.json", "report.json", "report.md", "report.html", "history.jsonl"}


class InterruptedRun(Silent):
    """Ends the run when it tells an iteration."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.sentences: list[str] = []
        self._left = at
        self._error = error

    def iteration(self, row: Iteration) -> None:
        self._left -= 1
        if self._left == 0:
            raise self._error

    def note(self, sentence: str) -> None:
        self.sentences.append(sentence)


Run = Callable[..., oa.Report]


@pytest.fixture(scope="module")
def run(digits: DemoFiles, few_digits: Digits, quick_latency: None) -> Run:
    """A short compression to half of the parameters and of the weights that remain, with augmentation."""

    def compress(out: Path, **changes: object) -> oa.Report:
        options: dict[str, object] = {
            "data": few_digits,
            "budget": oa.Budget(params=0.5, connections=0.5),
            "recipe": RECIPE,
            "preprocessing": oa.Preprocessing(augment="crop1"),
        }
        return oa.compress(digits.model, out=out, **{**options, **changes})  # type: ignore[arg-type]

    return compress


@pytest.fixture(scope="module")
def whole(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without interruption."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(out)
    return out


def names(folder: Path) -> set[str]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def assert_same_result(one: Path, two: Path) -> None:
    for name in ("model.onnx", "plan.json", "history.jsonl"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


def interrupt(run: Run, out: Path, *, at: int, error: BaseException | None = None, **changes: object) -> InterruptedRun:
    """Run until the iteration ``at`` is told, counting those of both trainings."""
    told = InterruptedRun(at, KeyboardInterrupt() if error is None else error)
    with pytest.raises(type(told._error)):
        run(out, progress=told, **changes)
    return told


# -- the law -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "every_state"),
    [
        pytest.param(4, True, id="within an epoch of pruning"),
        pytest.param(9, False, id="at the end of an epoch of pruning"),
        pytest.param(PRUNE_ROWS + 1, False, id="between the trainings"),
        pytest.param(PRUNE_ROWS + 3, True, id="in retraining"),
    ],
)
def test_a_resumed_run_gives_the_same_bytes(
    at: int, every_state: bool, run: Run, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if every_state:
        monkeypatch.setattr(checkpoint, "_SECONDS_BETWEEN", 0.0)
        monkeypatch.setattr(checkpoint, "_SHARE_OF_TIME", 1e9)
    told = interrupt(run, tmp_path, at=at)
    assert names(tmp_path) == {"unfinished/checkpoint.npz", "unfinished/history.jsonl"}
    assert "--resume" in told.sentences[-1]
    header, state = read_checkpoint(tmp_path / "unfinished" / "checkpoint.npz")
    assert len(header.history) == at - 1
    assert ("pruned/keep" in state) == (at > PRUNE_ROWS)
    report = run(tmp_path, resume=True)
    assert names(tmp_path) == RESULTS
    assert_same_result(tmp_path, whole)
    assert report.history == read_history(whole / "history.jsonl")


@pytest.mark.slow
def test_bytes_come_of_a_resumed_run_as_of_a_whole_one_whether_or_not_it_began_with_them(
    run: Run, whole: Path, tmp_path: Path
) -> None:
    run(tmp_path / "whole", int8=True)
    assert_same_result(tmp_path / "whole", whole)
    for name, first, second in (("with", True, True), ("later", False, True), ("without", True, False)):
        interrupt(run, tmp_path / name, at=PRUNE_ROWS + 3, int8=first)
        assert names(tmp_path / name) == {"unfinished/checkpoint.npz", "unfinished/history.jsonl"}
        report = run(tmp_path / name, int8=second, resume=True)
        assert_same_result(tmp_path / name, whole)
        assert names(tmp_path / name) == RESULTS | ({"model.int8.onnx"} if second else set())
        assert len(report.variants) == second
        if second:
            files = [(tmp_path / folder / "model.int8.onnx").read_bytes() for folder in (name, "whole")]
            assert files[0] == files[1]


@pytest.mark.slow
def test_a_run_may_be_interrupted_again_and_again(run: Run, whole: Path, tmp_path: Path) -> None:
    interrupt(run, tmp_path, at=3)
    for at in (7, 16, 2):
        interrupt(run, tmp_path, at=at, resume=True)
    run(tmp_path, resume=True)
    assert_same_result(tmp_path, whole)


@pytest.mark.slow
def test_the_papers_method_resumes_to_the_same_bytes(run: Run, tmp_path: Path) -> None:
    recipe = replace(RECIPE, method="paper", mode="joint", epochs=4, retrain_epochs=1)
    run(tmp_path / "whole", recipe=recipe)
    interrupt(run, tmp_path / "out", at=3, recipe=recipe)
    run(tmp_path / "out", recipe=recipe, resume=True)
    assert_same_result(tmp_path / "out", tmp_path / "whole")


@pytest.mark.slow
def test_a_run_with_gradients_of_our_own_resumes_to_the_same_bytes(run: Run, tmp_path: Path) -> None:
    recipe = replace(RECIPE, engine="plain")
    report = run(tmp_path / "whole", recipe=recipe)
    assert report.options["engine"] == "plain"
    assert report.verification is not None
    assert report.verification.passed
    interrupt(run, tmp_path / "out", at=PRUNE_ROWS + 2, recipe=recipe)
    run(tmp_path / "out", recipe=recipe, resume=True)
    assert_same_result(tmp_path / "out", tmp_path / "whole")


@pytest.mark.slow
@needs_training_build
def test_a_run_may_go_on_with_the_other_engine_and_says_so(run: Run, tmp_path: Path) -> None:
    interrupt(run, tmp_path, at=4)
    report = run(tmp_path, recipe=replace(RECIPE, engine="plain"), resume=True)
    assert report.options["engine"] == "plain"
    assert "Training began with the training engine and went on with the plain one." in report.warnings
    assert len(report.history) == PRUNE_ROWS + 3


@pytest.mark.slow
def test_the_law_notices_a_forgotten_moment(run: Run, whole: Path, tmp_path: Path) -> None:
    interrupt(run, tmp_path, at=PRUNE_ROWS + 3)
    path = tmp_path / "unfinished" / "checkpoint.npz"
    header, state = read_checkpoint(path)
    checkpoint.write_checkpoint(path, header, {**state, "retrain/trainer/steps": np.array(1.0)})
    run(tmp_path, resume=True)
    assert (tmp_path / "history.jsonl").read_bytes() != (whole / "history.jsonl").read_bytes()


@pytest.mark.slow
def test_the_time_of_both_parts_is_in_the_report(run: Run, tmp_path: Path) -> None:
    interrupt(run, tmp_path, at=PRUNE_ROWS + 2)
    header, _ = read_checkpoint(tmp_path / "unfinished" / "checkpoint.npz")
    stages = {stage.name: stage.seconds for stage in run(tmp_path, resume=True).stages}
    assert stages["prune"] == pytest.approx(header.seconds["prune"], abs=0.5)
    assert stages["retrain"] > header.seconds["retrain"] > 0


# -- whatever ends it ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        DivergedError("iteration 6", expected="a finite loss", found="nan", way_out="lower it"),
        SystemExit(143),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_leaves_the_state_before_it(error: BaseException, run: Run, tmp_path: Path) -> None:
    told = interrupt(run, tmp_path, at=6, error=error)
    assert error.__traceback__ is not None  # which holds every frame, and would keep an open stream alive
    assert "batches-ahead" not in {thread.name for thread in threading.enumerate()}
    assert ("last good state" in told.sentences[-1]) == isinstance(error, DivergedError)
    assert ("--resume" in told.sentences[-1]) != isinstance(error, DivergedError)
    header, state = read_checkpoint(tmp_path / "unfinished" / "checkpoint.npz")
    assert len(header.history) == len(state["prune/solver/history"]) == 5
    assert len(read_history(tmp_path / "unfinished" / "history.jsonl")) == 6


@pytest.mark.slow
def test_a_cut_that_fails_its_proof_leaves_the_network_and_does_not_promise_to_go_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = proving.prove

    def failed(*given: object, **named: object) -> Verification:
        return replace(honest(*given, **named), passed=False, first_difference="output y: differs")  # type: ignore[arg-type]

    monkeypatch.setattr(proving, "prove", failed)
    progress = InterruptedRun(10**6, RuntimeError())
    with pytest.raises(VerificationError):
        run(tmp_path / "out", progress=progress)
    assert names(tmp_path / "out") == {"unfinished/checkpoint.npz", "unfinished/history.jsonl"}
    assert "the trained network, before it was cut" in progress.sentences[-1]
    assert "--resume" not in progress.sentences[-1]


@pytest.mark.slow
def test_nothing_is_left_of_a_run_that_ended_before_its_first_iteration(run: Run, tmp_path: Path) -> None:
    interrupt(run, tmp_path / "out", at=1)
    assert list(tmp_path.iterdir()) == []


def words(digits: DemoFiles, out: Path) -> list[str]:
    """A short compression on the command line."""
    data = ["--data", str(digits.training), "--params", "0.5", "--epochs", "2", "--retrain-epochs", "1"]
    return ["compress", str(digits.model), *data, "--out", str(out)]


def start(digits: DemoFiles, out: Path) -> "subprocess.Popen[str]":
    """The command in a process of its own, which writes a checkpoint after every iteration."""
    patch = "from onnxadmm.run import checkpoint; checkpoint._SECONDS_BETWEEN = 0; checkpoint._SHARE_OF_TIME = 1e9"
    program = f"import sys; {patch}; from onnxadmm.cli import main; sys.exit(main({words(digits, out)!r}))"
    return subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )


def wait_for_history(process: "subprocess.Popen[str]", out: Path, rows: int) -> None:
    deadline = time.monotonic() + 120
    path = out / "unfinished" / "checkpoint.npz"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"the run ended before its time: {process.communicate()[1]}")
        if path.exists() and len(read_checkpoint(path)[0].history) >= rows:
            return
        time.sleep(0.02)
    pytest.fail("no checkpoint")


@pytest.mark.slow
def test_a_killed_process_is_resumed_by_the_command(digits: DemoFiles, tmp_path: Path, command: Command) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = start(digits, killed)
    wait_for_history(process, killed, 3)
    process.kill()
    process.communicate()
    assert all(name.startswith("unfinished/") for name in names(killed))
    for ran in (command(*words(digits, killed), "--resume"), command(*words(digits, whole))):
        assert ran.status == 0, ran.stderr
    assert names(killed) == names(whole) == RESULTS
    assert_same_result(killed, whole)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a process could handle")
def test_a_terminated_process_says_where_the_run_is(digits: DemoFiles, tmp_path: Path) -> None:
    process = start(digits, tmp_path)
    wait_for_history(process, tmp_path, 3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "--resume" in errors
    assert names(tmp_path) == {"unfinished/checkpoint.npz", "unfinished/history.jsonl"}


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted after two iterations; tests do not change it."""
    out = tmp_path_factory.mktemp("interrupted")
    interrupt(run, out, at=3)
    return out


@pytest.mark.parametrize(
    ("option", "changes"),
    [
        ("--params", {"budget": oa.Budget(params=0.4, connections=0.5)}),
        ("--connections", {"budget": oa.Budget(params=0.5)}),
        ("--learning-rate", {"recipe": replace(RECIPE, learning_rate=1e-4)}),
        ("--retrain-epochs", {"recipe": replace(RECIPE, retrain_epochs=4)}),
        ("--distillation", {"recipe": replace(RECIPE, distillation=0.5)}),
        ("--norm", {"recipe": replace(RECIPE, accumulate=8)}),
        ("--augment", {"preprocessing": oa.Preprocessing(augment="")}),
        ("--mean", {"preprocessing": oa.Preprocessing(mean=[0.1], augment="crop1")}),
        ("--keep-at-least", {"limits": oa.Limits(keep_at_least=2)}),
        ("--ignore", {"ignore": ["conv1*"]}),
        ("--seed", {"seed": 1}),
        ("--simplify", {"simplified": False}),
        ("--features", {"features": True}),
    ],
)
def test_another_option_is_refused_by_its_name(
    option: str, changes: Mapping[str, object], run: Run, interrupted: Path
) -> None:
    before = {name: (interrupted / name).read_bytes() for name in names(interrupted)}
    with pytest.raises(CheckpointError, match=f"^{option}: expected .*, as in the interrupted run, found"):
        run(interrupted, resume=True, **changes)
    assert {name: (interrupted / name).read_bytes() for name in names(interrupted)} == before


def test_other_data_are_refused(run: Run, interrupted: Path, few_digits: Digits) -> None:
    images, labels = few_digits
    changed = images.copy()
    changed[17, 0, 3, 3] += 1e-3
    with pytest.raises(CheckpointError, match=r"^--data: expected the data with digest"):
        run(interrupted, resume=True, data=(changed, labels))
    with pytest.raises(CheckpointError, match="--data"):
        run(interrupted, resume=True, data=(images[:-1], labels[:-1]))
    with pytest.raises(DataError):
        run(interrupted, resume=True, data=iter([]))
    assert names(interrupted) == {"unfinished/checkpoint.npz", "unfinished/history.jsonl"}


def test_another_model_is_refused(digits: DemoFiles, few_digits: Digits, interrupted: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(digits.model.read_bytes() + b"\x82\x01\x00")  # an empty field that ONNX does not know
    with pytest.raises(CheckpointError, match="the model: expected the one with sha256"):
        oa.compress(other, data=few_digits, budget=oa.Budget(params=0.5), out=interrupted, resume=True)


def damaged(name: str, content: bytes) -> bytes:
    if name == "empty":
        return b""
    if name == "truncated":
        return content[: len(content) // 2]
    if name == "without its end":
        return content[:-5]
    if name == "text":
        return b"not a checkpoint"
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("kind", ["empty", "truncated", "without its end", "text", "one bit"])
def test_a_damaged_checkpoint_is_refused_and_kept(kind: str, run: Run, interrupted: Path, tmp_path: Path) -> None:
    path = tmp_path / "unfinished" / "checkpoint.npz"
    path.parent.mkdir()
    content = damaged(kind, (interrupted / "unfinished" / "checkpoint.npz").read_bytes())
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=rf"checkpoint.npz: expected a checkpoint of schema {checkpoint.SCHEMA}, found a damaged"
    ):
        run(tmp_path, resume=True)
    assert path.read_bytes() == content


def test_an_archive_of_something_else_is_refused(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "unfinished" / "checkpoint.npz"
    path.parent.mkdir()
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(CheckpointError, match="an archive of something else"):
        run(tmp_path, resume=True)
    np.savez(path, header=np.frombuffer(b'{"schema": "onnxadmm.checkpoint/99"}', np.uint8))
    with pytest.raises(CheckpointError, match=r"found the schema .onnxadmm\.checkpoint/99"):
        run(tmp_path, resume=True)
    np.savez(path, header=np.array([{"pickled": 1}], dtype=object))
    with pytest.raises(CheckpointError, match="damaged"):
        run(tmp_path, resume=True)


def test_nothing_to_resume_is_refused(run: Run, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="an unfinished run to resume, found none"):
        run(tmp_path / "new", resume=True)
    with pytest.raises(OutputError, match="found a finished one"):
        run(whole, resume=True)
    with pytest.raises(OptionError, match="an out folder"):
        run(None, resume=True)  # type: ignore[arg-type]
    assert names(whole) == RESULTS
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_unfinished_run_is_replaced_only_by_force(run: Run, whole: Path, tmp_path: Path) -> None:
    interrupt(run, tmp_path, at=3)
    with pytest.raises(OutputError, match="continue it with --resume, or begin again with --force"):
        run(tmp_path)
    with pytest.raises(DataError):
        run(tmp_path, force=True, data=iter([]))
    assert names(tmp_path) == {"unfinished/checkpoint.npz", "unfinished/history.jsonl"}, "nothing had begun"
    run(tmp_path, force=True)
    assert_same_result(tmp_path, whole)


@pytest.mark.slow
def test_an_older_result_stays_until_the_resumed_run_is_complete(run: Run, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("old")
    interrupt(run, tmp_path, at=3, force=True)
    assert (tmp_path / "model.onnx").read_text() == "old"
    with pytest.raises(OutputError, match=r"a folder without a result, found model\.onnx"):
        run(tmp_path, resume=True)
    run(tmp_path, resume=True, force=True)
    assert names(tmp_path) == RESULTS
    assert_same_result(tmp_path, whole)


def test_the_command_refuses_with_status_2(digits: DemoFiles, interrupted: Path, command: Command) -> None:
    ran = command(
        *("compress", digits.model, "--data", digits.training, "--params", "0.4", "--out", interrupted, "--resume")
    )
    assert ran.status == 2
    assert ran.stdout == ""
    assert len(ran.stderr.splitlines()) == 1
