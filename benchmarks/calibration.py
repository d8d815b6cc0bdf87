"""Pruning from unlabelled samples, cell by cell, beside a cut without a fit, magnitudes, and onnxsim's recovery.

Run from the root of the repository: ``python -m benchmarks.calibration --cifar FOLDER [--onnxsim PYTHON]``, FOLDER
holding CIFAR-10 as ``train/CLASS/*`` and ``test/CLASS/*``, or as ``train.npz`` and ``test.npz`` with ``pixels`` and
``labels``. MNIST and the models lie beside the repository (``../shared``) unless ``--mnist`` and ``--models`` say
otherwise. ``--onnxsim`` names the Python of an environment that has onnxsim and onnxruntime.

Every cell is a file of benchmarks/results/calibration/ and is measured once: what is there is not measured again, so
that the queue may be stopped and begun as one likes; ``--again`` forgets them, ``--only`` names some. The samples are
drawn from the training images without their labels; accuracy is that of the whole test set. Writes
benchmarks/calibration.md from all files there are. The status is 1 when a cell misses its bar.
"""

import argparse
import json
import math
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.calibration_table import PAGE, render
from benchmarks.pictured import NETWORKS, ROOT, Images, Network, accuracy, path_of, prepared, sizes
from onnxadmm.bench.simd import this_machine
from onnxadmm.bench.versions import package_versions
from onnxadmm.graph.model import Model, load
from onnxadmm.plan.budget import budget_of
from onnxadmm.plan.plan import Plan
from onnxadmm.plan.problem import Limits
from onnxadmm.planning import rank
from onnxadmm.surgery import shrink

RESULTS: Final = ROOT / "benchmarks" / "results" / "calibration"

#: Longest run at the usual effort.
MOST_SECONDS: Final = 180.0


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Attributes:
        network: its name.
        fewer: how many times fewer multiply-accumulates, or parameters.
        method: ``calibrate`` (the whole of it), ``cut`` (its plan without the fit), ``magnitude`` (a plan by magnitude,
            cut) or ``onnxsim``.
        sampling: seed of the draw of the samples.
        effort: of the calibration.
    """

    network: str
    fewer: float
    method: str
    sampling: int = 0
    effort: str = "normal"

    @property
    def share(self) -> float:
        """What stays of what is bounded, cut off behind four digits."""
        return math.floor(1e4 / self.fewer) / 1e4

    @property
    def name(self) -> str:
        """Name of its file."""
        effort = f"-{self.effort}" if self.method in ("calibrate", "cut") else ""
        sampling = f"-{self.sampling}" if self.method != "magnitude" else ""
        return f"{self.network}-{self.fewer:g}x-{self.method}{effort}{sampling}"


@dataclass
class Result:
    """What came out.

    Attributes:
        cell: which one.
        accuracy: on the test set, of the original and of the result.
        macs, parameters: of both.
        seconds: wall-clock time of the command, with its proof and the test; None for what takes a moment.
        cpu_seconds: of all its processes.
        command: that made it.
        detail: how it was made, beyond that.
        machine, versions: it was measured with.
        missed: what is below the bar, in words.
    """

    cell: Cell
    accuracy: tuple[float, float]
    macs: tuple[int, int]
    parameters: tuple[int, int]
    seconds: float | None
    cpu_seconds: float | None
    command: str
    detail: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=lambda: asdict(this_machine()))
    versions: dict[str, str] = field(default_factory=package_versions)
    missed: list[str] = field(default_factory=list)


def queue() -> Iterator[Cell]:
    """Every cell, those that bars are about first."""
    for sampling in range(3):
        for name, network in NETWORKS.items():
            for fewer in network.bars:
                if sampling == 0 or name not in ("cifarnet", "mobilenetv2"):
                    yield Cell(name, fewer, "calibrate", sampling)
                    yield Cell(name, fewer, "cut", sampling)
                    yield Cell(name, fewer, "onnxsim", sampling)
                if sampling == 0:
                    yield Cell(name, fewer, "magnitude")
    for effort in ("quick", "best"):
        yield Cell("resnet20", 2.0, "calibrate", 0, effort)


def result_path(cell: Cell) -> Path:
    """Return where the result of a cell is written."""
    return RESULTS / f"{cell.name}.json"


class Bench:
    """Measures cells."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self.images = Images(given, folder)
        self._given = given
        self._folder = folder
        self._dense: dict[str, tuple[float, int, int]] = {}

    def path(self, network: Network) -> Path:
        """Return where a network lies."""
        return path_of(network, self._given.models)

    def measure(self, cell: Cell) -> Result | None:
        """Measure a cell; None where what it needs is not there."""
        network = NETWORKS[cell.network]
        if not self.path(network).exists() or (network.data == "cifar" and self._given.cifar is None):
            return None
        ways = {"calibrate": self._calibrate, "cut": self._cut, "magnitude": self._magnitude, "onnxsim": self._onnxsim}
        result = ways[cell.method](cell, network)
        if result is not None:
            _judge(result, network)
        return result

    def _words(self, cell: Cell, network: Network) -> list[str]:
        return [
            *("--mean", ",".join(map(str, network.mean)), "--std", ",".join(map(str, network.std))),
            *(f"--{network.budget}", f"{cell.share:g}", "--round-to", "1", "--effort", cell.effort),
        ]

    def _calibrate(self, cell: Cell, network: Network) -> Result:
        out, words = self._folder / cell.name, self._words(cell, network)
        samples = self.images.sample_file(network.data, cell.sampling)
        command = [sys.executable, "-m", "onnxadmm.cli", "compress", str(self.path(network))]
        command += ["--calibrate", str(samples), "--test", str(self.images.test_file(network.data)), *words]
        before, start = _child_seconds(), time.perf_counter()
        subprocess.run([*command, "--no-bench", "--quiet", "--json", "--out", str(out)], cwd=ROOT, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        seconds, busy = time.perf_counter() - start, _child_seconds() - before
        report = json.loads((out / "report.json").read_text())
        shown = ["onnxadmm", "compress", network.file, "--calibrate", samples.name, *words, "--out", "out/"]
        sides = report["before"], report["after"]
        result = Result(
            cell,
            accuracy=(sides[0]["test"]["value"], sides[1]["test"]["value"]),
            macs=(sides[0]["macs"], sides[1]["macs"]),
            parameters=(sides[0]["parameters"], sides[1]["parameters"]),
            seconds=seconds,
            cpu_seconds=busy,
            command=shlex.join(shown),
        )
        result.detail = {
            "kept": {group["name"]: [group["units_before"], group["units_after"]] for group in report["groups"]},
            "decibels": float(report["verification"]["snr_db"]),
            "stages": report["stages"],
            "plan": json.loads((out / "plan.json").read_text()),
            "held_out_agreement": sides[1]["heldout"]["value"],
            "warnings": report["warnings"],
        }
        return result

    def _cut(self, cell: Cell, network: Network) -> Result | None:
        """Cut by the plan of the calibration that was measured before."""
        path = result_path(replace(cell, method="calibrate"))
        if not path.exists():
            return None
        plan = json.loads(path.read_text(encoding="utf-8"))["detail"]["plan"]
        small = shrink(load(self.path(network)), Plan.from_json(json.dumps(plan)))
        return self._result(cell, network, small, f"onnxadmm shrink {network.file} plan.json")

    def _magnitude(self, cell: Cell, network: Network) -> Result:
        model = load(self.path(network))
        budget = budget_of(network.budget, cell.share)
        small = shrink(model, rank(model, budget, by="magnitude", limits=Limits(round_to=1)))
        words = f"--{network.budget} {cell.share:g} --round-to 1 --by magnitude -o plan.json"
        return self._result(cell, network, small, f"onnxadmm plan {network.file} {words}")

    def _onnxsim(self, cell: Cell, network: Network) -> Result | None:
        """The best of what onnxsim makes, by the test set itself."""
        if self._given.onnxsim is None:
            return None
        out = self._folder / cell.name
        out.mkdir()
        samples = out / "samples.npy"
        np.save(samples, prepared(network, self.images.samples(network.data, cell.sampling)))
        dense = self._original(cell.network)
        most = round(dense[1 if network.budget == "macs" else 2] / cell.fewer)
        script = ROOT / "benchmarks" / "calibration_onnxsim.py"
        words = [self._given.onnxsim, script, self.path(network), samples, network.budget, most, out]
        before, start = _child_seconds(), time.perf_counter()
        done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True, check=True)
        seconds, busy = time.perf_counter() - start, _child_seconds() - before
        told = json.loads(done.stdout.strip().splitlines()[-1])
        best: Result | None = None
        for made in told["made"]:
            small = load(out / made["file"])
            result = self._result(cell, network, small, "python benchmarks/calibration_onnxsim.py")
            made["accuracy"] = result.accuracy[1]
            repaired = made["recovery"] != "cut"
            if repaired and (best is None or result.accuracy[1] > best.accuracy[1]):
                best = result
        assert best is not None  # it makes several
        best.detail, best.seconds, best.cpu_seconds = told, seconds, busy
        return best

    def _original(self, name: str) -> tuple[float, int, int]:
        if name not in self._dense:
            model = load(self.path(NETWORKS[name]))
            self._dense[name] = (accuracy(model, NETWORKS[name], self.images), *sizes(model))
        return self._dense[name]

    def _result(self, cell: Cell, network: Network, small: Model, command: str) -> Result:
        dense = self._original(cell.network)
        macs, parameters = sizes(small)
        return Result(
            cell,
            accuracy=(dense[0], accuracy(small, network, self.images)),
            macs=(dense[1], macs),
            parameters=(dense[2], parameters),
            seconds=None,
            cpu_seconds=None,
            command=command,
        )


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _judge(result: Result, network: Network) -> None:
    """Note what is below the bar."""
    bar = network.bars[result.cell.fewer]
    if result.cell.method != "calibrate" or result.cell.effort != "normal":
        return
    before, after = result.accuracy
    if bar is not None and bar < 1 and network.budget == "params":
        if after < bar:
            result.missed.append(f"{100 * after:.2f} % of at least {100 * bar:.2f} %")
    elif bar is not None and 100 * (before - after) > bar:
        result.missed.append(f"{100 * (before - after):.2f} points lost of at most {bar:g}")
    # Processor time is what the command would take on one core of its own, whoever else works on this machine.
    if result.seconds is not None and result.cpu_seconds is not None:
        seconds = min(result.seconds, result.cpu_seconds)
        if seconds > MOST_SECONDS:
            result.missed.append(f"{seconds:.0f} s of at most {MOST_SECONDS:.0f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, write the page."""
    parser = argparse.ArgumentParser(description="Pruning from unlabelled samples, cell by cell.")
    parser.add_argument("--models", type=Path, default=Path("../shared/models"))
    parser.add_argument(
        "--mnist", type=Path, default=Path("../shared/data"), help="folder of MNIST's gzipped IDX files"
    )
    parser.add_argument("--cifar", type=Path, help="folder with train/CLASS/* and test/CLASS/*, or two .npz")
    parser.add_argument("--onnxsim", help="Python of an environment with onnxsim and onnxruntime")
    parser.add_argument("--only", default="", help="only cells whose name contains this")
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    given = parser.parse_args(arguments)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given, Path(folder))
        for cell in queue():
            path = result_path(cell)
            if given.only not in cell.name or (path.exists() and not given.again):
                continue
            result = bench.measure(cell)
            if result is None:
                print(f"{cell.name}: not measured, something it needs is not here", file=sys.stderr, flush=True)
                continue
            path.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
            words = "; ".join(result.missed)
            print(
                f"{cell.name}: {result.accuracy[0]:.4f} -> {result.accuracy[1]:.4f} {words}",
                file=sys.stderr,
                flush=True,
            )
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    page = render(results)
    PAGE.write_text(page, encoding="utf-8")
    print(page)
    return 1 if any(result["missed"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
