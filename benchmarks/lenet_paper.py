"""LeNet-5 on MNIST with the settings of the paper, ``--preset lenet5-paper``: both modes, three seeds.

Run from the root of the repository: ``python -m benchmarks.lenet_paper``. The model and the data lie beside the
repository (``../shared``) unless ``--model`` and ``--data`` say otherwise. A *cell* is a mode and a seed, a run of the
command line as a user has it. Every cell is a file of benchmarks/results/lenet_paper/ and is measured once: what is
there is not measured again, so that the queue may be stopped and begun as one likes; ``--again`` forgets them,
``--only`` names some by the start of their names. Writes benchmarks/lenet_paper.md from all files there are.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

from benchmarks.lenet import MEAN, ROOT, STD

RESULTS: Final = ROOT / "benchmarks" / "results" / "lenet_paper"
PAGE: Final = ROOT / "benchmarks" / "lenet_paper.md"
MODES: Final = ("joint", "holistic")
SEEDS: Final = (0, 1, 2)

Cell = dict[str, Any]


def words_of(mode: str, seed: int, model: Path, data: Path) -> list[str]:
    """Return the words of the command, but for its folder."""
    train, test = (
        f"{data / f'mnist-{part}-images-idx3-ubyte.gz'},{data / f'mnist-{part}-labels-idx1-ubyte.gz'}"
        for part in ("train", "t10k")
    )
    return [
        *("compress", str(model), "--data", train, "--test", test, "--mean", MEAN, "--std", STD),
        *("--preset", "lenet5-paper", "--mode", mode, "--workers", "1", "--no-bench"),
        *("--seed", str(seed)),
    ]


def measured(words: Sequence[str]) -> Cell:
    """Run the command line as a user does, and return what the table tells of it."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "onnxadmm.cli", *words, "--out", str(Path(folder) / "out"), "--quiet", "--json"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    report = json.loads(done.stdout)
    weights = {line["name"]: line["kept"] for line in report["connections"]["weights"]}
    return {
        "command": shlex.join(["onnxadmm", *words, "--out", "out/"]),
        "seconds": time.perf_counter() - start,
        **{name: _figures(report[name]) for name in ("before", "after")},
        "units": {group["name"]: [group["units_before"], group["units_after"]] for group in report["groups"]},
        "connections": weights,
        "verified_db": float(report["verification"]["snr_db"]),
        "machine": report["machine"],
        "versions": report["versions"],
    }


def _figures(column: Cell) -> Cell:
    names = ("parameters", "nonzero_parameters", "macs", "file_bytes")
    return {
        **{name: column[name] for name in names},
        "test": column["test"]["value"],
        "held out": column["heldout"]["value"],
    }


def render(cells: dict[tuple[str, int], Cell]) -> str:
    """Return the page."""
    first = next(iter(cells.values()))
    head = ["mode", "seed", "test accuracy", "non-zero connections", "units"]
    head += ["parameters", "of them not zero", "bytes", "minutes"]
    lines = [
        "# LeNet-5 with the settings of the paper",
        "",
        "`--preset lenet5-paper`, MNIST: what it stands for, and where it is not the paper's experiment, is told in",
        "[the method](../docs/method.md#the-papers-settings-for-lenet-5). The usual epochs; each one of pruning has",
        "one choice of units and connections, which are told layer by layer.",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
        _row("dense", "", first["before"], "", ""),
    ]
    for (mode, seed), cell in cells.items():
        units = " ".join(str(after) for _, after in cell["units"].values())
        lines.append(
            _row(f"`{mode}`", str(seed), cell["after"], units, f"{cell['seconds'] / 60:.1f}", cell["connections"])
        )
    lines.append("")
    for mode in MODES:
        found = [cell["after"]["test"] for (each, _), cell in cells.items() if each == mode]
        if found:
            told = f"- `{mode}`: {100 * mean(found):.2f} % of the test images"
            spread = f" in the mean, {100 * min(found):.2f} to {100 * max(found):.2f} % over {len(found)} seeds."
            lines.append(told + (spread if len(found) > 1 else " (one seed)."))
    machine = first["machine"]
    lines += [
        "",
        "```sh",
        first["command"],
        "```",
        "",
        f"Measured on {machine['cpu']}, {machine['simd']}, one worker, shared with other work, by",
        "`python -m benchmarks.lenet_paper`.",
        "",
    ]
    return "\n".join(lines)


def _row(
    name: str, seed: str, column: Cell, units: str, minutes: str, connections: dict[str, int] | None = None
) -> str:
    kept = "" if connections is None else f"{sum(connections.values()):,} ({' '.join(map(str, connections.values()))})"
    cells = [
        *(name, seed, f"{100 * column['test']:.2f} %", kept, units),
        *(f"{column['parameters']:,}", f"{column['nonzero_parameters']:,}", f"{column['file_bytes']:,}", minutes),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Measure what has not been measured, and write the page."""
    parser = argparse.ArgumentParser(description="LeNet-5 on MNIST with the settings of the paper.")
    parser.add_argument("--model", type=Path, default=Path("../shared/models/lenet5_mnist.onnx"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of MNIST's gzipped IDX files")
    parser.add_argument("--only", default="", help="start of the names of the cells that are measured: joint-0")
    parser.add_argument("--again", action="store_true", help="measure cells anew")
    given = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    cells: dict[tuple[str, int], Cell] = {}
    for mode in MODES:
        for seed in SEEDS:
            path = RESULTS / f"{mode}-{seed}.json"
            asked = path.stem.startswith(given.only)
            if asked and (given.again or not path.exists()):
                cell = measured(words_of(mode, seed, given.model, given.data))
                path.write_text(json.dumps(cell, indent=1) + "\n", encoding="utf-8")
                print(f"{path.stem}: {100 * cell['after']['test']:.2f} %", file=sys.stderr, flush=True)
            if path.exists():
                cells[mode, seed] = json.loads(path.read_text(encoding="utf-8"))
    PAGE.write_text(render(cells), encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
