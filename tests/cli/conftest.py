"""What tests of several verbs share: a short compression, a plan, and what they are looked at with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from onnxadmm.demo import DemoFiles
from tests.conftest import run_command, timing_briefly

#: A short training, in the options of ``compress``.
TRAINING = ("--scale", 1 / 16, "--epochs", 3, "--retrain-epochs", 2, "--batch-size", 64)


def one_document(text: str) -> Any:
    """Parse stdout that holds one JSON document and nothing else."""
    return json.loads(text)


def accuracy_of(model: Path, test: Path) -> float:
    """Accuracy through onnxruntime alone."""
    with np.load(test) as archive:
        images, labels = archive["images"], archive["labels"]
    session = onnxruntime.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": (images[:, None] / 16).astype(np.float32)})
    return float((logits.argmax(1) == labels).mean())


@pytest.fixture(scope="session")
def compressed(digits: DemoFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The out folder of a short compression to 30 % of the parameters."""
    out = tmp_path_factory.mktemp("compressed") / "deep" / "out"
    words = ("--test", digits.test, "--params", "0.3", "--out", out, *TRAINING)
    with timing_briefly():
        ran = run_command("compress", digits.model, "--data", digits.training, *words)
    assert ran.status == 0, ran
    assert "Verified" in ran.stdout
    assert "Parameters" in ran.stdout
    return out


@pytest.fixture(scope="session")
def planned(digits: DemoFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan without training."""
    path = tmp_path_factory.mktemp("planned") / "plan.json"
    assert run_command("plan", digits.model, "--macs", "0.3", "-o", path).status == 0
    return path
