"""Calibration of networks of real sizes: seconds and peak memory, from reading the file to the proof.

Run from the root of the repository: ``python -m benchmarks.calibration_large MODELS``, MODELS being the folder that
benchmarks/calibration_large_models.py wrote. Weights and samples are made, so that this is about time, memory and
proof, and not about accuracy. Memory is that of all processes of the run together, as the system shares it out among
them, looked at three times a second, since each look stops them for a moment. Every network is a file of
benchmarks/results/calibration_large/; what is there is measured again with ``--again`` only. The status is 1 when a bar
is missed.
"""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import in_words
from onnxadmm.bench.simd import this_machine
from onnxadmm.bench.versions import package_versions
from onnxadmm.graph.model import load

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "calibration_large"
PAGE: Final = ROOT / "benchmarks" / "calibration_large.md"
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
Arrays = Sequence[NDArray[Any]]


def sentences(samples: int) -> Arrays:
    """Return made token numbers: some much more frequent than others, as words are, and no padding."""
    generator = np.random.default_rng(0)
    tokens = np.minimum(generator.zipf(1.3, (samples, 128)) - 1, 999).astype(np.int64)
    return tokens, np.ones_like(tokens)


def pictures(samples: int) -> Arrays:
    """Return made pictures: noise of several sizes of grain, float32 ``[samples, 3, 224, 224]``."""
    generator = np.random.default_rng(0)
    images = np.zeros((samples, 3, 224, 224), np.float32)
    for grain in (56, 28, 8, 4, 1):
        noise = generator.normal(size=(samples, 3, 224 // grain, 224 // grain)).astype(np.float32)
        images += noise.repeat(grain, axis=2).repeat(grain, axis=3)
    return (images / np.float32(np.sqrt(5)),)


@dataclass(frozen=True)
class Network:
    """A network, and what its calibration may take.

    Attributes:
        title: what it is.
        make: makes so many samples, an array for each input.
        samples: how many.
        minutes, gigabytes: most of them.
    """

    title: str
    make: Callable[[int], Arrays]
    samples: int
    minutes: float
    gigabytes: float = 6.0


NETWORKS: Final = {
    "bert_base_128": Network("BERT-base, 128 tokens", sentences, 128, 15),
    "vit_small_16": Network("ViT-S/16, 224x224", pictures, 128, 15),
    "resnet50": Network("ResNet-50, 224x224", pictures, 128, 20),
}


@dataclass
class Result:
    """What came out.

    Attributes:
        network: which one.
        samples, effort: it was calibrated with.
        macs, parameters: before and after.
        seconds: wall-clock time of the command; ``cpu_seconds``: of all its processes.
        stages: seconds of the steps, as the report has them.
        peak_megabytes: of all its processes together.
        decibels: of the proof.
        agreement: share of samples, held out of the calibration, on which original and result have the same largest
            output.
        kept: units of each group, before and after.
        missed: what is beyond a bar, in words.
    """

    network: str
    samples: int
    effort: str
    command: str
    macs: tuple[int, int]
    parameters: tuple[int, int]
    seconds: float
    cpu_seconds: float
    stages: Any
    peak_megabytes: float
    decibels: float
    agreement: float | None
    kept: dict[str, list[int]]
    warnings: list[str]
    machine: dict[str, Any] = field(default_factory=lambda: asdict(this_machine()))
    versions: dict[str, str] = field(default_factory=package_versions)
    missed: list[str] = field(default_factory=list)


class Peak:
    """The most memory that a process and its children have taken together, looked at while it runs."""

    def __init__(self, process: int) -> None:
        self.megabytes = 0.0
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.3):
            self.megabytes = max(self.megabytes, sum(_resident(each) for each in _family(self._process)) / 1e6)


def _family(process: int) -> list[int]:
    """A process and all that descend from it."""
    found, waiting = [], [process]
    while waiting:
        found.append(waiting.pop())
        for children in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            try:
                waiting += map(int, children.read_text().split())
            except OSError:  # it has ended
                continue
    return found


def _resident(process: int) -> int:
    """Bytes of a process; what several share counts for each of them in part."""
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1000 * int(line.split()[1])
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:  # it has ended
        return 0


def measure(name: str, model: Path, given: argparse.Namespace) -> Result:
    """Calibrate one network on the command line."""
    network = NETWORKS[name]
    samples = given.samples or network.samples
    words = ["--macs", "0.769", "--effort", given.effort]
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "samples.npz", Path(folder) / "out"
        names = [str(value.name) for value in load(model).ir.graph.inputs]
        np.savez(data, **dict(zip(names, network.make(samples), strict=True)))  # type: ignore[arg-type]  # by name
        command = [sys.executable, "-m", "onnxadmm.cli", "compress", str(model), "--calibrate", str(data), *words]
        start = time.perf_counter()
        with subprocess.Popen([*command, "--no-bench", "--json", "--out", str(out)], cwd=ROOT,
                              stdout=subprocess.DEVNULL) as process, Peak(process.pid) as peak:  # fmt: skip
            status = process.wait()
        seconds = time.perf_counter() - start
        if status:
            raise SystemExit(f"{name}: the command ended with status {status}")
        report = json.loads((out / "report.json").read_text())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    before, after = report["before"], report["after"]
    shown = ["onnxadmm", "compress", model.name, "--calibrate", data.name, *words, "--out", "out/"]
    result = Result(
        network=name,
        samples=samples,
        effort=given.effort,
        command=shlex.join(shown),
        macs=(before["macs"], after["macs"]),
        parameters=(before["parameters"], after["parameters"]),
        seconds=seconds,
        cpu_seconds=used.ru_utime + used.ru_stime,
        stages=report["stages"],
        peak_megabytes=peak.megabytes,
        decibels=float(report["verification"]["snr_db"]),
        agreement=(after["heldout"] or {}).get("value"),
        kept={group["name"]: [group["units_before"], group["units_after"]] for group in report["groups"]},
        warnings=report["warnings"],
    )
    # Half of the processor time is what two cores of its own would take at best, whoever else works on this machine.
    minutes = min(result.seconds, result.cpu_seconds / 2) / 60
    if minutes > network.minutes:
        result.missed.append(f"{minutes:.1f} minutes of at most {network.minutes:g}")
    if peak.megabytes > 1000 * network.gigabytes:
        result.missed.append(f"{peak.megabytes:.0f} MB of at most {1000 * network.gigabytes:.0f}")
    return result


def render(results: Sequence[Mapping[str, Any]]) -> str:
    """The page, in Markdown."""
    lines = [
        "# Calibration of networks of real sizes",
        "",
        "Weights and samples are made: this is about time, memory and proof. Time is that of the whole command, from "
        "reading the file to the proof; memory that of all its processes together. A network may take 15 minutes, "
        "ResNet-50 20, and 6 GB, half of the minutes of the processor counting as those of two cores of its own.",
        "",
        "| network | samples | MACs left | parameters left | minutes | of the processor | peak memory | proof |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        shares = [100 * result[kind][1] / result[kind][0] for kind in ("macs", "parameters")]
        cells = [NETWORKS[result["network"]].title, str(result["samples"]), *(f"{share:.1f} %" for share in shares)]
        cells += [f"{result[seconds] / 60:.1f}" for seconds in ("seconds", "cpu_seconds")]
        cells += [f"{result['peak_megabytes'] / 1000:.1f} GB", f"{result['decibels']:.0f} dB"]
        lines.append(f"| {' | '.join(cells)} |")
    machines = {in_words(it["machine"]) for it in results}
    words = "by `python -m benchmarks.calibration_large MODELS`"
    lines += ["", f"Measured on {'; '.join(sorted(machines))}, shared with other work, {words}.", "", "```sh"]
    lines += [*(result["command"] for result in results), "```"]
    missed = [f"- {result['network']}: {'; '.join(result['missed'])}" for result in results if result["missed"]]
    lines += ["", "Beyond a bar:", "", *missed] if missed else []
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, write the page."""
    parser = argparse.ArgumentParser(description="Calibration of networks of real sizes: seconds and memory.")
    parser.add_argument("models", type=Path, help="folder that benchmarks/calibration_large_models.py wrote")
    parser.add_argument("--only", default="", help="only networks whose name contains this")
    parser.add_argument("--samples", type=int, help="other than usual")
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--again", action="store_true", help="measure also what is there")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    given.results.mkdir(parents=True, exist_ok=True)
    for name in NETWORKS:
        path = given.results / f"{name}.json"
        if given.only in name and (given.again or not path.exists()):
            result = measure(name, given.models / f"{name}_dynamo.onnx", given)
            path.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    paths = [given.results / f"{name}.json" for name in NETWORKS]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    PAGE.write_text(render(results), encoding="utf-8")
    print(render(results))
    return 1 if any(result["missed"] for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
