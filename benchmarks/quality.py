"""What is left of a network's accuracy, method by method: the same data, teacher, optimiser and steps for all.

Run from the root of the repository: ``python -m benchmarks.quality --cifar FOLDER``, with FOLDER, ``--mnist`` and
``--models`` as for ``benchmarks.calibration``. A *cell* is a network, a budget, a method and a seed. Every cell is a
file of benchmarks/results/quality/ and is measured once: what is there is not measured again, and a training that was
interrupted goes on (out/quality/), so that the queue may be stopped and begun as one likes; ``--again`` forgets them,
``--only`` names some by the start of their names. The classes that each result gives the test images lie beside it
(``.npz``), for tests that pair them.

A method chooses units and gives weights to start from; then the small network is retrained as ``compress`` does it.
Steps are the same for all: what a method does not spend on choosing, its small network is retrained for. Held-out data
choose among retraining rates and states; the test images are looked at once, at the end. Writes
benchmarks/quality.md from all files there are.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import runs
from benchmarks.kept import KEPT, retraining_at
from benchmarks.pictured import CIFAR, ROOT, Images, Network, classes, path_of, sizes
from benchmarks.quality_methods import METHODS, TORCH, Method
from benchmarks.quality_pairs import keep_labels, pairs
from benchmarks.quality_table import PAGE, render
from onnxadmm.bench.simd import this_machine
from onnxadmm.bench.versions import package_versions
from onnxadmm.graph.model import Model
from onnxadmm.plan.budget import budget_of
from onnxadmm.run.recipe import Preprocessing, Recipe
from onnxadmm.run.steps import Compression

RESULTS: Final = ROOT / "benchmarks" / "results" / "quality"
#: Retraining rates that held-out data choose from, for every method by itself.
RATES: Final = (1e-3, 3e-3)


@dataclass(frozen=True)
class Setting:
    """A network, and how long it is trained.

    Attributes:
        pictured: the network and its images.
        shares: of the MACs (LeNet-5: parameters) that may stay.
        samples: training images.
        epochs: of choosing, where a method trains for that, and of retraining; None: as many as are the default.
        batch: samples of a step.
        augment: of the training images.
        rates: of retraining, that held-out data choose from.
        methods: that are measured.
    """

    pictured: Network
    shares: tuple[float, ...]
    samples: int
    epochs: tuple[int | None, int | None]
    batch: int
    augment: str
    rates: tuple[float, ...] = RATES
    methods: tuple[str, ...] = tuple(METHODS)


SETTINGS: Final = {
    "resnet20": Setting(
        Network("resnet20.onnx", "cifar", *CIFAR, "macs", {}), (0.33, 0.2, 0.5), 10_000, (2, 4), 64, "flip,crop2"
    ),
    "mobilenetv2": Setting(
        Network("mobilenetv2.onnx", "cifar", *CIFAR, "macs", {}), (0.33,), 10_000, (2, 4), 64, "flip,crop2"
    ),
    "cifarnet": Setting(
        Network("cifarnet.onnx", "cifar", *CIFAR, "macs", {}), (0.33,), 10_000, (2, 4), 64, "flip,crop2"
    ),
    "lenet5": Setting(
        Network("lenet5_mnist.onnx", "mnist", (0.1307,), (0.3081,), "params", {}),
        (0.02, 0.05),
        20_000,
        (4, 4),
        128,
        "",
        methods=tuple(name for name in METHODS if name not in ("torch-pruning", "floored")),
    ),
    "lenet5-whole": Setting(
        Network("lenet5_mnist.onnx", "mnist", (0.1307,), (0.3081,), "params", {}),
        (4136, 0.05),
        60_000,
        (None, None),
        128,
        "",
        rates=(5e-3, 1e-2),
        methods=("calibrated", "curves", "admm", "onnxsim", "magnitude", "uniform"),
    ),
    "resnet20-whole": Setting(
        Network("resnet20.onnx", "cifar", *CIFAR, "macs", {}),
        (0.33, 0.5, 0.2),
        50_000,
        (None, None),
        128,
        "flip,crop2",
        rates=(2e-3,),
        methods=("calibrated", "curves", "admm", "magnitude"),
    ),
}


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    network: str
    share: float
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its files."""
        return f"{self.network}-{self.share:g}-{self.method}-{self.seed}"


@dataclass
class Result:
    """What came out.

    Attributes:
        cell: which one.
        accuracy: on the test images, of the original and of the result.
        held_out: on the held-out images, of the network when cut and of the result.
        macs, parameters: of the original and of the result.
        epochs: of choosing and of retraining.
        rate: of retraining, that held-out data chose.
        seconds: wall-clock time of choosing and of retraining at that rate.
        machine, versions: it was measured with.
    """

    cell: Cell
    accuracy: tuple[float, float]
    held_out: tuple[float, float]
    macs: tuple[int, int]
    parameters: tuple[int, int]
    epochs: tuple[int, int]
    rate: float | None
    seconds: tuple[float, float]
    machine: dict[str, Any] = field(default_factory=lambda: asdict(this_machine()))
    versions: dict[str, str] = field(default_factory=package_versions)


def queue() -> Iterator[Cell]:
    """Every cell, those of the first seed first."""
    for seed in range(3):
        for name, setting in SETTINGS.items():
            for share in setting.shares:
                for method in setting.methods:
                    yield Cell(name, share, method, seed)


def begin(cell: Cell, images: Images, path: Path) -> Compression:
    """Find the units and read the data."""
    setting = SETTINGS[cell.network]
    pictured = setting.pictured
    pixels, labels = images.all(pictured.data, "train")
    chosen = np.random.default_rng(0).permutation(len(labels))[: setting.samples]
    method = METHODS[cell.method]
    recipe = Recipe(
        method="paper" if cell.method == "paper" else "admm" if method.trains else "calibrated",
        epochs=setting.epochs[0] if method.trains else None,
        retrain_epochs=_retraining(setting, method),
        batch_size=setting.batch,
        workers=1,
    )
    return runs.begin(
        path,
        budget_of(pictured.budget, cell.share),
        recipe,
        Preprocessing(mean=pictured.mean, std=pictured.std, augment=setting.augment),
        round_to=1,
        seed=cell.seed,
        data=(pixels[chosen], labels[chosen]),
        test=None,
    )


def measure(cell: Cell, run: Compression, images: Images) -> tuple[Result, NDArray[np.uint8]]:
    """Choose, cut, retrain with every rate; return the best on held-out data and its classes of the test images."""
    method, training = METHODS[cell.method], run.training
    begin = time.perf_counter()
    start = method.choose(run)
    chosen = time.perf_counter()
    cut = _held_out(run, start.small)
    best, rate, seconds = (cut, start.small), None, 0.0
    whole = training.recipe.retraining_epochs(steps_per_epoch=training.steps_per_epoch)
    for each in SETTINGS[cell.network].rates if method.retrains else ():
        begun = time.perf_counter()
        recipe = replace(training.recipe, retrain_learning_rate=each, retrain_epochs=whole - start.spent)
        result = method.retrain(replace(training, recipe=recipe), start.small, start.pruned)
        found = _held_out(run, result)
        if found > best[0] or rate is None:
            earlier = KEPT.earlier.get(retraining_at(each), 0.0)
            best, rate, seconds = (found, result), each, time.perf_counter() - begun + earlier
    network = SETTINGS[cell.network].pictured
    before, after = (classes(model, network, images, threads=1) for model in (run.model, best[1]))
    _, labels = images.all(network.data, "test")
    counts = [sizes(model) for model in (run.model, best[1])]
    pruning = training.recipe.settings(steps_per_epoch=training.steps_per_epoch).epochs if method.trains else 0
    outcome = Result(
        cell,
        accuracy=(float((before == labels).mean()), float((after == labels).mean())),
        held_out=(cut, best[0]),
        macs=(counts[0][0], counts[1][0]),
        parameters=(counts[0][1], counts[1][1]),
        epochs=(pruning, whole if method.retrains else 0),
        rate=rate,
        seconds=(chosen - begin + KEPT.earlier.get("choose", 0.0), seconds),
    )
    return outcome, after


def _retraining(setting: Setting, method: Method) -> int | None:
    """Epochs of retraining: those of choosing as well, where the method takes none for that."""
    pruning, retraining = setting.epochs
    return retraining if method.trains or retraining is None else retraining + (pruning or 0)


def _held_out(run: Compression, model: Model) -> float:
    found = run.training.metrics(model, run.training.held_out).accuracy
    assert found is not None
    return found


def main() -> int:
    """Measure what was asked for and is not there yet, and write the page."""
    parser = argparse.ArgumentParser(description="Accuracy after pruning, beside every baseline.")
    parser.add_argument("--cifar", type=Path, help="folder with train/CLASS/* and test/CLASS/*, or the two .npz")
    parser.add_argument("--mnist", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--torch", help="Python of an environment with torch-pruning, see benchmarks/quality_torch.py")
    parser.add_argument("--only", nargs="+", default=[""], help="cells whose names begin so")
    parser.add_argument("--again", action="store_true", help="forget what was measured of them")
    given = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    TORCH.python = given.torch
    with tempfile.TemporaryDirectory() as folder:
        images = Images(given, Path(folder))
        for cell in queue():
            path = RESULTS / f"{cell.name}.json"
            if not cell.name.startswith(tuple(given.only)) or (path.exists() and not given.again):
                continue
            pictured = SETTINGS[cell.network].pictured
            if pictured.data == "cifar" and given.cifar is None:
                continue
            if cell.method == "torch-pruning" and given.torch is None:
                continue
            KEPT.begin(cell.name, anew=given.again)
            run = begin(cell, images, path_of(pictured, given.models))
            result, found = measure(cell, run, images)
            keep_labels(RESULTS, pictured.data, images.all(pictured.data, "test")[1])
            np.savez_compressed(path.with_suffix(".npz"), classes=found)
            path.write_text(json.dumps(asdict(result), indent=2) + "\n")
            KEPT.end()
            print(f"{cell.name}: {100 * result.accuracy[0]:.2f} -> {100 * result.accuracy[1]:.2f} %", file=sys.stderr)
    cells = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    PAGE.write_text(render(cells, METHODS, pairs(RESULTS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
