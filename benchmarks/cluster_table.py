"""The page of ``benchmarks.cluster``."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "cluster"
PAGE: Final = ROOT / "benchmarks" / "cluster.md"


def missed() -> list[str]:
    return []


def page() -> str:
    return ""
