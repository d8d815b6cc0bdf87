"""LeNet-5 on MNIST at 1 % and at 10 % of its parameters, and at 1 % of them not zero: the figures of the README.

Run from the root of the repository: ``python -m benchmarks.lenet [--plain PYTHON] [--readme]``. The model and the data
lie beside the repository (``../shared``) unless ``--model`` and ``--data`` say otherwise. Writes
benchmarks/results/lenet.json and exits with 1 when a bar is missed. ``--plain`` names the Python of another environment
with numpy and the newest plain onnxruntime where accuracy and latency are measured again; ``--readme`` puts the table
into README.md.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.machine import in_words

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results" / "lenet.json"
MEAN, STD = "0.1307", "0.3081"
MARKS = ("<!-- lenet -->", "<!-- /lenet -->")


@dataclass(frozen=True)
class Bar:
    """What a run must reach.

    Attributes:
        budget: options that say what may stay.
        parameters: most parameters of the result that are not zero.
        accuracy: least share of the test images that is classified rightly.
        file_bytes: most bytes of the file, None for any.
        snr_db: least signal-to-noise ratio of the verification.
        minutes: longest run.
    """

    budget: tuple[str, ...]
    parameters: int
    accuracy: float
    file_bytes: int | None
    snr_db: float = 80.0
    minutes: float = 15.0


BARS = (
    Bar(("--params", "0.01"), 4_311, 0.990, 40_000),
    Bar(("--params", "0.1"), 43_108, 0.993, None),
    Bar(("--params", "0.1", "--connections", "0.098"), 4_305, 0.9925, 51_805),
)


@dataclass
class Run:
    """One run and what came out; ``missed`` says in words what is below the bar."""

    command: str
    bar: Bar
    seconds: float
    report: dict[str, Any]
    plain: dict[str, Any] | None = None
    missed: list[str] = field(default_factory=list)


def compress(bar: Bar, model: Path, data: Path, out: Path) -> Run:
    """Run the command line as a user does."""
    words = [
        *("compress", str(model)),
        *("--data", f"{data / 'mnist-train-images-idx3-ubyte.gz'},{data / 'mnist-train-labels-idx1-ubyte.gz'}"),
        *("--test", f"{data / 'mnist-t10k-images-idx3-ubyte.gz'},{data / 'mnist-t10k-labels-idx1-ubyte.gz'}"),
        *("--mean", MEAN, "--std", STD, *bar.budget),
    ]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "onnxadmm.cli", *words, "--out", str(out), "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - start
    report = json.loads(done.stdout)
    for told in (report["options"], report):  # not the temporary folder of this run
        told.update({name: text.replace(str(out), "out/") for name, text in told.items() if isinstance(text, str)})
    return Run(shlex.join(["onnxadmm", *words, "--out", "out/"]), bar, seconds, report)


def judge(run: Run) -> None:
    """Note what is below the bar."""
    bar, after = run.bar, run.report["after"]
    figures = (
        (after["nonzero_parameters"] <= bar.parameters, f"{after['nonzero_parameters']:,} parameters"),
        (after["test"]["value"] >= bar.accuracy, f"test accuracy {after['test']['value']:.4f}"),
        (bar.file_bytes is None or after["file_bytes"] <= bar.file_bytes, f"{after['file_bytes']:,} bytes"),
        (_decibels(run.report) >= bar.snr_db, f"verified to {_decibels(run.report):.1f} dB"),
        (run.seconds <= 60 * bar.minutes, f"{run.seconds / 60:.1f} minutes"),
    )
    run.missed += [words for met, words in figures if not met]
    if run.plain is not None:
        if run.plain["accuracy_after"] != after["test"]["value"]:
            run.missed.append(f"accuracy {run.plain['accuracy_after']:.4f} in onnxruntime {run.plain['onnxruntime']}")
        run.missed += [
            f"{line['speedup']:.2f}x at batch {line['batch']} in onnxruntime {run.plain['onnxruntime']}"
            for line in run.plain["latency"]
            if line["speedup"] <= 1
        ]


def _decibels(report: dict[str, Any]) -> float:
    # Outputs that are equal to the last bit have the string "inf" in JSON.
    return float(report["verification"]["snr_db"])


def in_plain_runtime(python: str, before: Path, after: Path, data: Path) -> dict[str, Any]:
    """Measure both models in another environment."""
    test = [data / "mnist-t10k-images-idx3-ubyte.gz", data / "mnist-t10k-labels-idx1-ubyte.gz"]
    script = Path(__file__).resolve().parent / "plain_runtime.py"
    words = [python, script, before, after, *test, MEAN, STD]
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(runs: list[Run]) -> str:
    """The README's table, in Markdown."""
    before = runs[0].report["before"]
    columns = [("dense", before), *((f"`{' '.join(run.bar.budget)}`", run.report["after"]) for run in runs)]
    rows = [
        ("parameters", [f"{column['parameters']:,}" for _, column in columns]),
        ("of them not zero", [f"{column['nonzero_parameters']:,}" for _, column in columns]),
        ("multiply-accumulates", [f"{column['macs']:,}" for _, column in columns]),
        ("file, bytes", [f"{column['file_bytes']:,}" for _, column in columns]),
        ("test accuracy", [f"{100 * column['test']['value']:.2f} %" for _, column in columns]),
        ("verification", ["", *(f"{_decibels(run.report):.0f} dB" for run in runs)]),
        ("minutes", ["", *(f"{run.seconds / 60:.1f}" for run in runs)]),
    ]
    for index, line in enumerate(runs[0].report["latency"]):
        times = [run.report["latency"][index] for run in runs]
        cells = [f"{time['after']['median_ms']:.3f} ({time['speedup']:.1f}x)" for time in times]
        rows.append((f"ms at batch {line['batch']}", [f"{line['before']['median_ms']:.3f}", *cells]))
    head = ["| | " + " | ".join(name for name, _ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join([*head, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)])


def write_readme(runs: list[Run]) -> None:
    """Put the table, and the command that made each column, between the marks of README.md."""
    path = ROOT / "README.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    # Paths as they are typed by somebody who stands in the repository.
    command = runs[0].command.replace(" ".join(runs[0].bar.budget), "BUDGET")
    told = in_words(runs[0].report["machine"])
    page = f"```sh\n{command}\n```\n\n{table(runs)}\n\nMeasured on {told} by `python -m benchmarks.lenet --readme`."
    path.write_text(f"{before}{MARKS[0]}\n{page}\n{MARKS[1]}{after}", encoding="utf-8")


def main() -> int:
    """Run them all, write the results, print the table."""
    parser = argparse.ArgumentParser(description="LeNet-5 on MNIST at 1 % and at 10 % of its parameters.")
    parser.add_argument("--model", type=Path, default=Path("../shared/models/lenet5_mnist.onnx"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of MNIST's gzipped IDX files")
    parser.add_argument("--plain", help="Python of an environment with numpy and plain onnxruntime")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON to write")
    parser.add_argument("--readme", action="store_true", help="put the table into README.md")
    given = parser.parse_args()
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, bar in enumerate(BARS):
            out = Path(folder) / str(number)
            run = compress(bar, given.model, given.data, out)
            if given.plain:
                run.plain = in_plain_runtime(given.plain, given.model, out / "model.onnx", given.data)
            judge(run)
            runs.append(run)
    given.results.parent.mkdir(parents=True, exist_ok=True)
    given.results.write_text(json.dumps([asdict(run) for run in runs], indent=2) + "\n")
    if given.readme:
        write_readme(runs)
    print(table(runs))
    for run in runs:
        for words in run.missed:
            print(f"below the bar with {' '.join(run.bar.budget)}: {words}", file=sys.stderr)
    return 1 if any(run.missed for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
