"""How far methods of benchmarks/quality.py are apart, image by image: paired tests on the stored classes."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

#: The method that all others are held against: what a user gets without asking.
REFERENCE: Final = "calibrated"
#: Network, budget and method.
Key = tuple[str, float, str]


@dataclass(frozen=True)
class Pair:
    """A method beside the reference, over the seeds that both were measured with.

    Attributes:
        points: of test accuracy that the method is ahead, in the mean.
        chance: that two methods equally good are so far apart or further, two-sided.
    """

    points: float
    chance: float


def keep_labels(folder: Path, data: str, labels: NDArray[np.int64]) -> None:
    """Keep what the test images show beside the classes that the results give them."""
    path = _labels(folder, data)
    if not path.exists():
        np.savez_compressed(path, labels=labels.astype(np.uint8))


def pairs(folder: Path) -> dict[Key, Pair]:
    """Compare every method with the reference, network by network and budget by budget.

    An image counts the share of the seeds whose network has it right; the mean difference of two methods over all
    images is held against its standard error, which for one seed is McNemar's test. Chances are those of Holm, over all
    comparisons that there are: seldom would even one of them be that small were all methods alike.

    Args:
        folder: of the cells.
    """
    right: dict[Key, dict[int, NDArray[np.bool_]]] = {}
    for path in sorted(folder.glob("*.json")):
        cell = json.loads(path.read_text())["cell"]
        key = (cell["network"], cell["share"], cell["method"])
        right.setdefault(key, {})[cell["seed"]] = _right(folder, path, cell)
    found = {}
    for (network, share, method), seeds in right.items():
        reference = right.get((network, share, REFERENCE), {})
        common = sorted(seeds.keys() & reference.keys())
        if common and method != REFERENCE:
            ahead = np.mean([seeds[seed].astype(float) - reference[seed] for seed in common], axis=0)
            found[network, share, method] = Pair(100 * float(ahead.mean()), _chance(ahead))
    return _holm(found)


def _chance(ahead: NDArray[np.float64]) -> float:
    """Of a mean so far from zero, given the difference of every image."""
    error = math.sqrt(float(np.square(ahead).sum()))
    return 2 * NormalDist().cdf(-abs(float(ahead.sum())) / error) if error else 1.0


def _holm(found: Mapping[Key, Pair]) -> dict[Key, Pair]:
    """Correct chances for how many there are (Holm, 1979)."""
    corrected, least = {}, 0.0
    for rank, (key, pair) in enumerate(sorted(found.items(), key=lambda item: item[1].chance)):
        least = max(least, min(1.0, (len(found) - rank) * pair.chance))
        corrected[key] = replace(pair, chance=least)
    return corrected


def _right(folder: Path, path: Path, cell: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Which test images a result has right."""
    data = "mnist" if cell["network"].startswith("lenet5") else "cifar"
    with np.load(path.with_suffix(".npz")) as arrays, np.load(_labels(folder, data)) as known:
        right: NDArray[np.bool_] = arrays["classes"] == known["labels"]
    return right


def _labels(folder: Path, data: str) -> Path:
    return folder / f"labels-{data}.npz"
