"""``compress``, as it is used."""

import shlex
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxadmm.demo import DemoFiles
from onnxadmm.report.reading import read_report
from tests.cli.conftest import TRAINING, accuracy_of, one_document
from tests.conftest import Command


def test_compress_leaves_the_files_it_promises(digits: DemoFiles, compressed: Path) -> None:
    names = {path.name for path in compressed.iterdir()}
    assert names == {"model.onnx", "plan.json", "report.json", "report.md", "report.html", "history.jsonl"}
    report = read_report(compressed / "report.json")
    assert report.after.parameters <= 0.3 * report.before.parameters
    assert report.after.file_bytes == (compressed / "model.onnx").stat().st_size
    assert report.after.test is not None
    assert report.after.test.value == pytest.approx(accuracy_of(compressed / "model.onnx", digits.test))
    assert report.options["params"] == "0.3"
    assert report.options["epochs"] == 3
    assert f"--out {shlex.quote(str(compressed))} --params 0.3" in report.command
    assert sum(line.macs_before for line in report.layers) == report.before.macs
    assert sum(line.parameters_after or 0 for line in report.layers) == report.after.parameters
    assert report.profile is not None
    assert all(line.ms_before for line in report.layers)
    assert [group.feeds for group in report.groups][:2] == [("conv2_weight",), ("conv3_weight",)]


@pytest.mark.slow
def test_a_run_ends_with_where_its_files_are_and_what_to_do_next(
    digits: DemoFiles, tmp_path: Path, command: Command
) -> None:
    out = tmp_path / "out"
    words = ("--params", "30%", "--max-ratio", "95%", "--out", out, *TRAINING, "--no-bench", "--quiet")
    ran = command("compress", digits.model, "--data", digits.training, *words)
    assert ran.status == 0
    assert ran.stderr == ""
    assert "ms at batch" not in ran.stdout
    told, _, code = ran.stdout.partition(" Any onnxruntime runs the model:\n\n")
    page, files = told.splitlines()[-2:]
    assert page == f"The report as a page: {out / 'report.html'}"
    assert files == f"In {out}: model.onnx, report.html, report.md, report.json, plan.json, history.jsonl."
    assert len(code.splitlines()) == 3
    given = {"image": np.zeros((2, 1, 8, 8), dtype=np.float32)}
    names: dict[str, Any] = dict(given)
    exec(textwrap.dedent(code), names)
    assert names["outputs"][0].shape == (2, 10)
    report = read_report(out)
    assert report.options["params"] == "30%"
    assert report.options["bench"] is False
    assert report.budgets[0].limit == pytest.approx(0.3 * report.before.parameters)


@pytest.mark.slow
def test_compress_times_as_it_is_told(digits: DemoFiles, tmp_path: Path, command: Command, quick_latency: None) -> None:
    words = ("--params", "30%", "--out", tmp_path / "out", *TRAINING, "--bench-batch", 8, "--bench-threads", 1)
    assert command("compress", digits.model, "--data", digits.training, *words).status == 0
    assert [(line.batch, line.threads) for line in read_report(tmp_path / "out").latency] == [(1, 1), (8, 1)]


@pytest.mark.parametrize("option", ["--bench-batch", "--bench-threads"])
def test_a_timing_that_cannot_be_is_refused_before_the_run(
    option: str, digits: DemoFiles, tmp_path: Path, command: Command
) -> None:
    words = ("--data", digits.training, "--params", "30%", "--out", tmp_path / "out", option, "0")
    ran = command("compress", digits.model, *words)
    assert ran.status == 2
    assert f"{option}: expected at least 1" in ran.stderr


@pytest.mark.slow
def test_compress_prints_nothing_but_json(
    digits: DemoFiles, tmp_path: Path, command: Command, quick_latency: None
) -> None:
    words = ("--params", "0.3", "--out", tmp_path / "out", *TRAINING, "--json")
    ran = command("compress", digits.model, "--data", digits.training, *words)
    assert ran.status == 0
    assert one_document(ran.stdout)["schema"] == "onnxadmm.report/2"
    assert "held-out" in ran.stderr


@pytest.mark.slow
def test_same_seed_gives_the_same_plan_byte_for_byte_when_it_is_trained(
    digits: DemoFiles, compressed: Path, tmp_path: Path, command: Command, quick_latency: None
) -> None:
    data = ("--data", digits.training, "--params", "0.3", *TRAINING)
    plan = (compressed / "plan.json").read_bytes()
    assert command("compress", digits.model, *data, "--out", tmp_path / "again").status == 0
    assert (tmp_path / "again" / "plan.json").read_bytes() == plan
    assert command("compress", digits.model, *data, "--out", tmp_path / "other", "--seed", 1).status == 0
    assert (tmp_path / "other" / "plan.json").read_bytes() != plan


@pytest.mark.slow
def test_force_replaces_a_result_and_leaves_other_files_alone(
    digits: DemoFiles, tmp_path: Path, command: Command, quick_latency: None
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_text("old")
    (out / "notes.txt").write_text("mine")
    words = ("compress", digits.model, "--data", digits.training, "--params", "0.3", "--out", out, *TRAINING)
    assert command(*words).status == 2
    assert command(*words, "--force").status == 0
    onnx.checker.check_model(onnx.load(out / "model.onnx"))
    assert (out / "notes.txt").read_text() == "mine"
