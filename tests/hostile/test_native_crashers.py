"""On whatever model native code crashes, this process lives on, and its user reads one sentence."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxadmm as oa
from onnxadmm.errors import ModelFileError
from onnxadmm.graph.harmless import is_harmless
from onnxadmm.graph.model import load
from onnxadmm.graph.runtime import open_session
from onnxadmm.graph.simplify import simplify
from tests.hostile.crashers import CRASHERS
from tests.hostile.natives import crashes
from tests.processes import run

#: Models that onnxruntime merely refuses, in a sentence of its own.
REFUSED = {"conv_group_0", "conv_transpose_of_huge_groups", "depth_to_space_of_blocks_of_0", "embedding_with_junk_ids"}
#: Models of which this package's own analysis makes nothing, so that only running them is tried.
SHRINKING = ("max_pool_strides_0", "division_by_0", "modulo_0", "roi_align_with_junk_indices")


@pytest.mark.slow
@pytest.mark.parametrize("name", CRASHERS)
def test_bench_ends_in_one_sentence_and_names_the_operator(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(CRASHERS[name](), path)
    done = run("bench", path, path, "--seconds", 0.1)
    told = " ".join(done.stderr.split())
    assert done.returncode == 2, told
    assert told.startswith("Error: ")
    assert told.endswith(".")
    assert "Traceback" not in told
    if name not in REFUSED and "lstm" not in name:
        writers = {node.output[0]: node.op_type for node in onnx.load(path).graph.node}
        assert "a crash of onnxruntime (SIG" in told
        assert f" in {writers.get('q', writers['y'])} (" in told


@pytest.mark.slow
@pytest.mark.parametrize("name", SHRINKING)
def test_shrink_and_verify_end_in_one_sentence(name: str, tmp_path: Path) -> None:
    path, plan, small = tmp_path / "model.onnx", tmp_path / "plan.json", tmp_path / "small.onnx"
    onnx.save(CRASHERS[name](), path)
    assert run("inspect", path).returncode == 0
    assert run("plan", path, "--ratio", 0.3, "-o", plan).returncode == 0
    proven = run("shrink", path, plan, "-o", small)
    assert proven.returncode == 2
    assert "a crash of onnxruntime" in proven.stderr
    assert not small.exists()
    assert run("shrink", path, plan, "-o", small, "--no-verify").returncode == 0
    verified = run("verify", path, small, plan)
    assert verified.returncode == 2
    assert "a crash of onnxruntime" in verified.stderr


@pytest.mark.slow
def test_a_crash_leaves_this_process_and_the_next_session_alone() -> None:
    crasher, other = load(CRASHERS["max_pool_strides_0"]()), load(CRASHERS["max_unpool_with_junk_indices"]())
    feed = {"x": np.ones((1, 4, 8, 8), np.float32)}
    with pytest.raises(ModelFileError, match=r"SIGFPE\) in MaxPool \(y\)"):
        open_session(crasher, as_written=True).run(feed)
    with pytest.raises(ModelFileError, match=r"in MaxUnpool \(y\)"):
        open_session(other, as_written=True).run(feed)


@pytest.mark.parametrize("name", CRASHERS)
def test_no_crasher_is_taken_for_harmless(name: str) -> None:
    assert not is_harmless(load(CRASHERS[name]()))


@pytest.mark.slow
def test_mutated_models_without_a_doubtful_node_do_not_end_the_process(mutants: int) -> None:
    assert list(crashes(mutants, seed=0)) == []


def test_a_mutant_that_ends_the_process_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    crasher = CRASHERS["split_into_more_than_it_says"]()
    monkeypatch.setattr("tests.hostile.natives.mutant", lambda number, _: ("Split", crasher))
    monkeypatch.setattr("tests.hostile.natives.is_harmless", lambda _: True)
    assert {(crash.number, crash.ending) for crash in crashes(2, seed=0)} == {(0, -6), (1, -6)}


@pytest.mark.parametrize("name", CRASHERS)
def test_inspect_survives_what_crashes_onnxruntime(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(CRASHERS[name](), path)
    assert run("inspect", path).returncode == 0


def test_the_checker_does_not_ask_onnxruntime_in_this_process() -> None:
    """A graph without a name fails the checker, so onnxruntime has the last word, which crashes while loading."""
    broken = CRASHERS["max_pool_strides_0"]()
    broken.graph.ClearField("name")
    with pytest.raises(oa.OnnxAdmmError, match="crash of onnxruntime"):
        load(broken)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["division_by_0", "modulo_0", "max_pool_strides_0"])
def test_a_model_that_onnxsim_crashes_on_is_not_simplified(name: str) -> None:
    proto = CRASHERS[name]()
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2  # sizes that are known, and are computed with
    model = load(proto)
    result = simplify(model)
    assert result.model is model
    assert "not simplified" in result.note
    assert "SIGFPE" in result.note


@pytest.mark.slow
def test_a_model_is_simplified_apart_as_in_this_process() -> None:
    proto = CRASHERS["roi_align_with_junk_indices"]()
    proto.graph.node.add(op_type="Identity", input=["y"], output=["z"])
    proto.graph.output[0].name = "z"
    result = simplify(load(proto))
    assert "not simplified" not in result.note
