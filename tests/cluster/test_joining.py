"""Clusters that cannot be joined, and runs that have no use for one, are refused at once and in one sentence."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxadmm.demo import DemoFiles
from tests.conftest import Command

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]


def refused(command: Command, digits: DemoFiles, out: Path, *words: str) -> str:
    """Run ``compress`` with some words; return what it says, having written nothing."""
    begin = time.perf_counter()
    ran = command("compress", digits.model, "--params", "0.5", "--out", out, *words)
    assert ran.status == 2
    assert time.perf_counter() - begin < 20
    assert not out.exists()
    assert len(ran.stderr.strip().splitlines()) <= 3
    return " ".join(ran.stderr.split())


def test_without_ray_it_says_what_to_install(
    command: Command, digits: DemoFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    said = refused(command, digits, tmp_path / "out", "--data", str(digits.training), "--cluster", "local:2")
    assert 'pip install "onnxadmm[ray]"' in said


def test_an_address_where_nobody_answers(command: Command, digits: DemoFiles, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="onnxadmm[ray] runs machines")
    words = ("--data", str(digits.training), "--cluster", "ray://127.0.0.1:9")
    said = refused(command, digits, tmp_path / "out", *words)
    assert "--cluster ray://127.0.0.1:9: expected a Ray cluster that answers, found nobody" in said


def test_what_is_no_cluster(command: Command, digits: DemoFiles, tmp_path: Path) -> None:
    said = refused(command, digits, tmp_path / "out", "--data", str(digits.training), "--cluster", "two")
    assert "expected auto, ray://HOST:PORT or local:N, found 'two'" in said


def test_a_calibration_alone_has_no_use_for_machines(command: Command, digits: DemoFiles, tmp_path: Path) -> None:
    said = refused(command, digits, tmp_path / "out", "--calibrate", str(digits.training), "--cluster", "local:2")
    assert "a calibration, in which nothing trains" in said


def test_ray_is_not_imported_where_no_cluster_is_asked_for() -> None:
    words = (
        "import sys, onnxadmm.compress, onnxadmm.cluster.actors, onnxadmm.run.machines; sys.exit('ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0
