"""What some tests need and not every machine has: real data and trained models, and an onnxruntime that trains."""

import os
from pathlib import Path

import pytest

from onnxadmm.train.engine import unavailable_reason

SHARED = Path(__file__).resolve().parents[2] / "shared"

#: Whether gradients can be computed with the installed onnxruntime.
TRAINS = unavailable_reason() is None
needs_training = pytest.mark.skipif(not TRAINS, reason="needs the training build of onnxruntime")


def need_shared(name: str) -> Path:
    """Return ``../shared/<name>``; skip the test without it, or fail where continuous integration promises it."""
    path = SHARED / name
    if path.exists():
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(f"{path} is missing although CI=true")
    pytest.skip(f"needs {path}, which is not part of the repository")
