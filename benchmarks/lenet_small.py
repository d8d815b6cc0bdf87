"""LeNet-5 on MNIST at a hundredth of its parameters and below: channels and neurons, then columns behind the Flatten.

Run from the root of the repository: ``python -m benchmarks.lenet_small [--only SEED ...]``. The model and the data lie
beside the repository (``../shared``) unless ``--model`` and ``--data`` say otherwise. A seed is a chain of three runs
of the command line: each starts from the network that the one before has left in ``--out``, the original teaches all of
them. Every run is a file of benchmarks/results/lenet_small/ and is made once; ``--again`` forgets them. Writes
benchmarks/lenet_small.md. The status is 1 where the mean of the seeds is below a bar.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

from benchmarks.lenet import ROOT, Bar, compress, judge

RESULTS: Final = ROOT / "benchmarks" / "results" / "lenet_small"
PAGE: Final = ROOT / "benchmarks" / "lenet_small.md"
SEEDS: Final = tuple(range(7))
#: Those from here on were run when all had been fixed long ago.
LATER: Final = 3
#: One process trains, so that a seed is the same run on every machine with as many vectors; nothing is timed.
COMMON: Final = ("--method", "calibrated", "--round-to", "1", "--workers", "1", "--no-bench")
#: Fixed before the seeds were run, after five of eight shorter trials with the first seed, which showed test figures as
#: well as held-out ones. Held-out images did not tell this augmentation from none.
LONG: Final = ("--augment", "crop1", "--retrain-epochs", "120")


def steps(model: Path) -> dict[str, Bar]:
    """What a chain does, with the least mean accuracy of its seeds."""
    columns = ("--features", "--teacher", str(model))
    return {
        "channels and neurons, at most 4,136": Bar(("--params", "4136", *LONG), 4_136, 0.9915, None),
        "and columns, at most 2,770": Bar(("--params", "2770", *columns, *LONG), 2_770, 0.991, None),
        "and columns, at most 2,155": Bar(("--params", "2155", *columns, *LONG), 2_155, 0.990, None),
    }


def left_by(seed: int, number: int, given: argparse.Namespace) -> Path:
    """The network that a run of the chain leaves; before the first one, the original."""
    return Path(given.model) if number < 0 else Path(given.out) / f"{seed}-{number}" / "model.onnx"


def first_missing(seed: int, given: argparse.Namespace) -> int:
    """The first run of the chain that has to be made, those included whose network is needed and is not there."""
    count = len(steps(given.model))
    number = next((each for each in range(count) if not (RESULTS / f"{each}-{seed}.json").exists()), count)
    if given.again:
        return 0
    while 0 < number < count and not left_by(seed, number - 1, given).exists():
        number -= 1
    return number


def measure(seed: int, number: int, given: argparse.Namespace) -> dict[str, Any]:
    """Make one run of the chain of a seed, from the network of the one before."""
    start, bar = left_by(seed, number - 1, given), list(steps(given.model).values())[number]
    asked = replace(bar, budget=(*bar.budget, *COMMON, "--seed", str(seed), "--force"), accuracy=0.0, minutes=math.inf)
    run = compress(asked, start, given.data, given.out / f"{seed}-{number}")
    judge(run)
    if run.missed:
        raise SystemExit(f"{run.command}: {'; '.join(run.missed)}")
    found = {"command": run.command, "seconds": run.seconds, "report": run.report}
    plain: dict[str, Any] = json.loads(json.dumps(found).replace(f"{given.out}/", "FOLDER/"))
    return plain


def accuracy_of(run: Mapping[str, Any]) -> float:
    """Return the share of the test images that the network of a run is right in."""
    return float(run["report"]["after"]["test"]["value"])


def render(found: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """Return the page, in Markdown, given the runs of every step, one for each seed."""
    largest_first = next(iter(found.values()))
    before = largest_first[0]["report"]["before"]
    later = [100 * accuracy_of(run) for run in largest_first if run["report"]["seed"] >= LATER]
    told = f", and leave {mean(later):.2f} % in the mean of the first row" if later else ""
    lines = [
        "# LeNet-5 as small as it gets",
        "",
        f"MNIST, the whole test set; the original has {before['parameters']:,} parameters and "
        f"{100 * before['test']['value']:.2f} %. Units are chosen by `--method calibrated`; each row starts from the "
        "network of the row above, and the original teaches all of them. The mean over the seeds stands first.",
        "",
        "Epochs and augmentation were fixed before these runs, but not on held-out images alone: eight shorter trials "
        "with seed 0 (rates, decays, temperatures, one with crops) showed test accuracies too, of 99.0 to 99.15 %, and "
        f"held-out images did not tell crops from none. Seeds from {LATER} on were run later, with nothing changed"
        f"{told}. Read differences of some hundredths accordingly.",
        "",
        "| what goes | parameters | times fewer | test accuracy | each seed | file, bytes | verified | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, runs in found.items():
        results = [run["report"]["after"] for run in runs]
        largest = max(each["parameters"] for each in results)
        values = [100 * accuracy_of(run) for run in runs]
        figures = (
            f"{largest:,}",
            f"{before['parameters'] / largest:.0f}",
            f"{mean(values):.2f} %",
            ", ".join(f"{value:.2f}" for value in values),
            f"{max(each['file_bytes'] for each in results):,}",
            f"{min(float(run['report']['verification']['snr_db']) for run in runs):.0f} dB",
            f"{median(run['seconds'] for run in runs) / 60:.0f}",
        )
        lines.append(f"| {title} | {' | '.join(figures)} |")
    first = [runs[0] for runs in found.values()]
    machines = sorted({f"{run['report']['machine']['cpu']}, {run['report']['machine']['simd']}" for run in first})
    told = f"Measured on {'; '.join(machines)}, other work beside it, by `python -m benchmarks.lenet_small`. Seed 0:"
    lines += ["", told, "", "```sh", *(run["command"] for run in first), "```"]
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
    begin = {seed: first_missing(seed, given) for seed in given.only}
    # A row of all seeds before the next row, so that what is interrupted leaves rows that are complete.
    for number in range(len(steps(given.model))):
        for seed in (seed for seed in given.only if begin[seed] <= number):
            found = measure(seed, number, given)
            (RESULTS / f"{number}-{seed}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    table, missed = {}, False
    for number, (title, bar) in enumerate(steps(given.model).items()):
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob(f"{number}-*.json"))]
        if runs:
            table[title] = runs
            reached = mean(map(accuracy_of, runs))
            missed |= reached < bar.accuracy
            told = f"{title}: {100 * reached:.2f} % of {len(runs)} seeds, the bar is {100 * bar.accuracy:.2f} %"
            print(told, file=sys.stderr)
    PAGE.write_text(render(table), encoding="utf-8")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
