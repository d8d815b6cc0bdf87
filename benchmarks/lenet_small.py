"""LeNet-5 on MNIST at a hundredth of its parameters and below: channels and neurons, then columns behind the Flatten.

Run from the root of the repository: ``python -m benchmarks.lenet_small [--only SEED ...]``. The model and the data lie
beside the repository (``../shared``) unless ``--model`` and ``--data`` say otherwise. A seed is a chain of three runs
of the command line: each starts from the network that the one before has left, the original teaches all of them. Every
seed is a file of benchmarks/results/lenet_small/ and is measured once, its networks stay in ``--out``; ``--again``
forgets it. Writes benchmarks/lenet_small.md. The status is 1 where the mean of the seeds is below a bar.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any, Final

from benchmarks.lenet import ROOT, Bar, compress, judge

RESULTS: Final = ROOT / "benchmarks" / "results" / "lenet_small"
PAGE: Final = ROOT / "benchmarks" / "lenet_small.md"
SEEDS: Final = (0, 1, 2)
#: One process trains, so that a seed is the same run on every machine with as many vectors; nothing is timed.
COMMON: Final = ("--method", "calibrated", "--round-to", "1", "--workers", "1", "--no-bench")
#: Lengths and augmentation were chosen on held-out images.
LONG: Final = ("--augment", "crop1", "--retrain-epochs", "120")


def steps(model: Path) -> dict[str, Bar]:
    """What a chain does, with the least mean accuracy of its seeds."""
    columns = ("--features", "--teacher", str(model))
    return {
        "channels and neurons": Bar(("--params", "4136", *LONG), 4_136, 0.9915, None),
        "and columns, 156x": Bar(("--params", "2770", *columns, *LONG), 2_770, 0.991, None),
        "and columns, 200x": Bar(("--params", "2155", *columns, *LONG), 2_155, 0.990, None),
    }


def measure(seed: int, model: Path, data: Path, out: Path) -> list[dict[str, Any]]:
    """Make the chain of a seed."""
    runs, start = [], model
    for number, bar in enumerate(steps(model).values()):
        asked = Bar((*bar.budget, *COMMON, "--seed", str(seed), "--force"), bar.parameters, 0.0, None, minutes=1e9)
        folder = out / f"{seed}-{number}"
        run = compress(asked, start, data, folder)
        judge(run)
        if run.missed:
            raise SystemExit(f"{run.command}: {'; '.join(run.missed)}")
        runs.append(json.loads(json.dumps(asdict(run)).replace(f"{out}/", "FOLDER/")))
        start = folder / "model.onnx"
    return runs


def render(chains: Sequence[Sequence[dict[str, Any]]]) -> str:
    """Return the page, in Markdown."""
    before = chains[0][0]["report"]["before"]
    lines = [
        "# LeNet-5 as small as it gets",
        "",
        f"MNIST, the whole test set; the original has {before['parameters']:,} parameters and "
        f"{100 * before['test']['value']:.2f} %. Units are chosen by `--method calibrated`; each row starts from the "
        "network of the row above, and the original teaches all of them. The mean over the seeds stands first.",
        "",
        "| what goes | parameters | times fewer | test accuracy | each seed | file, bytes | verified | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, title in enumerate(steps(Path())):
        runs = [chain[number] for chain in chains]
        found = [run["report"]["after"] for run in runs]
        largest = max(each["parameters"] for each in found)
        values = [100 * each["test"]["value"] for each in found]
        figures = (
            f"{largest:,}",
            f"{before['parameters'] / largest:.0f}",
            f"{mean(values):.2f} %",
            ", ".join(f"{value:.2f}" for value in values),
            f"{max(each['file_bytes'] for each in found):,}",
            f"{min(float(run['report']['verification']['snr_db']) for run in runs):.0f} dB",
            f"{mean(run['seconds'] for run in runs) / 60:.0f}",
        )
        lines.append(f"| {title} | {' | '.join(figures)} |")
    machines = sorted({f"{run['report']['machine']['cpu']}, {run['report']['machine']['simd']}" for run in chains[0]})
    told = f"Measured on {'; '.join(machines)}, other work beside it, by `python -m benchmarks.lenet_small`. Seed 0:"
    lines += ["", told, "", "```sh", *(run["command"] for run in chains[0]), "```"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure the seeds that are not there yet, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("../shared/models/lenet5_mnist.onnx"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of MNIST's gzipped IDX files")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "lenet_small", help="folder of the networks")
    parser.add_argument("--only", type=int, nargs="+", default=SEEDS, help="seeds")
    parser.add_argument("--again", action="store_true", help="forget what was measured of them")
    given = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in given.only:
        path = RESULTS / f"{seed}.json"
        if given.again or not path.exists():
            chain = measure(seed, given.model, given.data, given.out)
            path.write_text(json.dumps(chain, indent=1) + "\n", encoding="utf-8")
    chains = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    PAGE.write_text(render(chains), encoding="utf-8")
    missed = False
    for number, (title, bar) in enumerate(steps(given.model).items()):
        reached = mean(chain[number]["report"]["after"]["test"]["value"] for chain in chains)
        print(f"{title}: {100 * reached:.2f} % of {len(chains)} seeds, the bar is {100 * bar.accuracy:.2f} %")
        missed |= reached < bar.accuracy
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
