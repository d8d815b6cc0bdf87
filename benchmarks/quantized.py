"""Networks that are pruned and written in bytes as well: what is left of the file, and of the accuracy.

Run from the root of the repository: ``python -m benchmarks.quantized --cifar FOLDER``, with FOLDER, ``--mnist`` and
``--models`` as for ``benchmarks.calibration``, whose networks these are. Each is pruned by ``compress --calibrate
--int8`` with 512 unlabelled training images; both files are tested on the whole test set. Writes
benchmarks/results/quantized/NETWORK.json after each network, leaves out what is there already, and writes
benchmarks/quantized.md. The status is 1 when bytes cost more than ``POINTS``.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import onnxadmm as oa
from benchmarks.calibration import Bench
from benchmarks.machine import in_words
from benchmarks.pictured import NETWORKS, accuracy
from onnxadmm.bench.simd import this_machine
from onnxadmm.bench.versions import package_versions
from onnxadmm.graph.model import load
from onnxadmm.report.report import VariantLine

ROOT: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = ROOT / "benchmarks" / "results" / "quantized"
PAGE: Final = ROOT / "benchmarks" / "quantized.md"
#: By how many times fewer, and what.
CUTS: Final = {"lenet5": 10.0, "resnet20": 1.5, "cifarnet": 1.5}
TITLES: Final = {"lenet5": "LeNet-5, MNIST", "resnet20": "ResNet-20, CIFAR-10", "cifarnet": "VGG-like, CIFAR-10"}
#: Most points of test accuracy that bytes may cost a pruned network.
POINTS: Final = 0.3


@dataclass
class Result:
    """One network.

    Attributes:
        network: its name.
        fewer: how many times fewer multiply-accumulates (LeNet-5: parameters) the pruned one has.
        accuracy: on the test set, of the original, the pruned, the pruned in bytes, and with weights in 16 bits.
        file_bytes: of the four.
        floats: operators that kept theirs.
        speedups: of the pruned one by bytes, on one thread: by batch size the ratio and its 95 % interval.
        speedups_in_halves: by weights in 16 bits.
        command: that made it.
        machine, versions: it was measured with.
    """

    network: str
    fewer: float
    accuracy: tuple[float, ...]
    file_bytes: tuple[int, ...]
    floats: list[str]
    speedups: dict[str, tuple[float, float, float]]
    speedups_in_halves: dict[str, tuple[float, float, float]]
    command: str
    machine: dict[str, Any] = field(default_factory=lambda: asdict(this_machine()))
    versions: dict[str, str] = field(default_factory=package_versions)


def measure(name: str, bench: Bench, folder: Path) -> Result:
    """Prune, write in bytes as well, test."""
    network, fewer = NETWORKS[name], CUTS[name]
    samples, original = bench.images.samples(network.data, 0), bench.path(network)
    done = oa.compress(
        original,
        calibrate=samples,
        budget={network.budget: 1 / fewer},
        preprocessing={"mean": network.mean, "std": network.std},
        out=folder / name,
        int8=True,
        fp16=True,
        bench_threads=1,
    )
    int8, fp16 = done.variants
    files = (original, *(folder / name / file for file in ("model.onnx", int8.file, fp16.file)))
    one, two, three, four = (accuracy(load(file), network, bench.images) for file in files)
    return Result(
        network=name,
        fewer=fewer,
        accuracy=(one, two, three, four),
        file_bytes=tuple(path.stat().st_size for path in files),
        floats=list(int8.floats),
        speedups=_speedups(int8),
        speedups_in_halves=_speedups(fp16),
        command=f"python -m benchmarks.quantized --cifar FOLDER --only {name}",
    )


def _speedups(variant: VariantLine) -> dict[str, tuple[float, float, float]]:
    return {str(line.batch): (line.speedup, line.speedup_low, line.speedup_high) for line in variant.latency}


def render(results: Sequence[dict[str, Any]]) -> str:
    """The page."""
    lines = [
        "# Pruned, and then in bytes",
        "",
        "Each network is pruned by `compress --calibrate --int8 --fp16` with 512 unlabelled training images, which",
        "writes it in floats, in bytes and with weights in 16 bits; accuracy is that of the whole test set. The",
        "speed-ups are those of bytes and of 16 bits alone, the pruned network in floats being 1, on one thread at the",
        "batch sizes given, with 95 % intervals.",
        "",
        f"Made by `python -m benchmarks.quantized --cifar FOLDER` on {_machine(results)}. Other work ran on the same",
        "cores, which shows in how wide some intervals are.",
        "",
        "| network | pruned | accuracy: original, pruned, in bytes, in 16 bits | kB | speed-up by bytes | by 16 bits |",
        "|---|---|---|---|---|---|",
    ]
    for result in results:
        scores = ", ".join(f"{100 * value:.2f} %" for value in result["accuracy"])
        sizes = ", ".join(f"{size / 1000:,.0f}" for size in result["file_bytes"])
        bytes_, halves = (
            "; ".join(
                f"batch {batch}: {ratio:.2f} ({low:.2f} to {high:.2f})" for batch, (ratio, low, high) in each.items()
            )
            for each in (result["speedups"], result["speedups_in_halves"])
        )
        title, fewer = TITLES[result["network"]], f"{result['fewer']:g}x"
        lines.append(f"| {title} | {fewer} | {scores} | {sizes} | {bytes_} | {halves} |")
    return "\n".join(lines) + "\n"


def _machine(results: Sequence[dict[str, Any]]) -> str:
    machines = [result["machine"] for result in results]
    return "; ".join(sorted({in_words(each) for each in machines}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, write the page."""
    parser = argparse.ArgumentParser(description="Networks that are pruned and quantised.")
    parser.add_argument("--models", type=Path, default=Path("../shared/models"))
    parser.add_argument("--mnist", type=Path, default=Path("../shared/data"), help="folder of MNIST's IDX files")
    parser.add_argument("--cifar", type=Path, help="folder with train/CLASS/* and test/CLASS/*, or two .npz")
    parser.add_argument("--only", default="", help="only networks whose name contains this")
    given = parser.parse_args(arguments)
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given, Path(folder))
        for name in CUTS:
            path = RESULTS / f"{name}.json"
            needs = NETWORKS[name].data == "cifar" and given.cifar is None
            if given.only not in name or path.exists() or needs or not bench.path(NETWORKS[name]).exists():
                continue
            result = measure(name, bench, Path(folder))
            path.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
            print(f"{name}: {result.accuracy}", file=sys.stderr, flush=True)
    results = [
        json.loads(path.read_text(encoding="utf-8")) for name in CUTS if (path := RESULTS / f"{name}.json").exists()
    ]
    PAGE.write_text(render(results), encoding="utf-8")
    print(render(results))
    return int(any(100 * (each["accuracy"][1] - each["accuracy"][2]) > POINTS for each in results))


if __name__ == "__main__":
    sys.exit(main())
