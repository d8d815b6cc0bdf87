"""The methods of benchmarks/quality.py: how each chooses units, and what weights the small network starts from."""

import math
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import numpy as np
import onnx
import onnxsim
from numpy.typing import NDArray

from benchmarks import quality_training
from benchmarks.calibration_onnxsim import BATCH, repaired, sparsity_for
from benchmarks.kept import KEPT
from benchmarks.quality_training import Retraining
from benchmarks.runs import forget
from onnxadmm.admm.gates import GatedWeights
from onnxadmm.admm.problem import KeepArray, Problem
from onnxadmm.admm.selection import select
from onnxadmm.calibrate.effort import EFFORTS
from onnxadmm.graph.constants import constant, constants_by_name, with_constants
from onnxadmm.graph.model import Model, from_proto, load, to_proto
from onnxadmm.plan.rank import Ranking, rank_by_budget, score
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.run import recipe
from onnxadmm.run.calibrations import Calibration
from onnxadmm.run.checkpoint import Checkpoints
from onnxadmm.run.recipe import CalibrationOptions
from onnxadmm.run.refits import refitted
from onnxadmm.run.shared import grown
from onnxadmm.run.steps import Compression
from onnxadmm.run.trainings import Pruned, Training

#: Training images that calibrations look at, without their labels, and batches that gradients are taken of.
SAMPLES: Final = 512
BATCHES: Final = 40
#: Stages of a cut in stages, and the share of all epochs that each but the last is retrained for.
STAGES: Final = 3
STAGE_SHARE: Final = 0.15


@dataclass(frozen=True)
class Start:
    """Where retraining begins.

    Attributes:
        small: the network that is left.
        pruned: units and weights of the whole one.
        spent: epochs of retraining that choosing took.
    """

    small: Model
    pruned: Pruned
    spent: int = 0


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        title: in the table.
        choose: what is left, given the run and its epochs of retraining.
        trains: whether choosing takes the epochs of pruning; they are the small network's otherwise.
        retrains: whether the small network is retrained at all.
        retrain: how.
    """

    title: str
    choose: Callable[[Compression], Start]
    trains: bool = False
    retrains: bool = True
    retrain: Retraining = quality_training.usual


def ranked(by: Ranking) -> Callable[[Compression], Start]:
    """Units by norms or at random, with the budget allocated as ``plan`` does it."""

    def choose(run: Compression) -> Start:
        choices = run.choices
        assert choices.goal is not None
        keep = rank_by_budget(run.ready, run.units, choices.goal, by=by, limits=choices.limits, seed=choices.seed)
        return _as_they_were(run, keep)

    return choose


def uniform(run: Compression) -> Start:
    """The same share of every group, its largest norms: the widest network of that kind under the budget."""
    scores = score(run.ready, run.units, by="magnitude", seed=0)
    total, budget = run.problem.cost.total, run.problem.budget

    def of_share(share: float) -> KeepArray:
        keep = np.zeros(run.problem.unit_count, np.bool_)
        for group in run.problem.groups:
            for members in group.members:
                best = members[np.argsort(-scores[members], kind="stable")]
                keep[best[: max(1, math.floor(share * members.size))]] = True
        return keep

    shares = np.arange(1, 1001) / 1000
    return _as_they_were(run, of_share(max(share for share in shares if total(of_share(share)) <= budget)))


def taylor(run: Compression) -> Start:
    """Units by the squared gradients of their gates in the whole network (Molchanov et al., 2019), one shot."""
    return _as_they_were(run, select(*_importance(run)))


def taylor_refitted(run: Compression) -> Start:
    """The same, and layers fitted without the units that went, where held-out data find that better."""
    return _start(run, refitted(run.training, run.ready, run.units, taylor(run).pruned))


def calibrated(run: Compression) -> Start:
    """Units and weights as ``compress --method calibrated`` finds them in a part of the training images."""
    return _start(run, calibration(run, run.ready, run.problem.budget))


def by_curves(run: Compression) -> Start:
    """The same, with nothing beside the measured curves to choose units by."""
    with effort(weights=(0.0,)):
        return calibrated(run)


def unhalved(run: Compression) -> Start:
    """The same again, with no loss of a group measured between an eighth of it and its fewest units."""
    levels = tuple(level for level in EFFORTS["normal"].levels if level >= 1 / 8)
    with effort(weights=(0.0,), levels=levels):
        return calibrated(run)


def floored(run: Compression) -> Start:
    """As the default calibrates with ``--max-ratio 0.75``: no group loses more than three quarters of its units."""
    limits = replace(run.choices.limits, max_ratio=0.75)
    run.problem = replace(run.problem, groups=limits.groups(run.ready, run.units))
    return calibrated(run)


def staged(run: Compression) -> Start:
    """Units by curves alone, in stages whose budgets fall by equal shares: from each to the next cut and retrained."""
    training, whole = run.training, run.problem.dense
    epochs = max(1, round(STAGE_SHARE * (training.recipe.retrain_epochs or 0)))
    stage = replace(training, recipe=replace(training.recipe, retrain_epochs=epochs))
    model, keep = run.ready, np.ones(run.problem.unit_count, np.bool_)
    for number in range(1, STAGES + 1):
        budget = whole * (run.problem.budget / whole) ** (number / STAGES)
        with effort(weights=(0.0,)):
            pruned = calibration(run, model, budget)
        pruned = replace(pruned, keep=pruned.keep & keep)
        keep, start = pruned.keep, _start(run, pruned)
        if number < STAGES:
            result = stage.retrain(start.small, pruned, keep_state=forget, resume={})
            model = with_constants(run.ready, grown(pruned, result, run.ready, run.units).weights)
    return replace(start, spent=(STAGES - 1) * epochs)


def uncompensated(run: Compression) -> Start:
    """The units of the calibration, with the weights as they were."""
    return _as_they_were(run, calibrated(run).pruned.keep)


def by_onnxsim(run: Compression) -> Start:
    """What onnxsim's structured pruning leaves, by the criterion and repair that are best on held-out images.

    Its smallest sparsity that meets the budget; its largest where none does.
    """
    proto = to_proto(run.ready)
    kind = "macs" if run.choices.budget is not None and run.choices.budget.macs is not None else "params"
    sparsity, _ = sparsity_for(proto, kind, math.floor(run.problem.budget))
    samples = some(run).samples
    batches = [dict(batch.inputs) for batch in samples.batches(BATCH, drop_last=True)]
    made = [
        from_proto(result)
        for pruned in (
            onnxsim.apply_structured_pruning(proto, sparsity=sparsity),
            onnxsim.apply_structured_wanda_pruning(proto, calibration_data=batches, sparsity=sparsity),
        )
        for way, result, _ in repaired(proto, _without_shapes(pruned), batches)
        if way != "finetune and batch norm"  # which leaves normalisations behind, whose cost nobody else has
    ]
    return _best(made, run)


@dataclass
class TorchPruning:
    """What Torch-Pruning's group-sparse trainer leaves after the epochs of pruning (benchmarks/quality_torch.py).

    The better on held-out images of its uniform and its global pruning.

    Attributes:
        python: of the environment that it runs in; None: there is none.
    """

    python: str | None = None

    def __call__(self, run: Compression) -> Start:
        """Train, prune and read what came out."""
        training, path = run.training, run.model.path
        assert self.python is not None
        assert path is not None
        batches = list(training.samples.batches(training.recipe.batch_size))
        (name,) = batches[0].inputs
        with tempfile.TemporaryDirectory() as place:
            data = Path(place) / "data.npz"
            images = np.concatenate([batch.inputs[name] for batch in batches])
            np.savez(data, images=images, labels=np.concatenate([batch.labels for batch in batches]))
            options = {
                "model": path,
                "data": data,
                "macs": run.problem.budget,
                "epochs": training.recipe.settings(steps_per_epoch=training.steps_per_epoch).epochs,
                "batch": training.recipe.batch_size,
                "seed": run.choices.seed,
                "out": place,
            }
            words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
            subprocess.run([self.python, "-m", "benchmarks.quality_torch", path.stem, *words], check=True)
            return _best([load(each) for each in sorted(Path(place).glob("*.onnx"))], run)


TORCH: Final = TorchPruning()


def scratch(run: Compression) -> Start:
    """The widths of the calibration, with weights drawn at random (He et al., 2015) and offsets of zero."""
    generator = np.random.default_rng(run.choices.seed)
    weights = {}
    for name, value in constants_by_name(run.ready).items():
        array = constant(value)
        if array is not None and array.dtype == np.float32 and array.ndim:
            weights[name] = _drawn(array.shape, generator)
    return _start(run, Pruned(calibrated(run).pruned.keep, {}, weights))


def trained(run: Compression) -> Start:
    """What the recipe's method makes of it in its epochs of pruning, refitted where ``compress`` does that."""
    training = run.training
    pruned = _pruned(run)
    if training.recipe.refits(steps_per_epoch=training.steps_per_epoch):
        pruned = refitted(training, run.ready, run.units, pruned)
    return _start(run, pruned)


def unfitted(run: Compression) -> Start:
    """The same, as it was pruned."""
    return _start(run, _pruned(run))


def steady(run: Compression) -> Start:
    """The same again, with gates that each step draws alike, however few there are."""
    with patch.object(recipe, "_PRUNE_STEPS", 0):
        return unfitted(run)


def _pruned(run: Compression) -> Pruned:
    with KEPT.training("choose") as (keep_state, resume):
        model = open_gates(run.ready, run.units)
        return run.training.prune(model, run.problem, keep_state=keep_state, resume=resume)


def calibration(
    run: Compression, model: Model, budget: float, *, known: dict[str, NDArray[Any]] | None = None
) -> Pruned:
    """Calibrate a model with a part of the run's samples.

    Args:
        known: what was measured of its groups, and is put in here; None: nothing.
    """
    checkpoints, problem = Checkpoints(None, lambda: NotImplemented), replace(run.problem, budget=budget)
    found = Calibration(some(run), CalibrationOptions(), {} if known is None else known)
    return found.prune(model, run.units, problem, checkpoints=checkpoints, resume={})


@contextmanager
def effort(**changes: Any) -> Iterator[None]:
    """Let calibrations look at something else."""
    changed = replace(EFFORTS["normal"], **changes)
    with patch.dict(EFFORTS, normal=changed):
        yield


def _importance(run: Compression) -> tuple[NDArray[np.float64], Problem]:
    """The squared gradients of all gates, summed over some batches, and the problem that is left for them."""
    training, model = run.training, open_gates(run.ready, run.units)
    network = training.network(model)
    with training.trainer(network, epochs=1, weight_decay=0.0) as trainer, training.epochs() as batches:
        problem = training.restricted(run.problem, model, trainer)
        gated = GatedWeights(
            dict(trainer.weights),
            dict(trainer.gradients),
            readers=problem.readers,
            unit_count=problem.unit_count,
            held=problem.held,
        )
        importance, gates = np.zeros(problem.unit_count), np.ones(problem.unit_count)
        for batch in islice(batches(0, 0), BATCHES):
            gated.write(gates)
            trainer.backward(batch)
            importance += np.square(gated.collect())
        return importance, problem


def _best(models: Sequence[Model], run: Compression) -> Start:
    """The one with the least held-out loss, of what another tool has cut."""
    training = run.training
    best = min(models, key=lambda model: training.metrics(model, training.held_out).loss)
    return Start(best, Pruned(np.ones(run.problem.unit_count, np.bool_), {}, {}))


def some(run: Compression) -> Training:
    """The run with the training images that are calibrated with."""
    samples = run.training.samples
    chosen = np.random.default_rng(run.choices.seed).permutation(len(samples))[:SAMPLES]
    return replace(run.training, samples=samples.take(np.sort(chosen)))


def _as_they_were(run: Compression, keep: KeepArray) -> Start:
    return _start(run, Pruned(keep, {}, {}))


def _start(run: Compression, pruned: Pruned) -> Start:
    return Start(shrink(with_constants(run.ready, pruned.weights), run.units, pruned.keep), pruned)


def _without_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A model without the shapes that its tensors had before they were cut."""
    del proto.graph.value_info[:]
    return proto


def _drawn(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    inputs = int(np.prod(shape[1:]))
    drawn: NDArray[np.float32] = (generator.standard_normal(shape) * np.sqrt(2.0 / inputs)).astype(np.float32)
    return drawn


METHODS: Final = {
    "random": Method("random units", ranked("random")),
    "uniform": Method("the same share of every group, by norms", uniform),
    "magnitude": Method("norms of writers and readers", ranked("magnitude")),
    "taylor": Method("squared gradients of gates, one shot", taylor),
    "taylor-refit": Method("squared gradients of gates, one shot, layers refitted", taylor_refitted),
    "onnxsim": Method("onnxsim's structured pruning and repair", by_onnxsim),
    "torch-pruning": Method("Torch-Pruning's group-sparse trainer", TORCH, trains=True),
    "scratch": Method("the widths of the calibration, from scratch", scratch),
    "calibration": Method("calibration, without retraining", calibrated, retrains=False),
    "uncompensated": Method("the units of the calibration, weights as they were", uncompensated),
    "curves": Method("calibration by curves alone", by_curves),
    "curves-calibration": Method("calibration by curves alone, without retraining", by_curves, retrains=False),
    "unhalved": Method("calibration by curves alone, no loss measured below an eighth of a group", unhalved),
    "staged": Method("calibration by curves alone, in three stages, trained between them", staged),
    "averaged": Method(
        "calibration by curves alone, weights averaged while retraining", by_curves, retrain=quality_training.averaged
    ),
    "nesterov": Method(
        "calibration by curves alone, retrained with Nesterov momentum", by_curves, retrain=quality_training.nesterov
    ),
    "muon": Method("calibration, retrained with orthogonal momentum (Muon)", calibrated, retrain=quality_training.muon),
    "mixed": Method(
        "calibration, retrained by the teacher alone, half of the images mixed in pairs",
        calibrated,
        retrain=quality_training.mixed,
    ),
    "floored": Method("calibration, a quarter of every group stays", floored),
    "calibrated": Method("calibration (the default)", calibrated),
    "paper": Method("box and sphere (`--method paper`)", trained, trains=True),
    "steady": Method("gates that each step draws alike, however few, not refitted", steady, trains=True),
    "unfitted": Method("gates that close while training, not refitted (`--no-refit`)", unfitted, trains=True),
    "admm": Method("gates that close while training (`--method admm`)", trained, trains=True),
}
