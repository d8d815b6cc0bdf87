"""Budgets of latency, met and against budgets of multiply-accumulates, cell by cell.

Run from the root of the repository: ``python -m benchmarks.latency_budget --cifar FOLDER``, with the data and models
of ``benchmarks.calibration``. A cell prunes a network from 512 unlabelled images under ``--latency``, then finds by
secants the ``--macs`` whose network takes as long, and compares their accuracy on the whole test set. Latencies are
medians of ratios to the original, in turns, at batch 1. Every cell is a file of benchmarks/results/latency_budget/ and
is measured once; ``--again`` forgets them. Writes benchmarks/latency_budget.md. The status is 1 when a budget is
exceeded by more than 4 % (0.52 of 0.5).
"""

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import onnxadmm as oa
from benchmarks.calibration_table import TITLES
from benchmarks.pictured import NETWORKS, ROOT, Images
from onnxadmm.bench.simd import this_machine
from onnxadmm.bench.versions import package_versions

RESULTS: Final = ROOT / "benchmarks" / "results" / "latency_budget"
PAGE: Final = ROOT / "benchmarks" / "latency_budget.md"
#: What may be measured above a budget, relative to it.
_ABOVE: Final = 1.04
#: Budgets of multiply-accumulates that are tried, and how near to the latency the last one has to be.
_TRIES: Final = 5
_NEAR: Final = 0.02


@dataclass(frozen=True)
class Cell:
    """A network and the share of its latency that may stay."""

    network: str
    share: float

    @property
    def path(self) -> Path:
        """Where its result is written."""
        return RESULTS / f"{self.network}-{self.share:g}.json"


@dataclass(frozen=True)
class Pruned:
    """What a budget led to.

    Attributes:
        budget: as given.
        latency: share of the original's, with the ends of its interval.
        macs: share of the original's.
        accuracy: on the test set, of the original and of the result.
        told: how far the table of latencies is off, as the run said it; empty without one.
        seconds: of the run.
    """

    budget: Mapping[str, float]
    latency: tuple[float, float, float]
    macs: float
    accuracy: tuple[float, float]
    told: str
    seconds: float


def queue() -> Iterator[Cell]:
    """Every cell."""
    for share in (0.5, 0.7):
        for network in ("resnet20", "cifarnet", "mobilenetv2"):
            yield Cell(network, share)


def prune(cell: Cell, budget: Mapping[str, float], given: argparse.Namespace, images: Images) -> Pruned:
    """Calibrate under a budget."""
    network = NETWORKS[cell.network]
    report = oa.compress(
        given.models / network.file,
        calibrate=images.sample_file(network.data, 0),
        test=images.test_file(network.data),
        budget=dict(budget),
        preprocessing=oa.Preprocessing(mean=list(network.mean), std=list(network.std)),
        bench_batch=1,
        bench_threads=given.threads,
    ).report
    (line,) = report.latency
    assert report.before.test is not None
    assert report.after.test is not None
    assert report.before.macs
    assert report.after.macs
    return Pruned(
        budget=budget,
        latency=(1 / line.speedup, 1 / line.speedup_high, 1 / line.speedup_low),
        macs=report.after.macs / report.before.macs,
        accuracy=(report.before.test.value, report.after.test.value),
        told=next((note for note in report.simplified if "plans was measured" in note), ""),
        seconds=sum(stage.seconds for stage in report.stages),
    )


def as_fast(cell: Cell, than: Pruned, given: argparse.Namespace, images: Images) -> Pruned:
    """Find the budget of multiply-accumulates whose network takes as long as another one."""
    share, found = than.macs, []
    for _ in range(_TRIES):
        found.append(prune(cell, {"macs": round(share, 4)}, given, images))
        if abs(found[-1].latency[0] / than.latency[0] - 1) < _NEAR:
            break
        share = min(share * than.latency[0] / found[-1].latency[0], 1.0)
    return min(found, key=lambda each: abs(each.latency[0] / than.latency[0] - 1))


def measure(cell: Cell, given: argparse.Namespace, images: Images) -> dict[str, Any]:
    """Return the result of a cell, as it is written."""
    timed = prune(cell, {"latency": cell.share}, given, images)
    counted = as_fast(cell, timed, given, images)
    return {
        "cell": asdict(cell),
        "latency": asdict(timed),
        "macs": asdict(counted),
        "threads": given.threads,
        "machine": asdict(this_machine()),
        "versions": package_versions(),
        "command": shlex.join(["python", "-m", "benchmarks.latency_budget", "--threads", str(given.threads)]),
    }


def render(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the page, in Markdown."""
    lines = [
        "# Budgets of latency",
        "",
        "`onnxadmm compress --calibrate` with 512 unlabelled images and `--latency`, and beside it the budget of "
        "multiply-accumulates whose network takes as long. Latencies are shares of the original's at batch 1, medians "
        "of ratios in turns, with their 95 % intervals; accuracy is that of the whole test set.",
        "",
        "| network | asked | measured | MACs left | accuracy | with `--macs` | measured | MACs left | accuracy |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in cells:
        timed, counted = each["latency"], each["macs"]
        lines.append(
            f"| {TITLES[each['cell']['network']]} | `--latency {each['cell']['share']:g}` | {_told(timed)} "
            f"| `--macs {counted['budget']['macs']:g}` | {_told(counted)} |"
        )
    lines += ["", "How far what is told of plans that were not measured is off, as each run says:", ""]
    lines += [f"- {TITLES[each['cell']['network']]}: {each['latency']['told']}" for each in cells]
    machines = sorted({f"{each['machine']['cpu']}, {each['machine']['simd']}" for each in cells})
    commands = sorted({each["command"] for each in cells})
    lines += ["", f"Measured on {'; '.join(machines)} by", "", "```sh", *(f"{each} --cifar CIFAR" for each in commands)]
    return "\n".join([*lines, "```"]) + "\n"


def _told(pruned: Mapping[str, Any]) -> str:
    middle, low, high = pruned["latency"]
    before, after = pruned["accuracy"]
    return (
        f"{middle:.3f} ({low:.3f} to {high:.3f}) | {100 * pruned['macs']:.1f} % "
        f"| {100 * before:.2f} -> {100 * after:.2f} %"
    )


def main() -> int:
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--mnist", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--threads", type=int, default=this_machine().threads)
    parser.add_argument("--only", nargs="*", help="names of networks")
    parser.add_argument("--again", action="store_true", help="measure what has been measured as well")
    given = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        images = Images(given, Path(folder))
        for cell in queue():
            if (given.only and cell.network not in given.only) or (cell.path.exists() and not given.again):
                continue
            result = measure(cell, given, images)
            cell.path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(
                json.dumps({"cell": result["cell"], "latency": result["latency"], "macs": result["macs"]}), flush=True
            )
    cells = [json.loads(cell.path.read_text(encoding="utf-8")) for cell in queue() if cell.path.exists()]
    PAGE.write_text(render(cells), encoding="utf-8")
    return int(any(each["latency"]["latency"][0] > _ABOVE * each["cell"]["share"] for each in cells))


if __name__ == "__main__":
    sys.exit(main())
