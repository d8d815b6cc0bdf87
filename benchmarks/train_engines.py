"""Speed and memory of the engines that train beside each other: a table of docs/training.md.

Run from the root of the repository: ``python -m benchmarks.train_engines --torch PYTHON --newest PYTHON``, as for
benchmarks/train_speed.py, which compares with PyTorch and needs a machine of its own. Here only engines take turns, of
one process and one thread each, and the fastest of all steps counts, which what else the machine does makes slower and
never faster. Writes benchmarks/results/train_engines.json and the table; with ``--networks`` the others' rows stay.
Linux only.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.train_speed import ENGINES, NETWORKS, ROOT, Contender, processor, put_into_page

RESULTS = ROOT / "benchmarks" / "results" / "train_engines.json"
MARKS = ("<!-- train-engines -->", "<!-- /train-engines -->")


def contenders(network: str, folder: Path, options: argparse.Namespace) -> list[Contender]:
    pythons = {"training": sys.executable, "plain": sys.executable, "plain, newest": options.newest}
    found = []
    for engine in ENGINES:
        command = [pythons[engine], "-m", "benchmarks.train_speed_onnxadmm", str(folder / f"{network}.onnx")]
        words = [engine.partition(",")[0], str(options.batch), "1", str(options.seconds)]
        found.append(Contender(network, engine, [*command, *words]))
    return found


def table(rows: list[dict[str, Any]], newest: str) -> str:
    """Markdown: one row per network, geometric means in the last."""
    titles = ["training build", "plain", f"plain, {newest}"]
    lines = ["| | " + " | ".join([*titles, "plain / training", f"plain, {newest} / training", "memory, MB"]) + " |"]
    lines.append("|---" * 7 + "|")
    ratios: list[list[float]] = []
    for network in {row["network"]: None for row in rows}:
        own = [next(r for r in rows if (r["network"], r["contender"]) == (network, engine)) for engine in ENGINES]
        ratios.append([row["fastest"] / own[0]["fastest"] for row in own[1:]])
        cells = [f"{row['fastest']:,.0f}" for row in own] + [f"{ratio:.2f}" for ratio in ratios[-1]]
        lines.append("| " + " | ".join([network, *cells, " / ".join(f"{row['peak_mb']:,.0f}" for row in own)]) + " |")
    means = [math.exp(statistics.mean(math.log(each[place]) for each in ratios)) for place in (0, 1)]
    lines.append(f"| geometric mean | | | | {means[0]:.2f} | {means[1]:.2f} | |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", required=True, metavar="PYTHON", help="Python of the environment with PyTorch")
    parser.add_argument("--newest", required=True, metavar="PYTHON", help="Python of one with the newest onnxruntime")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of every measurement, at least")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        script = str(ROOT / "benchmarks" / "train_speed_torch.py")
        subprocess.run([options.torch, script, "export", name], check=True, stdout=subprocess.DEVNULL)
        every = [item for network in options.networks for item in contenders(network, Path(name), options)]
        for _ in range(options.rounds):
            for item in every:
                item.measure()
                print(f"{item.network}, {item.name}: {options.batch / min(item.times):,.0f} / s", file=sys.stderr)
    rows = [item.row(options.batch) | {"rounds": options.rounds, "seconds": options.seconds} for item in every]
    if RESULTS.exists():
        rows += [row for row in json.loads(RESULTS.read_text())["rows"] if row["network"] not in options.networks]
    rows.sort(key=lambda row: NETWORKS.index(row["network"]))
    result = {
        "command": f"python -m benchmarks.train_engines --torch PYTHON --newest PYTHON --batch {options.batch}",
        "machine": {"processor": processor(), "cores": len(os.sched_getaffinity(0))},
        "versions": {item.name: item.version for item in every} | {"python": platform.python_version()},
        "batch": options.batch,
        "rows": rows,
    }
    text = table(rows, every[-1].version)
    print(text)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    put_into_page(text, MARKS)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
