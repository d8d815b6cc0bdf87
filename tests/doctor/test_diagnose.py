"""The doctor: real here, and on faked installations that are broken in known ways."""

import base64
import hashlib
import importlib.metadata
import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import Distribution
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from onnxadmm.bench.versions import package_versions
from onnxadmm.doctor import child as trial_room
from onnxadmm.doctor.diagnose import (
    Diagnosis,
    Finding,
    TrainingTrial,
    diagnose,
    diagnosis_view,
    find_providers,
    to_document,
    training_wheels_exist,
    try_training,
)
from onnxadmm.train import engine
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.trainer import OrtTrainer
from tests.shared import ENGINES

WORKS = TrainingTrial("1.19.2", True, "works")
WITHOUT = TrainingTrial("1.19.2", False, "no training API")
CORE = {
    "onnxruntime/__init__.py": b"version = 1",
    "onnxruntime/capi/_pybind_state.py": b"import state",
    "onnxruntime/capi/onnxruntime_pybind11_state.so": b"\x7fELF one",
    "onnxruntime/tools/helper.py": b"nobody minds",
}
PACKAGES = ("onnxadmm", "jinja2", "numpy", "onnx", "onnx-ir", "onnxsim", "pillow", "platformdirs", "rich", "typer")


def install(site: Path, name: str, version: str, files: dict[str, bytes]) -> None:
    """Lay down files and their RECORD as pip does; what is there already is overwritten, as pip does too."""
    record = []
    for path, content in files.items():
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(content)}")
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("\n".join([*record, f"{info.name}/METADATA,,", f"{info.name}/RECORD,,"]) + "\n")


def installed(site: Path) -> Callable[[], Iterable[Distribution]]:
    return lambda: importlib.metadata.distributions(path=[str(site)])


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An installation with every package but onnxruntime."""
    for name in PACKAGES:
        install(tmp_path, name, "1.0", {})
    return tmp_path


def examine(site: Path, trial: TrainingTrial = WORKS) -> Diagnosis:
    return diagnose(distributions=installed(site), trial=lambda: trial)


def finding(diagnosis: Diagnosis, name: str) -> Finding:
    (found,) = (item for item in diagnosis.findings if item.name == name)
    return found


def test_a_sound_installation_is_ok(site: Path) -> None:
    install(site, "onnxruntime-training-cpu", "1.19.2", CORE)
    diagnosis = examine(site)
    assert diagnosis.ok
    assert {item.status for item in diagnosis.findings} == {"ok"}
    assert [provider.name for provider in diagnosis.providers] == ["onnxruntime-training-cpu"]
    assert diagnosis.versions["onnx-ir"] == "1.0"
    assert diagnosis.versions["onnxruntime"] == "1.19.2"


def test_two_providers_are_told_and_how_to_undo_it(site: Path) -> None:
    install(site, "onnxruntime-training-cpu", "1.19.2", CORE)
    install(site, "onnxruntime", "1.22.0", CORE)
    diagnosis = examine(site)
    assert not diagnosis.ok
    said = finding(diagnosis, "onnxruntime")
    assert said.found == (
        "2 distributions overwrite each other's files: onnxruntime 1.22.0, onnxruntime-training-cpu 1.19.2"
    )
    assert said.way_out is not None
    assert said.way_out.startswith(
        "pip uninstall -y onnxruntime onnxruntime-training-cpu, then pip install onnxruntime"
    )


def test_files_overwritten_by_another_provider_are_told(site: Path) -> None:
    install(site, "onnxruntime-training-cpu", "1.19.2", CORE)
    install(site, "onnxruntime-gpu", "1.22.0", CORE | {"onnxruntime/__init__.py": b"version = 2"})
    old, new = (provider for provider in find_providers(installed(site)()) if provider.name)
    assert (old.name, old.damaged) == ("onnxruntime-gpu", ())
    assert (new.name, new.damaged) == ("onnxruntime-training-cpu", ("onnxruntime/__init__.py",))


def test_a_provider_whose_files_another_one_took_along_is_damaged(site: Path) -> None:
    install(site, "onnxruntime-training-cpu", "1.19.2", CORE)
    (site / "onnxruntime/capi/onnxruntime_pybind11_state.so").unlink()
    (site / "onnxruntime/capi/_pybind_state.py").write_bytes(b"import other")
    diagnosis = examine(site)
    said = finding(diagnosis, "installed files")
    assert said.found == (
        "2 files not as onnxruntime-training-cpu 1.19.2 installed them: onnxruntime/capi/_pybind_state.py, "
        "onnxruntime/capi/onnxruntime_pybind11_state.so"
    )
    assert not diagnosis.ok


def test_a_change_of_the_same_length_is_seen(site: Path) -> None:
    install(site, "onnxruntime", "1.22.0", CORE)
    (site / "onnxruntime/__init__.py").write_bytes(b"version = 9")
    assert find_providers(installed(site)())[0].damaged == ("onnxruntime/__init__.py",)


def test_files_beside_the_core_may_change(site: Path) -> None:
    install(site, "onnxruntime", "1.22.0", CORE)
    (site / "onnxruntime/tools/helper.py").unlink()
    assert find_providers(installed(site)())[0].damaged == ()


def test_a_distribution_with_a_similar_name_that_holds_something_else_is_no_provider(site: Path) -> None:
    install(site, "onnxruntime-extensions", "0.12", {"onnxruntime_extensions/__init__.py": b""})
    install(site, "onnxruntime", "1.22.0", CORE)
    assert [provider.name for provider in find_providers(installed(site)())] == ["onnxruntime"]


def test_no_provider_at_all(site: Path) -> None:
    diagnosis = examine(site, TrainingTrial(None, False, "importing onnxruntime failed"))
    assert finding(diagnosis, "onnxruntime").found == "no distribution provides it"
    assert not diagnosis.ok


def test_missing_packages_are_named(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.22.0", CORE)
    install(tmp_path, "numpy", "2.0", {})
    said = finding(examine(tmp_path), "packages")
    assert said.status == "problem"
    assert said.way_out == "pip install jinja2 onnx onnx-ir onnxsim pillow platformdirs rich typer"


@pytest.mark.parametrize(("exist", "package"), [(True, "onnxruntime-training-cpu==1.19.2"), (False, "onnxruntime")])
def test_no_training_is_a_problem_and_the_way_out_is_what_fits_the_machine(
    site: Path, monkeypatch: pytest.MonkeyPatch, exist: bool, package: str
) -> None:
    install(site, "onnxruntime", "1.22.0", CORE)
    monkeypatch.setattr("onnxadmm.doctor.diagnose._wheels_exist_here", lambda: exist)
    diagnosis = examine(site, WITHOUT)
    assert not diagnosis.ok
    assert finding(diagnosis, "training").way_out == f"pip uninstall -y onnxruntime, then pip install {package}"


@pytest.mark.parametrize(
    ("version", "system", "architecture", "exist"),
    [
        ((3, 11), "linux", "x86_64", True),
        ((3, 12), "darwin", "arm64", True),
        ((3, 12), "win32", "AMD64", True),
        ((3, 11), "linux", "aarch64", False),
        ((3, 13), "linux", "x86_64", False),
        ((3, 11), "freebsd", "x86_64", False),
    ],
)
def test_where_training_wheels_exist(version: tuple[int, int], system: str, architecture: str, exist: bool) -> None:
    assert training_wheels_exist(version=version, system=system, architecture=architecture) is exist


CHILD_SAYS = 'import os, sys, signal; print(\'{"runtime": "1.2.3"}\', flush=True); '
FAILED = "ended in a failure with exit status 1 ("


@pytest.mark.parametrize(
    ("code", "runtime", "found"),
    [
        (
            "raise SystemExit('broken library')",
            None,
            f"importing onnxruntime {FAILED}broken library)",
        ),
        (
            "import nothing_of_this_name",
            None,
            f"importing onnxruntime {FAILED}ModuleNotFoundError",
        ),
        (CHILD_SAYS + "sys.exit()", "1.2.3", "the training step ended in an early end"),
        (CHILD_SAYS + "1 / 0", "1.2.3", f"the training step {FAILED}ZeroDivisionError"),
        (CHILD_SAYS + "import time; time.sleep(60)", None, "the training step did not end within 1 s"),
    ],
    ids=["exit", "import", "early", "exception", "hang"],
)
def test_a_child_that_fails_becomes_a_sentence(code: str, runtime: str | None, found: str) -> None:
    tried = try_training(program=("-c", code), seconds=1 if "sleep" in code else 60)
    assert not tried.training
    assert tried.runtime == runtime
    assert tried.found.startswith(found)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
@pytest.mark.parametrize("name", ["SIGSEGV", "SIGFPE", "SIGILL"])
def test_a_child_that_crashes_becomes_a_sentence(name: str) -> None:
    tried = try_training(program=("-c", CHILD_SAYS + f"os.kill(os.getpid(), signal.{name})"))
    assert tried == TrainingTrial("1.2.3", False, f"the training step ended in a crash ({name})")


@pytest.mark.parametrize(("exact", "status"), [(True, "ok"), (False, "limited")])
def test_a_processor_that_cuts_sums_of_byte_products_off_is_said_and_is_no_problem(
    site: Path, exact: bool, status: str
) -> None:
    install(site, "onnxruntime-training-cpu", "1.19.2", CORE)
    diagnosis = examine(site, replace(WORKS, exact_bytes=exact))
    said = finding(diagnosis, "quantised networks")
    assert (said.status, diagnosis.ok) == (status, True)
    assert exact or "which has no VNNI" in said.found


def test_of_byte_products_that_were_not_tried_nothing_is_said(site: Path) -> None:
    install(site, "onnxruntime-training-cpu", "1.19.2", CORE)
    assert "quantised networks" not in [item.name for item in examine(site).findings]


@pytest.mark.slow
def test_byte_products_are_really_tried_here() -> None:
    assert try_training().exact_bytes is not None


@pytest.mark.slow
def test_training_is_really_tried_here() -> None:
    diagnosis = diagnose()
    reason = engine.unavailable_reason()
    said = finding(diagnosis, "training")
    assert (said.status == "ok") == (reason is None)
    if reason is None:
        assert re.findall(r"(\w+) engine: 10 steps .*?, gradients are right", said.found) == list(ENGINES)
    assert diagnosis.versions["onnxruntime"] is not None


@pytest.mark.parametrize("name", ENGINES)
def test_a_wrong_gradient_is_found(monkeypatch: pytest.MonkeyPatch, name: engine.Engine) -> None:
    right = OrtTrainer.backward

    def wrong(self: OrtTrainer, batch: Batch) -> float:
        loss = right(self, batch)
        self.gradients["conv"][...] *= np.float32(1.2)
        return loss

    monkeypatch.setattr(OrtTrainer, "backward", wrong)
    with pytest.raises(ArithmeticError, match="the gradient of conv is"):
        trial_room.take_training_steps(name)


@pytest.mark.parametrize("name", ENGINES)
def test_a_step_that_does_not_train_is_found(monkeypatch: pytest.MonkeyPatch, name: engine.Engine) -> None:
    monkeypatch.setattr(OrtTrainer, "update", lambda self, learning_rate: None)
    with pytest.raises(ArithmeticError, match="10 training steps took the loss from"):
        trial_room.take_training_steps(name)


def test_the_document_is_json_and_says_ok_first(site: Path) -> None:
    install(site, "onnxruntime-training-cpu", "1.19.2", CORE)
    document = json.loads(json.dumps(to_document(examine(site))))
    assert next(iter(document)) == "ok"
    assert document["ok"] is True
    assert document["providers"] == [{"name": "onnxruntime-training-cpu", "version": "1.19.2", "damaged": []}]
    assert document["machine"]["simd_floats"] in (1, 4, 8, 16)


def test_the_view_shows_every_finding_with_its_way_out(site: Path) -> None:
    install(site, "onnxruntime-training-cpu", "1.19.2", CORE)
    install(site, "onnxruntime", "1.22.0", CORE)
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(diagnosis_view(examine(site)))
    text = " ".join(capture.get().split())
    for words in ("overwrite each other's files", "pip uninstall -y", "Something needs mending.", "vector unit"):
        assert words in text


def test_a_finding_that_is_not_ok_needs_a_way_out() -> None:
    with pytest.raises(ValueError, match="needs a way out"):
        Finding("a", "problem", "b", None)
    with pytest.raises(ValueError, match="needs a way out"):
        Finding("a", "ok", "b", "c")


def test_versions_for_a_report_name_what_is_here() -> None:
    versions = package_versions()
    assert versions["numpy"] == np.__version__
    assert versions["python"].startswith("3.")
    assert any("onnxruntime" in name for name in versions)
