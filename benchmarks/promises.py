"""Promises of accuracy and sweeps: do they hold on test data, are they tight, and what do several budgets cost?

Run from the root of the repository: ``python -m benchmarks.promises --cifar FOLDER``, with the data and the models of
``benchmarks.calibration``. Three questions: what does ``--max-drop 1`` lose on the test set, which it has not seen; how
much smaller is the smallest network of a dense sweep (steps of 4 %) that keeps the promise on the same held-out
samples; and how many times as long as one run does a sweep of five budgets take, calibrated and trained. Writes
benchmarks/results/promises.json and benchmarks/promises.md. The status is 1 when a network is more than 10 % larger
than the best of the dense sweep, or a sweep takes more than three times as long as its run at the middle budget.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

import onnxadmm as oa
from benchmarks.calibration import NETWORKS, ROOT, Images
from benchmarks.calibration_table import TITLES
from onnxadmm.bench.simd import this_machine
from onnxadmm.units.cost import CostKind

RESULTS: Final = ROOT / "benchmarks" / "results" / "promises.json"
PAGE: Final = ROOT / "benchmarks" / "promises.md"
MOST: Final = 1.0  # points
SAMPLES: Final = 4000
BUDGETS: Final = (0.5, 0.3, 0.2, 0.1, 0.05)
_STEP: Final = 0.96
_AROUND: Final = 8  # steps to both sides


def labelled(images: Images, data: str) -> tuple[Any, Any]:
    """Return training images drawn at random, with their classes."""
    pictures, labels = images.all(data, "train")
    chosen = np.sort(np.random.default_rng(0).permutation(len(labels))[:SAMPLES])
    return pictures[chosen], labels[chosen]


def promise(name: str, by: CostKind, given: argparse.Namespace, images: Images, folder: Path) -> dict[str, Any]:
    """Search for the smallest network that keeps the promise, and beside it a dense sweep around what was found."""
    network = NETWORKS[name]
    common: dict[str, Any] = {
        "calibrate": labelled(images, network.data),
        "test": images.test_file(network.data),
        "preprocessing": oa.Preprocessing(mean=list(network.mean), std=list(network.std)),
        "recipe": oa.Recipe(held_out=0.5),
        "bench": False,
        "limits": oa.Limits(round_to=1),
    }
    began = time.perf_counter()
    model = given.models / network.file
    found = oa.compress(model, calibration=oa.CalibrationOptions(max_drop=MOST, by=by), **common)
    seconds = time.perf_counter() - began
    (line,) = found.budgets
    share = line.reached / line.original
    amounts = [round(share * _STEP**step, 5) for step in range(-_AROUND, _AROUND + 1) if share * _STEP**step < 1]
    dense = oa.sweep(model, amounts={by: amounts}, out=folder / name, **common)
    kept = [point.cost(by) / dense.original.cost(by) for point in dense.points if point.lost <= MOST]
    assert found.before.test is not None
    assert found.after.test is not None
    return {
        "network": name,
        "by": by,
        "share": share,
        "best": min(kept, default=1.0),
        "heldout": [found.before.heldout.value, found.after.heldout.value],  # type: ignore[union-attr]
        "test": [found.before.test.value, found.after.test.value],
        "seconds": seconds,
    }


def costs(given: argparse.Namespace, images: Images, folder: Path, *, trained: bool) -> dict[str, Any]:
    """Time a sweep of five budgets of LeNet-5 and a run at the middle one."""
    network = NETWORKS["lenet5"]
    common: dict[str, Any] = {
        "preprocessing": oa.Preprocessing(mean=list(network.mean), std=list(network.std)),
        "bench": False,
    }
    if trained:
        common |= {"data": images.all("mnist", "train"), "recipe": oa.Recipe(epochs=4, retrain_epochs=4)}
    else:
        common |= {"calibrate": images.samples("mnist", 0)}
    model, way = given.models / network.file, "trained" if trained else "calibrated"
    began = time.perf_counter()
    oa.compress(model, budget={"params": BUDGETS[2]}, out=folder / f"{way}-one", **common)
    one = time.perf_counter() - began
    began = time.perf_counter()
    oa.sweep(model, amounts={"params": list(BUDGETS)}, out=folder / f"{way}-five", **common)
    return {"way": way, "one": one, "five": time.perf_counter() - began}


def render(result: Mapping[str, Any]) -> str:
    """Return the page, in Markdown."""
    lines = [
        "# Promises and sweeps",
        "",
        f"`compress --calibrate --max-drop {MOST:g}` with {SAMPLES:,} labelled training images, half of which judge. "
        "Beside what was found stands the smallest network of a dense sweep, in steps of 4 %, that keeps the promise "
        "on the same held-out images. The test images are seen by neither.",
        "",
        "| network | least | found | best of the sweep | held-out | test | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in result["promises"]:
        (held, left), (before, after) = each["heldout"], each["test"]
        lines.append(
            f"| {TITLES[each['network']]} | `--by {each['by']}` | {100 * each['share']:.2f} % "
            f"| {100 * each['best']:.2f} % | {100 * held:.2f} -> {100 * left:.2f} % "
            f"| {100 * before:.2f} -> {100 * after:.2f} % | {each['seconds']:.0f} |"
        )
    lines += ["", f"A sweep of LeNet-5 with `--params {','.join(map(str, BUDGETS))}`, and one run at the middle:", ""]
    lines += ["| way | one run, s | five budgets, s | times |", "|---|---|---|---|"]
    lines += [
        f"| {each['way']} | {each['one']:.0f} | {each['five']:.0f} | {each['five'] / each['one']:.1f} |"
        for each in result["costs"]
    ]
    machine = result["machine"]
    lines += ["", f"Measured on {machine['cpu']}, {machine['threads']} threads, {machine['simd']}, shared with other"]
    lines += ["work, by `python -m benchmarks.promises --cifar CIFAR`."]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--mnist", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        images = Images(given, folder)
        kinds: tuple[tuple[str, CostKind], ...] = (("lenet5", "params"), ("resnet20", "macs"))
        result: dict[str, Any] = {
            "costs": [costs(given, images, folder, trained=trained) for trained in (False, True)],
            "promises": [promise(name, by, given, images, folder) for name, by in kinds],
            "machine": asdict(this_machine()),
        }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(render(result), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))
    loose = any(each["share"] > 1.1 * each["best"] for each in result["promises"])
    return int(loose or any(each["five"] > 3 * each["one"] for each in result["costs"]))


if __name__ == "__main__":
    sys.exit(main())
