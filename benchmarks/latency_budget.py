"""Budgets of latency, met and against budgets of multiply-accumulates, cell by cell.

Run from the root of the repository: ``python -m benchmarks.latency_budget --cifar FOLDER``, with FOLDER as for
``benchmarks.quality``. A cell prunes a network of benchmarks/models from 512 unlabelled images under ``--latency``,
with branches that may go and without, then finds by secants the ``--macs`` whose network takes as long as the first,
and compares their accuracy on the whole test set. Latencies are medians of ratios to the original, in turns, at
batch 1. Every cell is a file of benchmarks/results/latency_budget/ and is measured once; ``--again`` forgets them.
Writes benchmarks/latency_budget.md. The status is 1 when a budget is exceeded by more than 4 % (0.52 of 0.5).
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
from benchmarks.machine import in_words
from benchmarks.pictured import ROOT, Images
from benchmarks.quality import SETTINGS
from onnxadmm.bench.simd import this_machine
from onnxadmm.bench.versions import package_versions

RESULTS: Final = ROOT / "benchmarks" / "results" / "latency_budget"
PAGE: Final = ROOT / "benchmarks" / "latency_budget.md"
MODELS: Final = ROOT / "benchmarks" / "models"
#: What may be measured above a budget, relative to it.
_ABOVE: Final = 1.04
#: Budgets of multiply-accumulates that are tried, and how near to the latency the last one has to be.
_TRIES: Final = 5
_NEAR: Final = 0.02
_EFFORT: Final = "quick"


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
        options: of the command line that say what may stay.
        latency: share of the original's, with the ends of its interval.
        macs: share of the original's.
        gone: groups of which nothing is left.
        accuracy: on the test set, of the original and of the result.
        told: how far the table of latencies is off, as the run said it; empty without one.
        seconds: of the run.
    """

    options: str
    latency: tuple[float, float, float]
    macs: float
    gone: int
    accuracy: tuple[float, float]
    told: str
    seconds: float


def queue() -> Iterator[Cell]:
    """Every cell."""
    for share in (0.5, 0.7):
        for network in ("resnet20", "cifarnet", "mobilenetv2"):
            yield Cell(network, share)


def prune(
    cell: Cell, kind: str, share: float, given: argparse.Namespace, images: Images, *, least: int | None = None
) -> Pruned:
    """Calibrate under a budget, with no group of fewer than ``least`` units where that is a number."""
    network = SETTINGS[cell.network].pictured
    report = oa.compress(
        MODELS / network.file,
        calibrate=images.sample_file(network.data, 0),
        test=images.test_file(network.data),
        budget={kind: share},
        limits=oa.Limits(keep_at_least=least),
        calibration={"effort": _EFFORT},
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
        options=f"--{kind} {share:g}" + ("" if least is None else f" --keep-at-least {least}"),
        latency=(1 / line.speedup, 1 / line.speedup_high, 1 / line.speedup_low),
        macs=report.after.macs / report.before.macs,
        gone=sum(group.units_after == 0 for group in report.groups),
        accuracy=(report.before.test.value, report.after.test.value),
        told=next((note for note in report.simplified if "plans was measured" in note), ""),
        seconds=sum(stage.seconds for stage in report.stages),
    )


def as_fast(cell: Cell, than: Pruned, given: argparse.Namespace, images: Images) -> Pruned:
    """Find the budget of multiply-accumulates whose network takes as long as another one."""
    share, found = than.macs, []
    for _ in range(_TRIES):
        found.append(prune(cell, "macs", round(share, 4), given, images))
        if abs(found[-1].latency[0] / than.latency[0] - 1) < _NEAR:
            break
        share = min(share * than.latency[0] / found[-1].latency[0], 1.0)
    return min(found, key=lambda each: abs(each.latency[0] / than.latency[0] - 1))


def measure(cell: Cell, given: argparse.Namespace, images: Images) -> dict[str, Any]:
    """Return the result of a cell, as it is written."""
    timed, whole = (prune(cell, "latency", cell.share, given, images, least=least) for least in (None, 1))
    return {
        "cell": asdict(cell),
        "pruned": [asdict(each) for each in (timed, whole, as_fast(cell, timed, given, images))],
        "machine": asdict(this_machine()),
        "versions": package_versions(),
        "command": shlex.join(["python", "-m", "benchmarks.latency_budget", "--threads", str(given.threads)]),
    }


def render(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the page, in Markdown."""
    lines = [
        "# Budgets of latency",
        "",
        f"`onnxadmm compress --calibrate` with 512 unlabelled images, `--effort {_EFFORT}` and `--latency`, nothing "
        "retrained, and below it the budget of multiply-accumulates whose network takes as long. Latencies are shares "
        "of the original's at batch 1, medians of ratios in turns, with their 95 % intervals; accuracy is that of the "
        "whole test set. Of a network in which no branch may go the second row is the first once more: what another "
        "measurement of latency leads to.",
        "",
        "| network | asked | measured | MACs left | groups gone | accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for each in cells:
        title = TITLES[each["cell"]["network"]]
        for pruned in each["pruned"]:
            lines.append(f"| {title} | `{pruned['options']}` | {_told(pruned)} |")
            title = ""
    lines += ["", "How far what is told of plans that were not measured is off, as each run says:", ""]
    lines += [f"- {TITLES[each['cell']['network']]}: {each['pruned'][0]['told']}" for each in cells]
    machines = sorted({in_words(each["machine"]) for each in cells})
    commands = sorted({each["command"] for each in cells})
    lines += ["", f"Measured on {'; '.join(machines)} by", "", "```sh", *(f"{each} --cifar CIFAR" for each in commands)]
    return "\n".join([*lines, "```"]) + "\n"


def _told(pruned: Mapping[str, Any]) -> str:
    middle, low, high = pruned["latency"]
    before, after = pruned["accuracy"]
    return (
        f"{middle:.3f} ({low:.3f} to {high:.3f}) | {100 * pruned['macs']:.1f} % | {pruned['gone']} "
        f"| {100 * before:.2f} -> {100 * after:.2f} %"
    )


def main() -> int:
    """Measure what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar", type=Path, help="folder of CIFAR-10")
    parser.add_argument("--mnist", type=Path, default=ROOT.parent / "shared" / "data")
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
            print(json.dumps({"cell": result["cell"], "pruned": result["pruned"]}), flush=True)
    cells = [json.loads(cell.path.read_text(encoding="utf-8")) for cell in queue() if cell.path.exists()]
    PAGE.write_text(render(cells), encoding="utf-8")
    timed = [(pruned["latency"][0], each["cell"]["share"]) for each in cells for pruned in each["pruned"][:2]]
    return int(any(found > _ABOVE * share for found, share in timed))


if __name__ == "__main__":
    sys.exit(main())
