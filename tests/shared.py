"""Where tests find the real data and trained models that are not part of the repository."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def need_shared(name: str) -> Path:
    """Return ``../shared/<name>``; skip the test without it, or fail where continuous integration promises it."""
    path = SHARED / name
    if path.exists():
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(f"{path} is missing although CI=true")
    pytest.skip(f"needs {path}, which is not part of the repository")
