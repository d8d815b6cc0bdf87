"""Calls of ``compress`` that are not made."""

import inspect
from pathlib import Path
from typing import Any

import onnxadmm as oa


def called(model: Path, **given: Any) -> dict[str, Any]:
    """All arguments of ``compress``."""
    bound = inspect.signature(oa.compress).bind(model, **given)
    bound.apply_defaults()
    return dict(bound.arguments)
