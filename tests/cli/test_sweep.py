"""``sweep`` and ``pick``."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from tests.conftest import Command

Samples = tuple[NDArray[np.float32], NDArray[np.int64]]

pytestmark = [pytest.mark.usefixtures("quick_latency")]


@pytest.mark.slow
def test_the_command_line_sweeps_and_picks(
    digits: DemoFiles, few_digits: Samples, command: Command, tmp_path: Path
) -> None:
    np.savez(tmp_path / "samples.npz", images=few_digits[0], labels=few_digits[1])
    words = (
        "--calibrate",
        tmp_path / "samples.npz",
        "--effort",
        "quick",
        "--no-bench",
        "--round-to",
        "1",
        "--jobs",
        "2",
    )
    out = tmp_path / "several sweeps"
    ran = command("sweep", digits.model, *words, "--params", "0.6, 0.3", "--macs", "0.9", "--out", out)
    assert ran.status == 0, ran.stderr
    assert "original" in ran.stdout
    assert "--params" in ran.stdout
    assert f"`onnxadmm pick '{out}' --max-drop 1` chooses one" in ran.stdout
    document = json.loads((out / "sweep.json").read_text())
    assert [point["asked"] for point in document["points"]] == ["0.6", "0.3"]
    assert document["command"].startswith("onnxadmm sweep ")
    assert "--params 0.6,0.3" in document["command"]
    assert all(point["macs"] <= 0.9 * document["original"]["macs"] for point in document["points"])
    ran = command("pick", out, "--max-drop", "50", "-o", tmp_path / "small.onnx")
    assert ran.status == 0, ran.stderr
    assert "--params 0.3" in ran.stdout
    assert oa.load(tmp_path / "small.onnx").file_bytes < oa.load(digits.model).file_bytes
    assert command("pick", out, "--max-drop", "50", "-o", tmp_path / "small.onnx").status == 2
    for name in ("sweep.json", "sweep.csv", "report.html", "params-0.6/model.onnx", "params-0.6/report.json"):
        before = (out / name).read_bytes()
        ran = command("pick", out, "--max-drop", "50", "-o", out / name, "--force")
        assert ran.status == 2
        assert "expected an output that is no input" in ran.stderr
        assert (out / name).read_bytes() == before
    shown = command("report", out)
    assert shown.status == 0
    assert "original" in shown.stdout
    assert json.loads(command("report", out / "sweep.json", "--json").stdout) == document
    assert command("report", out, "--html", tmp_path / "page.html").status == 0
    assert (tmp_path / "page.html").read_text() == (out / "report.html").read_text()
    assert command("report", out, "--html", out / "sweep.json", "--force").status == 2
    ran = command("sweep", digits.model, *words, "--params", "0.6,0.3", "--out", out)
    assert ran.status == 2
    assert "--force" in ran.stderr
    ran = command("sweep", digits.model, *words, "--params", "0.6", "--out", tmp_path / "other")
    assert ran.status == 2
    assert "several amounts of one kind" in ran.stderr
