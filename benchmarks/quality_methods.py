"""The methods of benchmarks/quality.py: how each chooses units, and what weights the small network starts from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.runs import forget
from onnxadmm.admm.gates import GatedWeights
from onnxadmm.admm.problem import KeepArray
from onnxadmm.admm.selection import select
from onnxadmm.graph.constants import constant, constants_by_name
from onnxadmm.plan.rank import Ranking, rank_by_budget
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.run.calibrations import Calibration
from onnxadmm.run.checkpoint import Checkpoints
from onnxadmm.run.recipe import CalibrationOptions
from onnxadmm.run.steps import Compression
from onnxadmm.run.trainings import Pruned

#: Training images that calibrations look at, without their labels, and batches that gradients are taken of.
SAMPLES: Final = 512
BATCHES: Final = 40


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        title: in the table.
        choose: units and weights of the whole network.
        trains: whether choosing takes the epochs of pruning; they are the small network's otherwise.
        retrains: whether the small network is retrained at all.
    """

    title: str
    choose: Callable[[Compression], Pruned]
    trains: bool = False
    retrains: bool = True


def ranked(by: Ranking) -> Callable[[Compression], Pruned]:
    """Units by norms or at random, with the budget allocated as ``plan`` does it."""

    def choose(run: Compression) -> Pruned:
        choices = run.choices
        assert choices.goal is not None
        return _cut(rank_by_budget(run.ready, run.units, choices.goal, by=by, limits=choices.limits, seed=choices.seed))

    return choose


def taylor(run: Compression) -> Pruned:
    """Units by the squared gradients of their gates in the whole network (Molchanov et al., 2019), one shot."""
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
        score, gates = np.zeros(problem.unit_count), np.ones(problem.unit_count)
        for batch in islice(batches(0, 0), BATCHES):
            gated.write(gates)
            trainer.backward(batch)
            score += np.square(gated.collect())
        return _cut(select(score, problem))


def calibrated(run: Compression) -> Pruned:
    """Units and weights as ``compress --calibrate`` finds them in a part of the training images."""
    samples = run.training.samples
    chosen = np.random.default_rng(run.choices.seed).permutation(len(samples))[:SAMPLES]
    training = replace(run.training, samples=samples.take(np.sort(chosen)))
    checkpoints = Checkpoints(None, lambda: NotImplemented)
    return Calibration(training, CalibrationOptions()).prune(
        run.ready, run.units, run.problem, checkpoints=checkpoints, resume={}
    )


def uncompensated(run: Compression) -> Pruned:
    """The units of the calibration, with the weights as they were."""
    return _cut(calibrated(run).keep)


def scratch(run: Compression) -> Pruned:
    """The widths of the calibration, with weights drawn at random (He et al., 2015) and offsets of zero."""
    generator = np.random.default_rng(run.choices.seed)
    weights = {}
    for name, value in constants_by_name(run.ready).items():
        array = constant(value)
        if array is not None and array.dtype == np.float32 and array.ndim:
            weights[name] = _drawn(array.shape, generator)
    return Pruned(calibrated(run).keep, {}, weights)


def trained(run: Compression) -> Pruned:
    """What the recipe's method makes of it in its epochs of pruning."""
    return run.training.prune(open_gates(run.ready, run.units), run.problem, keep_state=forget, resume={})


def _cut(keep: KeepArray) -> Pruned:
    return Pruned(keep, {}, {})


def _drawn(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    inputs = int(np.prod(shape[1:]))
    drawn: NDArray[np.float32] = (generator.standard_normal(shape) * np.sqrt(2.0 / inputs)).astype(np.float32)
    return drawn


METHODS: Final = {
    "random": Method("random units", ranked("random")),
    "magnitude": Method("norms of writers and readers", ranked("magnitude")),
    "taylor": Method("squared gradients of gates, one shot", taylor),
    "scratch": Method("the widths of the calibration, from scratch", scratch),
    "calibration": Method("calibration, without retraining", calibrated, retrains=False),
    "uncompensated": Method("the units of the calibration, weights as they were", uncompensated),
    "calibrated": Method("calibration", calibrated),
    "paper": Method("box and sphere (`--method paper`)", trained, trains=True),
    "default": Method("the default of `compress --data`", trained, trains=True),
}
