"""The machine that a benchmark was measured on, in words."""

from collections.abc import Mapping
from typing import Any

from onnxadmm.report.words import plural


def in_words(machine: Mapping[str, Any]) -> str:
    """Return the processor, its threads and its vector unit, given a report's or ``asdict(this_machine())``."""
    return f"{machine['cpu']}, {plural(machine['threads'], 'thread')}, {machine['simd']}"
