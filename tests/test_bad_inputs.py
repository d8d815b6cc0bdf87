"""Every bad input: one sentence, its exit status, and the disk as it was."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxadmm.demo import demo_files
from onnxadmm.train import engine
from tests.conftest import Command

Words = tuple[object, ...]


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        make: puts it into a folder and returns the command's words.
        status: exit status it must give.
        says: words the sentence must have.
    """

    make: Callable[[Path], Words]
    status: int
    says: tuple[str, ...]


def _compress(folder: Path, **changes: object) -> Words:
    """A compression of the digits that would work, some of its options changed; ``None`` leaves one out."""
    files = demo_files()
    options: dict[str, object] = {
        "model": files.model,
        "data": files.training,
        "out": folder / "out",
        "params": "0.3",
        "scale": 1 / 16,
        "epochs": 1,
        "retrain-epochs": 1,
        **changes,
    }
    model = options.pop("model")
    pairs = [(f"--{name.replace('_', '-')}", value) for name, value in options.items() if value is not None]
    return ("compress", model, *(word for pair in pairs for word in pair))


def _with_model(write: Callable[[Path], Path]) -> Callable[[Path], Words]:
    return lambda folder: _compress(folder, model=write(folder))


def _with_data(**arrays: object) -> Callable[[Path], Words]:
    def make(folder: Path) -> Words:
        path = folder / "data.npz"
        np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
        return _compress(folder, data=path)

    return make


def _with(**changes: object) -> Callable[[Path], Words]:
    return lambda folder: _compress(folder, **changes)


# -- files ---------------------------------------------------------------------------------------------------


def _text_file(folder: Path) -> Path:
    path = folder / "notes.onnx"
    path.write_text("This is not a model.\n")
    return path


def _truncated(folder: Path) -> Path:
    content = demo_files().model.read_bytes()
    path = folder / "half.onnx"
    path.write_bytes(content[: len(content) // 2])
    return path


def _external(folder: Path, *, location: str) -> Path:
    """The digits' network with its weights in ``weights.data``, which its file then looks for at ``location``."""
    inside = folder / "inside"
    inside.mkdir()
    path = inside / "model.onnx"
    onnx.save(
        onnx.load(demo_files().model), path, save_as_external_data=True, location="weights.data", size_threshold=1024
    )
    (inside / "weights.data").rename(folder / "weights.data")
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(proto.SerializeToString())
    return path


def _locked_everywhere(folder: Path) -> Path:
    """One layer whose channels are the output's: there is nothing that could go."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> one (float[N, 1, 8, 8] image) => (float[N, 10] logits)'
        "{ flat = Flatten (image)  logits = Gemm <transB = 1> (flat, w) }"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((10, 64), np.float32), "w"))
    path = folder / "locked.onnx"
    path.write_bytes(model.SerializeToString())
    return path


# -- folders -------------------------------------------------------------------------------------------------


def _existing_result(folder: Path) -> Words:
    out = folder / "out"
    out.mkdir()
    (out / "model.onnx").write_bytes(b"precious")
    return _compress(folder)


def _file_as_out(folder: Path) -> Words:
    (folder / "out").write_text("a file")
    return _compress(folder)


def _file_as_parent(folder: Path) -> Words:
    (folder / "file").write_text("a file")
    return _compress(folder, out=folder / "file" / "out")


def _plan(folder: Path, *words: object) -> Words:
    return ("plan", demo_files().model, "-o", folder / "plan.json", *words)


def _existing_plan(folder: Path) -> Words:
    (folder / "plan.json").write_text("precious")
    return _plan(folder, "--params", "0.3")


def _plan_into_nowhere(folder: Path) -> Words:
    return ("plan", demo_files().model, "-o", folder / "nowhere" / "plan.json", "--params", "0.3")


def _not_a_plan(folder: Path) -> Words:
    (folder / "plan.json").write_text('{"schema": "something else"}')
    return ("shrink", demo_files().model, folder / "plan.json", "-o", folder / "small.onnx")


def _not_a_report(folder: Path) -> Words:
    (folder / "report.json").write_text("[]")
    return ("report", folder / "report.json")


# -- data ----------------------------------------------------------------------------------------------------

_IMAGES = np.zeros((200, 8, 8), np.uint8)
_LABELS = np.arange(200) % 10
_HOLE = np.zeros((200, 1, 8, 8), np.float32)
_HOLE[17, 0, 3, 3] = np.nan


def _folder_of_nothing(folder: Path) -> Words:
    (folder / "images" / "zero").mkdir(parents=True)
    return _compress(folder, data=folder / "images")


def _pickled(folder: Path) -> Words:
    np.savez(folder / "data.npz", x=_IMAGES, y=np.array([object()] * 200, dtype=object))
    return _compress(folder, data=folder / "data.npz")


def _truncated_data(folder: Path) -> Words:
    (folder / "data.npz").write_bytes(demo_files().training.read_bytes()[:1000])
    return _compress(folder, data=folder / "data.npz")


CASES: dict[str, Case] = {
    "no such model": Case(_with(model="nowhere.onnx"), 2, ("nowhere.onnx", "no such file")),
    "not an ONNX file": Case(_with_model(_text_file), 2, ("notes.onnx", "an ONNX model", "something else")),
    "a truncated file": Case(_with_model(_truncated), 2, ("half.onnx", "a whole ONNX file", "cut off")),
    "external data missing": Case(
        _with_model(lambda folder: _external(folder, location="missing.data")), 2, ("model.onnx", "missing.data")
    ),
    "external data outside of its folder": Case(
        _with_model(lambda folder: _external(folder, location="../weights.data")), 2, ("../weights.data", "folder")
    ),
    "external data at an absolute path": Case(
        _with_model(lambda folder: _external(folder, location=str(folder / "weights.data"))), 2, ("weights.data",)
    ),
    "nothing to prune": Case(_with_model(_locked_everywhere), 3, ("logits",)),
    "wrong input shape": Case(_with_data(x=np.zeros((200, 9, 9), np.uint8), y=_LABELS), 2, ("[1, 8, 8]", "[9, 9]")),
    "wrong input dtype": Case(_with_data(x=np.full((200, 8, 8), "pixel"), y=_LABELS), 2, ("numbers",)),
    "labels of a wrong dtype": Case(_with_data(x=_IMAGES, y=_LABELS + 0.5), 2, ("integer classes", "float64")),
    "labels out of range": Case(_with_data(x=_IMAGES, y=_LABELS + 1), 2, ("0 to 9", "1 to 10")),
    "negative labels": Case(_with_data(x=_IMAGES, y=_LABELS - 1), 2, ("0 to 9", "-1 to 8")),
    "fewer labels than images": Case(_with_data(x=_IMAGES, y=_LABELS[:-1]), 2, ("200", "199")),
    "no labels": Case(_with_data(x=_IMAGES), 2, ("labels", "distillation")),
    "empty data": Case(_with_data(x=_IMAGES[:0], y=_LABELS[:0]), 2, ("at least one sample",)),
    "fewer samples than a batch": Case(_with_data(x=_IMAGES[:20], y=_LABELS[:20]), 2, ("batch", "18")),
    "NaN in data": Case(_with_data(x=_HOLE, y=_LABELS), 2, ("NaN", "sample 17")),
    "pickled data": Case(_pickled, 2, ("pickled",)),
    "truncated data": Case(_truncated_data, 2, ("data.npz", "unreadable")),
    "a folder without images": Case(_folder_of_nothing, 2, ("images", "CLASS")),
    "no such data": Case(_with(data="nowhere.npz"), 2, ("nowhere.npz", "no such file")),
    "no such test data": Case(_with(test="nowhere.npz"), 2, ("nowhere.npz", "no such file")),
    "no budget": Case(_with(params=None), 2, ("--macs", "--params")),
    "two budgets, one below what can be reached": Case(_with(macs="10"), 3, ("--macs 10", "groups that bind it")),
    "a size that is no number of bytes": Case(_with(size="3MM"), 2, ("--size", "3MM", "2MB")),
    "budget 0": Case(_with(params="0"), 2, ("--params", "above zero")),
    "a negative budget": Case(_with(params="-1"), 2, ("--params", "above zero")),
    "a budget that is no number": Case(_with(params="much"), 2, ("--params", "much")),
    "connections above 1": Case(_with(connections=1.5), 2, ("--connections", "1.5")),
    "a budget below what can be reached": Case(_with(params="10"), 3, ("10",)),
    "an unknown layer name": Case(_with(ignore="conv9*"), 2, ("conv9*", "inspect")),
    "an unknown layer name as a target": Case(
        _with(params=None, mode="joint", target="conv9*=0.5"), 2, ("conv9*", "inspect")
    ),
    "a target for one budget": Case(_with(target="conv*=0.5"), 2, ("--target", "--mode joint")),
    "a target without a share": Case(_with(mode="joint", target="conv1"), 2, ("--target", "GLOB=SHARE")),
    "an unknown mode": Case(_with(mode="global"), 2, ("--mode", "joint", "holistic")),
    "an unknown method": Case(_with(method="magic"), 2, ("--method", "auto", "calibrated", "admm", "paper")),
    "an unknown loss": Case(_with(loss="hinge"), 2, ("--loss", "cross-entropy")),
    "a distillation above 1": Case(_with(distillation=2), 2, ("--distillation", "2")),
    "no epochs": Case(_with(epochs=0), 2, ("--epochs", "at least 1")),
    "a learning rate of 0": Case(_with(lr=0), 2, ("--learning-rate", "above 0")),
    "an unknown engine": Case(_with(engine="torch"), 2, ("--engine", "auto, training or plain", "torch")),
    "an unknown precision": Case(_with(precision="fp8"), 2, ("--precision", "float32 or bf16", "fp8")),
    "no workers": Case(_with(workers=0), 2, ("--workers", "at least 1")),
    "no steps of a machine": Case(_with(local_steps=0), 2, ("--local-steps", "at least 1")),
    "steps of a machine without a cluster": Case(_with(local_steps=3), 2, ("--local-steps", "--cluster")),
    "no such cluster": Case(_with(cluster="everywhere"), 2, ("--cluster", "local:N", "everywhere")),
    "workers that are no number": Case(_with(workers="many"), 2, ("--workers", "auto", "many")),
    "no part of a batch": Case(_with(accumulate=0), 2, ("--accumulate", "at least 1")),
    "more parts than samples": Case(_with(workers=3, accumulate=50), 2, ("--workers", "128", "3 workers", "50 parts")),
    "a mean that is no number": Case(_with(mean="grey"), 2, ("--mean", "grey")),
    "a deviation of 0": Case(_with(std=0), 2, ("--std",)),
    "three means for one channel": Case(_with(mean="1,2,3"), 2, ("--mean", "3 numbers")),
    "an unknown augmentation": Case(_with(augment="spin"), 2, ("--augment", "spin")),
    "keep at least -1": Case(_with(keep_at_least=-1), 2, ("--keep-at-least", "at least 0")),
    "a max ratio of 2": Case(_with(max_ratio=2), 2, ("--max-ratio", "2")),
    "round to 0": Case(_with(round_to=0), 2, ("--round-to", "at least 1")),
    "an existing result": Case(_existing_result, 2, ("model.onnx", "--force")),
    "a file as the out folder": Case(_file_as_out, 2, ("a folder", "a file")),
    "an out folder that cannot be made": Case(_file_as_parent, 2, ("a folder",)),
    "an existing plan": Case(_existing_plan, 2, ("plan.json", "--force")),
    "a plan into a missing folder": Case(_plan_into_nowhere, 2, ("plan.json",)),
    "a plan with a budget and a ratio": Case(
        lambda folder: _plan(folder, "--params", "0.3", "--ratio", "0.5"), 2, ("both", "--ratio")
    ),
    "a plan without a budget": Case(_plan, 2, ("neither", "--ratio")),
    "a ratio of 2": Case(lambda folder: _plan(folder, "--ratio", "2"), 2, ("--ratio", "2")),
    "an unknown ranking": Case(
        lambda folder: _plan(folder, "--ratio", "0.5", "--by", "luck"), 2, ("magnitude", "random", "luck")
    ),
    "a plan below what can be reached": Case(lambda folder: _plan(folder, "--macs", "10"), 3, ("10",)),
    "not a plan": Case(_not_a_plan, 2, ("plan.json",)),
    "not a report": Case(_not_a_report, 2, ("report.json",)),
}


def listing(folder: Path) -> dict[str, str]:
    """Every file and folder below a folder, with a digest of what it holds."""

    def entries() -> Iterator[tuple[str, str]]:
        for path in sorted(folder.rglob("*")):
            content = "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
            yield str(path.relative_to(folder)), content

    return dict(entries())


def test_listing_sees_what_changes(tmp_path: Path) -> None:
    empty = listing(tmp_path)
    (tmp_path / "file").write_text("one")
    one = listing(tmp_path)
    (tmp_path / "file").write_text("two")
    two = listing(tmp_path)
    (tmp_path / "folder").mkdir()
    assert len({str(state) for state in (empty, one, two, listing(tmp_path))}) == 4


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gives_one_sentence_its_status_and_leaves_the_disk_as_it_was(
    name: str, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    words = case.make(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = listing(tmp_path)
    ran = command(*words)
    assert ran.status == case.status, ran
    assert listing(tmp_path) == before
    assert ran.stdout == ""
    lines = [line for line in ran.stderr.splitlines() if line]
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("Error: "), ran.stderr
    assert lines[0].endswith("."), ran.stderr
    assert "expected" in lines[0], ran.stderr
    assert "Traceback" not in ran.stderr
    for part in case.says:
        assert part in lines[0], ran.stderr


def test_a_missing_training_engine_is_refused_before_anything_is_written(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "providers", lambda: {"onnxruntime": "1.32.0"})
    ran = command(*_compress(tmp_path), "--engine", "training")
    assert ran.status == 2
    assert listing(tmp_path) == {}
    (line,) = ran.stderr.splitlines()
    assert "onnxruntime 1.32.0 without the training API" in line
    assert "onnxruntime-training-cpu==1.19.2" in line


def test_debug_shows_the_traceback_of_a_refusal(command: Command) -> None:
    ran = command("inspect", "nowhere.onnx", "--debug")
    assert ran.status == 2
    assert "Traceback" in ran.stderr
    assert "no such file" in ran.stderr


@pytest.mark.parametrize(
    "words",
    [(), ("frobnicate",), ("compress",), ("inspect", "a.onnx", "--frobnicate"), ("plan", "a.onnx", "--seed", "x")],
)
def test_wrong_words_give_status_2(words: tuple[str, ...], command: Command) -> None:
    assert command(*words).status == 2


def test_a_defect_gives_status_1_and_no_traceback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("something we did not think of")

    monkeypatch.setattr("onnxadmm.surgery.find_groups", broken)
    ran = command("inspect", "model.onnx")
    assert ran.status == 1
    assert "something we did not think of" in ran.stderr
    assert "Traceback" not in ran.stderr
