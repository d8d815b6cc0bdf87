"""Output folders and files: what a failed run leaves behind is nothing."""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxadmm
from onnxadmm import surgery
from onnxadmm.errors import OutputError, VerificationError
from onnxadmm.output import OutputFile, OutputFolder
from onnxadmm.rules import reshaping
from onnxadmm.rules.facts import Axis
from tests.samples_text import load_sample


def _listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_appears_when_it_is_published_with_its_external_data(tmp_path: Path) -> None:
    with OutputFile(tmp_path / "model.onnx") as output:
        output.work.write_bytes(b"model")
        output.work.with_name("model.onnx.data").write_bytes(b"weights")
        assert not (tmp_path / "model.onnx").exists()
        output.publish()
    assert _listing(tmp_path) == {"model.onnx": b"model", "model.onnx.data": b"weights"}


def test_an_unpublished_file_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"old")

    def stop() -> None:
        with OutputFile(tmp_path / "model.onnx") as output:
            output.work.write_bytes(b"new")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stop()
    assert _listing(tmp_path) == {"model.onnx": b"old"}


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="a folder that can be written"):
        OutputFile(tmp_path / "missing" / "model.onnx")


def test_a_folder_of_that_name_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(OutputError, match="the name of a file"):
        OutputFile(tmp_path / "model.onnx", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("force", [False, True])
def test_external_data_of_another_model_are_replaced_only_by_force(tmp_path: Path, force: bool) -> None:
    (tmp_path / "model.onnx.data").write_bytes(b"mine")
    with OutputFile(tmp_path / "model.onnx", force=force) as output:
        output.work.write_bytes(b"model")
        output.work.with_name("model.onnx.data").write_bytes(b"weights")
        if force:
            output.publish()
        else:
            with pytest.raises(OutputError, match="an existing one"):
                output.publish()
    found = {"model.onnx": b"model", "model.onnx.data": b"weights"} if force else {"model.onnx.data": b"mine"}
    assert _listing(tmp_path) == found


def test_an_unpublished_folder_is_gone_with_the_parents_it_made(tmp_path: Path) -> None:
    def stop() -> None:
        with OutputFolder(tmp_path / "a" / "b", force=False) as folder:
            (folder.work / "plan.json").write_text("{}")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stop()
    assert list(tmp_path.iterdir()) == []


def test_publishing_replaces_an_older_result_and_nothing_else(tmp_path: Path) -> None:
    for name in ("model.onnx", "model.onnx.data", "notes.txt"):
        (tmp_path / name).write_text("old")
    with OutputFolder(tmp_path, force=True) as folder:
        (folder.work / "model.onnx").write_text("new")
        folder.publish()
    assert _listing(tmp_path) == {"model.onnx": b"new", "notes.txt": b"old"}


@pytest.mark.slow
def test_a_shrunk_model_that_is_not_proven_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tile_for_repeat(sources: list[tuple[int, Axis]], carrier: int) -> Axis:
        labels = sources[carrier][1]
        assert labels is not None
        return np.tile(labels, int(np.prod([size for size, _ in sources])) // labels.size)

    proto = load_sample("Flatten")
    for tensor in proto.graph.initializer:
        assert numpy_helper.to_array(tensor).size
    source = tmp_path / "source.onnx"
    onnx.save(proto, source)
    monkeypatch.setattr(reshaping, "_spread", tile_for_repeat)
    plan = onnxadmm.rank(source, ratio=0.4)
    with pytest.raises(VerificationError):
        surgery.shrink_to_file(source, plan, tmp_path / "small.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.onnx"]
    size, proof = surgery.shrink_to_file(source, plan, tmp_path / "small.onnx", check=False)
    assert proof is None
    assert size == (tmp_path / "small.onnx").stat().st_size


def test_an_unfinished_run_keeps_its_checkpoint_and_history_apart_from_an_older_result(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_text("old")
    with OutputFolder(tmp_path, force=True) as folder:
        for name in ("checkpoint.npz", "history.jsonl", "model.onnx"):
            (folder.work / name).write_text("new")
    left = {"unfinished/checkpoint.npz": b"new", "unfinished/history.jsonl": b"new"}
    assert _listing(tmp_path) == {"model.onnx": b"old", **left}
    with OutputFolder(tmp_path, force=True, resume=True) as folder:
        folder.begin()
        assert {path.name for path in folder.work.iterdir()} == {"checkpoint.npz", ".lock"}
        (folder.work / "model.onnx").write_text("newer")
        folder.publish()
    assert _listing(tmp_path) == {"model.onnx": b"newer"}


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_that_name_with_other_things_in_it_is_refused(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "novel.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"room for an unfinished run, found novel\.txt"):
        OutputFolder(tmp_path, force=True, resume=resume)
    assert _listing(tmp_path) == {"unfinished/novel.txt": b"mine"}


def test_a_folder_named_like_a_model_is_refused_unless_it_is_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"small\.onnx: expected the name of a folder .* name the folder .*small;"):
        OutputFolder(tmp_path / "small.onnx", force=False)
    assert not list(tmp_path.iterdir())
    (tmp_path / "old.onnx").mkdir()
    with OutputFolder(tmp_path / "old.onnx", force=False):
        assert (tmp_path / "old.onnx" / "unfinished").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no flock")
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_where_another_run_is_at_work_is_refused(tmp_path: Path, resume: bool) -> None:
    with OutputFolder(tmp_path, force=False) as folder:
        folder.checkpoint.write_text("so far")
        with pytest.raises(OutputError, match="no other run is writing to, found one at work"):
            OutputFolder(tmp_path, force=True, resume=resume)
        assert folder.checkpoint.read_text() == "so far"
    with OutputFolder(tmp_path, force=True, resume=resume) as folder:
        assert folder.checkpoint.read_text() == "so far"


def test_what_a_killed_run_without_a_checkpoint_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "history.jsonl").write_text("old")
    (tmp_path / "unfinished" / ".checkpoint.npz.part").write_text("half")
    with OutputFolder(tmp_path, force=False) as folder:
        folder.begin()
        assert [path.name for path in folder.work.iterdir()] == [".lock"]
        (folder.work / "model.onnx").write_text("new")
        folder.publish()
    assert _listing(tmp_path) == {"model.onnx": b"new"}


@pytest.mark.slow
def test_a_plan_through_mixing_operators_is_written_and_says_that_it_is_not_equal(tmp_path: Path) -> None:
    source = tmp_path / "source.onnx"
    onnx.save(load_sample("LRN"), source)
    plan = onnxadmm.rank(source, ratio=0.4, inexact=True)
    assert plan.removed_count > onnxadmm.rank(source, ratio=0.4).removed_count
    _, proof = surgery.shrink_to_file(source, plan, tmp_path / "small.onnx")
    assert proof is not None
    assert not proof.passed
    assert (tmp_path / "small.onnx").stat().st_size > 0
