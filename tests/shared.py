"""What tests need that not every machine has: real data and trained models, and an onnxruntime that trains."""

import os
from pathlib import Path

import pytest

from onnxadmm.train.engine import available

SHARED = Path(__file__).resolve().parents[2] / "shared"

#: The only way a test that trains is left out: the training build has no wheel for this interpreter or machine.
needs_training = pytest.mark.skipif(not available(), reason="needs the training build of onnxruntime")


def need_shared(name: str) -> Path:
    """Return ``../shared/<name>``; skip the test without it, or fail where continuous integration promises it."""
    path = SHARED / name
    if path.exists():
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(f"{path} is missing although CI=true")
    pytest.skip(f"needs {path}, which is not part of the repository")
