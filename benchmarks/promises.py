"""Promises of accuracy and sweeps: do they hold on test data, are they tight, and what do several budgets cost?

Run from the root of the repository: ``python -m benchmarks.promises --cifar FOLDER``, with the data and the models of
``benchmarks.calibration``. Three questions: what does ``--max-drop 1`` lose on the test set, which it has not seen; how
much smaller is the smallest network of a dense sweep (steps of 4 %) that keeps the promise on the same held-out
samples; and how many times as long as one run does a sweep of five budgets take, calibrated and trained.

Every cell is a file of benchmarks/results/promises/ and is measured once: what is there is not measured again, so that
the queue may be stopped and begun as one likes; ``--only`` names some. The dense sweep goes down from what was found,
and ends where a network loses three times what it may: those above are no better, and those below no nearer. Writes
benchmarks/promises.md from all files there are. The status is 1 when a network is more than 10 % larger than the best
of the dense sweep, or a sweep takes more than three times the seconds of processors that its run at the middle budget
takes: on a machine that others use as well the clock counts their work.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

import onnxadmm as oa
from benchmarks.calibration_table import TITLES
from benchmarks.pictured import NETWORKS, ROOT, Images
from onnxadmm.bench.simd import this_machine
from onnxadmm.run.shared import Shared
from onnxadmm.units.cost import CostKind

RESULTS: Final = ROOT / "benchmarks" / "results" / "promises"
PAGE: Final = ROOT / "benchmarks" / "promises.md"
#: Networks that keep a promise, and what they cost the least of.
PROMISES: Final[Mapping[str, CostKind]] = {"lenet5": "params", "resnet20": "macs"}
WAYS: Final = ("calibrated", "trained")
MOST: Final = 1.0  # points
#: Labelled images, and the share of them that judge: the time goes with those that are calibrated with.
SAMPLES: Final = 2560
JUDGES: Final = 0.8
BUDGETS: Final = (0.5, 0.3, 0.2, 0.1, 0.05)
#: Of the dense sweep: from one to the next, at most so many, and the points that end it.
_STEP: Final = 0.96
_STEPS: Final = 12
_FAR: Final = 3 * MOST

Result = dict[str, Any]


class Queue:
    """Cells that are measured once.

    Args:
        only: a part of the names of those that are measured.
    """

    def __init__(self, only: str) -> None:
        self._only = only

    def cell(self, name: str, measure: Callable[[], Result]) -> Result | None:
        """Return the result of a cell, measured now where it was not before; None where it is left alone."""
        path = RESULTS / f"{name}.json"
        if path.exists():
            return read(name)
        if self._only not in name:
            return None
        result = {**measure(), "machine": asdict(this_machine())}
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {result}", file=sys.stderr, flush=True)
        return result


def read(name: str) -> Result | None:
    """Return the result of a cell; None where there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def labelled(images: Images, data: str) -> tuple[Any, Any]:
    """Return training images drawn at random, with their classes."""
    pictures, labels = images.all(data, "train")
    chosen = np.sort(np.random.default_rng(0).permutation(len(labels))[:SAMPLES])
    return pictures[chosen], labels[chosen]


def common_of(name: str, images: Images) -> dict[str, Any]:
    """Return the arguments of the search and of the dense sweep."""
    network = NETWORKS[name]
    return {
        "calibrate": labelled(images, network.data),
        "preprocessing": oa.Preprocessing(mean=list(network.mean), std=list(network.std)),
        "recipe": oa.Recipe(held_out=JUDGES),
        "bench": False,
        "limits": oa.Limits(round_to=1),
    }


def found(name: str, by: CostKind, model: Path, images: Images) -> Result:
    """Search for the smallest network that keeps the promise."""
    began = time.perf_counter()
    result = oa.compress(
        model,
        calibration=oa.CalibrationOptions(max_drop=MOST, by=by),
        test=images.test_file(NETWORKS[name].data),
        **common_of(name, images),
    )
    seconds = time.perf_counter() - began
    (line,) = result.budgets
    assert result.before.test is not None
    assert result.after.test is not None
    return {
        "share": line.reached / line.original,
        "heldout": [result.before.heldout.value, result.after.heldout.value],  # type: ignore[union-attr]
        "test": [result.before.test.value, result.after.test.value],
        "seconds": seconds,
    }


def dense(queue: Queue, name: str, by: CostKind, share: float, model: Path, images: Images) -> None:
    """Measure smaller and smaller networks than what was found."""
    shared = Shared()

    def point(asked: float) -> Result:
        result = oa.compress(model, budget={by: asked}, shared=shared, **common_of(name, images))
        (line,) = result.budgets
        before, after = (each.heldout.value for each in (result.before, result.after))  # type: ignore[union-attr]
        return {"share": line.reached / line.original, "lost": 100 * (before - after)}

    for step in range(1, _STEPS + 1):
        asked = round(share * _STEP**step, 5)
        made = queue.cell(f"dense-{name}-{step:02}", partial(point, asked))
        if made is None or made["lost"] > _FAR:
            return


def costs(model: Path, images: Images, folder: Path, *, trained: bool) -> Result:
    """Time a sweep of five budgets of LeNet-5, and a run at the middle one before and after it."""
    network = NETWORKS["lenet5"]
    common: dict[str, Any] = {
        "preprocessing": oa.Preprocessing(mean=list(network.mean), std=list(network.std)),
        "bench": False,
    }
    if trained:
        common |= {"data": images.all("mnist", "train"), "recipe": oa.Recipe(epochs=4, retrain_epochs=4)}
    else:
        common |= {"calibrate": images.samples("mnist", 0)}

    def one() -> None:
        oa.compress(model, budget={"params": BUDGETS[2]}, out=folder / "one", force=True, **common)

    def five() -> None:
        oa.sweep(model, amounts={"params": list(BUDGETS)}, out=folder / "five", **common)

    spent = [_spent(each) for each in (one, five, one)]
    return {"one": [spent[0], spent[2]], "five": spent[1]}


def _spent(action: Callable[[], None]) -> list[float]:
    """Return the seconds of a clock, and those of processors that this process and its children were given."""
    clock, before = time.perf_counter(), os.times()
    action()
    return [time.perf_counter() - clock, sum(os.times()[:4]) - sum(before[:4])]


def times(cost: Result, kind: int) -> float:
    """Return how many times as long as one run the sweep took: by the clock (0), or of processors (1)."""
    return float(cost["five"][kind] / np.mean([each[kind] for each in cost["one"]]))


def best(name: str, share: float) -> tuple[float, int]:
    """Return the least share of what was found and the dense sweep that keeps the promise; and the sweep's points."""
    points = [point for step in range(1, _STEPS + 1) if (point := read(f"dense-{name}-{step:02}")) is not None]
    return min([share, *(point["share"] for point in points if point["lost"] <= MOST)]), len(points)


def render(promises: Mapping[str, Result], spent: Mapping[str, Result]) -> str:
    """Return the page, in Markdown."""
    machines = {(each["machine"]["cpu"], each["machine"]["simd"]) for each in (*promises.values(), *spent.values())}
    lines = [
        "# Promises and sweeps",
        "",
        f"`compress --calibrate --max-drop {MOST:g}` with {SAMPLES:,} labelled training images, {100 * JUDGES:.0f} % "
        "of which judge. Beside what was found stands the smallest network of a dense sweep, down from it in steps of "
        "4 %, that keeps the promise on the same held-out images. The test images are seen by neither.",
        "",
        "| network | least | found | best of the sweep | its points | held-out | test | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, each in promises.items():
        (held, left), (before, after), (least, points) = each["heldout"], each["test"], best(name, each["share"])
        lines.append(
            f"| {TITLES[name]} | `--by {PROMISES[name]}` | {100 * each['share']:.2f} % | {100 * least:.2f} % "
            f"| {points} "
            f"| {100 * held:.2f} -> {100 * left:.2f} % | {100 * before:.2f} -> {100 * after:.2f} % "
            f"| {each['seconds']:.0f} |"
        )
    lines += [
        "",
        f"A sweep of LeNet-5 with `--params {','.join(map(str, BUDGETS))}`, and runs at the middle budget",
        "",
    ]
    lines[-2] += " before and after it; *of processors* are the seconds that all processes were given:"
    lines += ["| way | one run, s | five budgets, s | times | times, of processors |", "|---|---|---|---|---|"]
    for way, cost in spent.items():
        ones = ", ".join(f"{each[0]:.0f}" for each in cost["one"])
        lines.append(f"| {way} | {ones} | {cost['five'][0]:.0f} | {times(cost, 0):.2f} | {times(cost, 1):.2f} |")
    told = "; ".join(f"{cpu}, {simd}" for cpu, simd in sorted(machines))
    lines += ["", f"Measured on {told}, shared with other", "work, by `python -m benchmarks.promises --cifar CIFAR`."]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--mnist", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--only", default="", help="only cells whose name contains this")
    given = parser.parse_args(arguments)
    RESULTS.mkdir(parents=True, exist_ok=True)
    queue = Queue(given.only)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        images = Images(given, folder)
        promises: dict[str, Result] = {}
        for name, by in PROMISES.items():
            model = given.models / NETWORKS[name].file
            # What was measured before stays on the page without its data.
            absent = NETWORKS[name].data == "cifar" and given.cifar is None
            cell = f"found-{name}"
            made = read(cell) if absent else queue.cell(cell, partial(found, name, by, model, images))
            if made is not None:
                promises[name] = made
                if not absent:
                    dense(queue, name, by, made["share"], model, images)
        spent: dict[str, Result] = {}
        model = given.models / NETWORKS["lenet5"].file
        for way in WAYS:
            cost = queue.cell(f"cost-{way}", partial(costs, model, images, folder / way, trained=way == "trained"))
            if cost is not None:
                spent[way] = cost
    PAGE.write_text(render(promises, spent), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))
    loose = any(each["share"] > 1.1 * best(name, each["share"])[0] for name, each in promises.items())
    return int(loose or any(times(cost, 1) > 3 for cost in spent.values()))


if __name__ == "__main__":
    sys.exit(main())
