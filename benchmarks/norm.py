"""ResNet-20 on CIFAR-10: what BatchNormalization in training mode does for pruning and retraining.

Run from the root of the repository: ``python -m benchmarks.norm --images FOLDER``, FOLDER holding CIFAR-10 as
``train/CLASS/*`` and ``test/CLASS/*``. The two models lie beside the repository (``../shared``) unless ``--models``
says otherwise: ``resnet20_cifar10.onnx``, whose exporter folded BatchNormalization into the convolutions, and
``resnet20_cifar10_bn.onnx``, the same network with it. Each way to train (``--norm keep`` and ``restore``) prunes once
and retrains from there with each learning rate, in one process with one thread. Adds to benchmarks/results/norm.json
after every retraining and prints the table of docs/method.md: held-out accuracy when pruned and retrained, and test
accuracy.
"""

import argparse
import itertools
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import runs
from onnxadmm.bench.simd import this_machine
from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.model import Model
from onnxadmm.plan.budget import Budget
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.run.recipe import Preprocessing, Recipe
from onnxadmm.run.steps import Compression
from onnxadmm.run.trainings import Training
from onnxadmm.train.data.sources import read_source

RESULTS = Path(__file__).resolve().parent / "results" / "norm.json"
MODELS = {"folded": "resnet20_cifar10.onnx", "kept": "resnet20_cifar10_bn.onnx"}
PREPROCESSING = Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), augment="flip,crop4")

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True)
class Row:
    """One retraining.

    Attributes:
        model: what the file has: BatchNormalization ``"folded"`` or ``"kept"``.
        norm: how it was trained.
        macs: share of the multiply-accumulates that may stay.
        rate: highest learning rate of retraining.
        held_out, test: accuracy of the result; ``pruned_...``: before retraining; ``dense_...``: of the original.
        seconds: processor time of retraining, and of pruning before it.
    """

    model: str
    norm: str
    macs: float
    seed: int
    rate: float
    dense_held_out: float
    dense_test: float
    pruned_held_out: float
    pruned_test: float
    held_out: float
    test: float
    seconds: float
    prune_seconds: float


@dataclass(frozen=True)
class Data:
    """Training images and test images, uint8 ``[n, 3, 32, 32]``, with their classes, int64 ``[n]``."""

    training: Arrays
    test: Arrays


def read(folder: Path, samples: int) -> Arrays:
    """Read some images of a folder of class folders, drawn at random, always the same."""
    raw = read_source(folder)
    assert raw.labels is not None
    chosen = np.random.default_rng(0).permutation(len(raw.labels))[:samples]
    images = np.ascontiguousarray(raw.inputs["0"][chosen].transpose(0, 3, 1, 2))
    return images, raw.labels[chosen]


def begin(model: Path, norm: str, macs: float, seed: int, data: Data, epochs: tuple[int, int]) -> Compression:
    """Find the units and read the data."""
    recipe = Recipe(epochs=epochs[0], retrain_epochs=epochs[1], norm=norm, workers=1)  # type: ignore[arg-type]
    return runs.begin(
        model,
        Budget(macs=macs),
        recipe,
        PREPROCESSING,
        round_to=this_machine().simd_floats,
        seed=seed,
        data=data.training,
        test=data.test,
    )


def accuracies(training: Training, model: Model) -> tuple[float, float]:
    """Share of the held-out and of the test images that is classified rightly."""
    assert training.test is not None
    found = [training.metrics(model, part).accuracy for part in (training.held_out, training.test)]
    assert found[0] is not None
    assert found[1] is not None
    return found[0], found[1]


def measure(run: Compression, *, kind: str, norm: str, macs: float, rates: Sequence[float]) -> Iterator[Row]:
    """Prune once, then retrain with each learning rate."""
    training = run.training
    start = time.process_time()
    pruned = training.prune(run.ready, run.problem, keep_state=runs.forget, resume={})
    prune_seconds = time.process_time() - start
    small = shrink(with_constants(run.ready, pruned.weights), run.units, pruned.keep)
    dense, before = accuracies(training, run.ready), accuracies(training, small)
    for rate in rates:
        start = time.process_time()
        chosen = replace(training, recipe=replace(training.recipe, retrain_learning_rate=rate))
        after = accuracies(training, chosen.retrain(small, pruned, keep_state=runs.forget, resume={}))
        seconds = time.process_time() - start
        yield Row(kind, norm, macs, run.choices.seed, rate, *dense, *before, *after, seconds, prune_seconds)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| in the file | MACs | seed | `--retrain-learning-rate` | `--norm` | pruned | retrained | test |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row.model, row.macs, row.seed, row.rate, row.norm)):
        cells = [row.model, f"{row.macs:g}", str(row.seed), f"{row.rate:g}", row.norm]
        cells += [f"{100 * share:.1f} %" for share in (row.pruned_held_out, row.held_out, row.test)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Run what was asked for, write the results, print the table."""
    parser = argparse.ArgumentParser(description="ResNet-20 on CIFAR-10 with and without BatchNormalization.")
    parser.add_argument("--images", type=Path, required=True, help="folder with train/CLASS/* and test/CLASS/*")
    parser.add_argument("--models", type=Path, default=Path("../shared/models"))
    parser.add_argument("--kinds", nargs="+", choices=sorted(MODELS), default=sorted(MODELS))
    parser.add_argument("--norms", nargs="+", choices=("keep", "restore"), default=("keep", "restore"))
    parser.add_argument("--macs", nargs="+", type=float, default=[0.5])
    parser.add_argument("--rates", nargs="+", type=float, default=[2e-3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--samples", type=int, default=8_000, help="training images that are used")
    parser.add_argument("--test-samples", type=int, default=5_000)
    parser.add_argument("--epochs", nargs=2, type=int, default=(2, 4), help="while pruning, and while retraining")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON to write")
    given = parser.parse_args()
    data = Data(read(given.images / "train", given.samples), read(given.images / "test", given.test_samples))
    rows: list[Row] = []
    for kind, macs, seed, norm in itertools.product(given.kinds, given.macs, given.seeds, given.norms):
        run = begin(given.models / MODELS[kind], norm, macs, seed, data, tuple(given.epochs))
        for row in measure(run, kind=kind, norm=norm, macs=macs, rates=given.rates):
            rows.append(row)
            write(given.results, rows)
            print(row, file=sys.stderr, flush=True)
    every = [Row(**row) for made in json.loads(given.results.read_text()) for row in made["rows"]]
    print(table(every))
    return 0


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows, and what made them; rows of other commands in the file stay."""
    words = [word if word != _after("--images") else "FOLDER" for word in sys.argv[1:] if word != _after("--results")]
    command = shlex.join(["python", "-m", "benchmarks.norm", *(word for word in words if word != "--results")])
    before = json.loads(path.read_text()) if path.exists() else []
    made = {"command": command, "machine": asdict(this_machine()), "rows": [asdict(row) for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([*(run for run in before if run["command"] != command), made], indent=2) + "\n")


def _after(option: str) -> str | None:
    """The word behind an option: a place on this machine, which nobody needs to know."""
    return next((after for word, after in itertools.pairwise(sys.argv) if word == option), None)


if __name__ == "__main__":
    sys.exit(main())
