"""How much the Fisher information counts beside a calibration's curves: what each weight leaves, nothing retrained.

Run from the root of the repository: ``python -m benchmarks.information --cifar FOLDER``, with FOLDER, ``--mnist`` and
``--models`` as for ``benchmarks.calibration``. Every network is calibrated with 512 training samples, whose labels are
not read: by each weight alone, and as ``compress --calibrate`` does it, which compares them. Training samples that no
run has seen judge; no test data are looked at, for the weights are chosen by these figures. Every case is a file of
benchmarks/results/information/ and is measured once; ``--only`` names some, ``--again`` forgets them. Writes
benchmarks/information.md.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import runs
from benchmarks.calibration_table import TITLES
from benchmarks.converged import made
from benchmarks.machine import in_words
from benchmarks.pictured import ROOT, Images, path_of
from benchmarks.quality import SETTINGS
from benchmarks.quality_methods import calibration, effort
from onnxadmm.bench.simd import this_machine
from onnxadmm.calibrate.effort import EFFORTS
from onnxadmm.graph.constants import with_constants
from onnxadmm.plan.budget import COUNTED, budget_of
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.run.recipe import Preprocessing, Recipe
from onnxadmm.units.cost import CostKind

RESULTS: Final = ROOT / "benchmarks" / "results" / "information"
PAGE: Final = ROOT / "benchmarks" / "information.md"
#: Samples that runs draw theirs from, and those behind them, which judge.
GIVEN: Final = 4_000
JUDGES: Final = 4_000
WEIGHTS: Final = EFFORTS["normal"].weights
COMPARED: Final = "compared"


@dataclass(frozen=True)
class Case:
    """A network under a budget.

    Attributes:
        network: of ``benchmarks.quality``, or one that ``benchmarks.made_models`` has trained.
        budget: what is bounded: ``"macs"`` or ``"params"``.
        share: that may stay.
    """

    network: str
    budget: CostKind
    share: float

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.network}-{self.share:g}"

    @property
    def title(self) -> str:
        """In the table."""
        title = TITLES.get(self.network, f"a {'ViT' if self.network == 'vit' else 'BERT'} of two layers")
        return f"{title}, {100 * self.share:g} % of the {COUNTED[self.budget].words}"


CASES: Final = (
    Case("lenet5", "params", 0.05),
    Case("lenet5", "params", 0.02),
    Case("vit", "macs", 0.5),
    Case("vit", "macs", 0.3),
    Case("bert", "macs", 0.5),
    Case("bert", "macs", 0.3),
    Case("resnet20", "macs", 0.5),
    Case("resnet20", "macs", 0.33),
    Case("cifarnet", "macs", 0.33),
    Case("mobilenetv2", "macs", 0.33),
)


def network_of(case: Case, models: Path) -> tuple[Path, Preprocessing]:
    """Return the file of a network, and what is done to its samples."""
    if case.network in SETTINGS:
        pictured = SETTINGS[case.network].pictured
        return path_of(pictured, models), Preprocessing(mean=pictured.mean, std=pictured.std)
    return ROOT / "benchmarks" / "models" / f"{case.network}_made.onnx", Preprocessing()


def samples_of(case: Case, images: Images, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the samples of a network and their labels, of the part ``"train"`` or ``"test"``."""
    if case.network in SETTINGS:
        return images.all(SETTINGS[case.network].pictured.data, part)
    arrays = made(case.network, part)
    return arrays["x"], arrays["labels"]


def measure(case: Case, images: Images, models: Path) -> dict[str, Any]:
    """Calibrate a network by each weight, and by comparing them; return what each leaves."""
    (inputs, labels), (path, prepared) = samples_of(case, images, "train"), network_of(case, models)
    order = np.random.default_rng(0).permutation(len(labels))
    given, judging = order[:GIVEN], order[GIVEN:][:JUDGES]
    run, judges = (
        runs.begin(
            path,
            budget_of(case.budget, case.share),
            Recipe(method="calibrated", workers=1),
            prepared,
            round_to=1,
            seed=0,
            data=(inputs[part], labels[part]),
            test=None,
        )
        for part in (given, judging)
    )
    known: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for name, weights in {**{f"{weight:g}": (weight,) for weight in WEIGHTS}, COMPARED: WEIGHTS}.items():
        with effort(weights=weights):
            pruned = calibration(run, run.ready, run.problem.budget, known=known)
        small = shrink(with_constants(run.ready, pruned.weights), run.units, pruned.keep)
        metrics = judges.training.metrics(small, judges.training.samples)
        kept = [int(pruned.keep[group.places].sum()) for group in run.units.groups]
        found[name] = {"accuracy": metrics.accuracy, "loss": metrics.loss, "kept": kept}
    original = judges.training.metrics(run.ready, judges.training.samples).accuracy
    return {"case": asdict(case), "original": original, "found": found, "machine": asdict(this_machine())}


def taken(found: Mapping[str, Any]) -> str:
    """The weight whose network the comparison has taken."""
    return next(name for name in found if found[name]["kept"] == found[COMPARED]["kept"])


def render(cells: Sequence[tuple[Case, Mapping[str, Any]]]) -> str:
    """Write the page."""
    lines = [
        "# How much the Fisher information counts beside curves",
        "",
        "Accuracy right behind the refit, nothing retrained, on 4,000 training samples that no run has seen (of the "
        "networks themselves, all were trained on these). Each network was calibrated with 512 others, without their "
        "labels. Bold is what the comparison takes, which is what `compress --calibrate` and `--method calibrated` do: "
        "the network that is nearest to the original on the samples that its layers were fitted to.",
        "",
        f"| | the original | {' | '.join(f'weight {weight:g}' for weight in WEIGHTS)} |",
        f"|---|---|{'---|' * len(WEIGHTS)}",
    ]
    for case, cell in cells:
        found, best = cell["found"], taken(cell["found"])
        figures = []
        for weight in WEIGHTS:
            told = f"{100 * found[f'{weight:g}']['accuracy']:.1f} %"
            figures.append(f"**{told}**" if f"{weight:g}" == best else told)
        lines.append(f"| {case.title} | {100 * cell['original']:.1f} % | {' | '.join(figures)} |")
    machines = sorted({in_words(cell["machine"]) for _, cell in cells})
    lines += ["", f"Measured on {'; '.join(machines)}, by `python -m benchmarks.information`.", ""]
    return "\n".join(lines)


def main() -> int:
    """Measure what is not there yet, and write the page."""
    parser = argparse.ArgumentParser(description="Weights of the Fisher information beside curves.")
    parser.add_argument("--cifar", type=Path, help="folder with train/CLASS/* and test/CLASS/*, or the two .npz")
    parser.add_argument("--mnist", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--only", nargs="+", default=[""], help="cases whose names begin so")
    parser.add_argument("--again", action="store_true", help="forget what was measured of them")
    given = parser.parse_args()
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        images = Images(given, Path(folder))
        for case in CASES:
            path = RESULTS / f"{case.name}.json"
            if not case.name.startswith(tuple(given.only)) or (path.exists() and not given.again):
                continue
            if case.network in SETTINGS and SETTINGS[case.network].pictured.data == "cifar" and given.cifar is None:
                continue
            path.write_text(json.dumps(measure(case, images, given.models), indent=2) + "\n")
            print(f"{case.name}: measured", file=sys.stderr)
    there = [(case, RESULTS / f"{case.name}.json") for case in CASES]
    PAGE.write_text(render([(case, json.loads(path.read_text())) for case, path in there if path.exists()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
