"""How much a network's answers depend on each of its units, found without labels."""

from collections.abc import Set
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.admm.gates import GatedWeights
from onnxadmm.admm.problem import Problem
from onnxadmm.bench.inputs import batch_is_free, fixed_batch
from onnxadmm.errors import NotTrainableError
from onnxadmm.graph.model import Model
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.run.refits import some_samples
from onnxadmm.run.trainings import Training
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.trainer import OrtTrainer
from onnxadmm.units.units import Units

Array = NDArray[np.float32]
DoubleArray = NDArray[np.float64]

#: Samples whose gradients are taken together, where the model leaves the batch free; fewer where memory is short.
_BATCHES: Final = (16, 4, 1)
#: Forward passes of its samples that take as long as their answers and gradients.
PASSES: Final = 8.0
#: Mixed into the seed that answers are drawn with.
_ANSWERS: Final = 5_000_000


def fisher_information(
    training: Training, model: Model, units: Units, problem: Problem, *, memory: int, threads: int
) -> DoubleArray:
    """Return the diagonal of the Fisher information of the gates of all units, float64 ``[units.count]``.

    With gates v on the units and p(y|x; v) what the network says of a sample x, the entry of unit j is

        F_j = E_x E_{y ~ p(y|x; 1)} [ (d log p(y|x; v) / d v_j at v = 1)^2 ],

    up to a factor that is common to all. Half of it is what the Kullback-Leibler divergence from the network's answers
    rises by when unit j goes, to second order (Theis et al., "Faster gaze prediction with dense networks and Fisher
    pruning", 2018, equation 6). As y is drawn from the network itself, labels are not needed. p is categorical for
    cross-entropy, one Bernoulli distribution per number for bce, and normal with variance 1 for mse. The gradient of
    a small batch stands for those of its samples: their mean is zero, so squares of sums are sums of squares.

    The network is in the form that trains: where it is deep, normalisations take the statistics of each batch. So what
    a unit does to mean and size of what follows, which fitting the layers behind it makes up for, does not count. Its
    answers are not quite those that y is drawn from, then, and the mean is not zero: what is found is the second moment
    of the gradients all the same, with that of the mean in it.

    Gradients are written by this package and run by any onnxruntime, whichever engine trains.

    Args:
        training: the samples, of which labels are not read, and what the loss is taken of.
        model: without gates on activations.
        memory: bytes that it may take.
        threads: of one operator.

    Raises:
        NotTrainableError: an operator behind a unit has no gradient, or it takes more memory.
    """
    gated = open_gates(model, units)
    samples, recipe = some_samples(training), training.recipe
    for size in [each for each in _BATCHES if each <= len(samples)] if batch_is_free(model) else [fixed_batch(model)]:
        ground = replace(
            training,
            samples=samples,
            loss=Loss(task=training.loss.task),
            recipe=replace(
                recipe,
                batch_size=size,
                threads=threads,
                workers=1,
                accumulate=1,
                engine="plain",
                precision="float32",
                freeze_untrainable=False,
            ),
            rounds=None,
        )
        network = ground.network(gated)
        with ground.trainer(network, epochs=1, weight_decay=0.0, tells=False) as trainer:
            _refuse_unreached(problem, trainer, unseen=training.unseen(gated))
            needed = trainer.expected_bytes
            if needed <= memory:
                return _summed(ground, trainer, problem, model)
    raise NotTrainableError(
        "the gradients of the gates",
        expected=f"at most {memory / 1e6:.0f} MB",
        found=f"{needed / 1e6:.0f} MB for {size} samples",
        way_out="allow more with --memory",
    )


def expected_bytes(model: Model, *, sample_bytes: float) -> float:
    """Return about what the gradients take in memory.

    Args:
        sample_bytes: of what all layers read of a sample.
    """
    size = _BATCHES[0] if batch_is_free(model) else fixed_batch(model)
    # Weights, as they are and as they are gated, and their gradients; what a layer reads is kept for its gradient.
    return 4.0 * model.file_bytes + 2.0 * size * sample_bytes


def _summed(training: Training, trainer: OrtTrainer, problem: Problem, model: Model) -> DoubleArray:
    readers = [reader for reader in problem.readers if reader.tensor in trainer.weights]
    gated = GatedWeights(trainer.weights, trainer.gradients, readers=readers, unit_count=problem.unit_count)
    generator = np.random.default_rng([training.seed, _ANSWERS])
    original, task = training.predictor(model), training.loss.task
    total, gates = np.zeros(problem.unit_count), np.ones(problem.unit_count)
    # Only what is less than one batch is filled up: a sample that stands in twice counts twice.
    whole = len(training.samples) >= trainer.batch_size
    for batch in training.samples.batches(trainer.batch_size, drop_last=whole, pad_last=True):
        answers = _drawn(original.logits(dict(batch.inputs)), task, generator)
        gated.write(gates)
        trainer.backward(replace(batch, labels=answers))
        total += np.square(gated.collect())
    if not np.isfinite(total).all():
        raise NotTrainableError(
            "the gradients of the gates",
            expected="finite numbers",
            found="others",
            way_out="check the samples, and what the network puts out for them",
        )
    return total


def _drawn(logits: Array, task: Task, generator: np.random.Generator) -> NDArray[Any]:
    """Draw an answer from what logits ``[N, C, ...]`` say: the likeliest one, or its sign, under some noise."""
    if task is Task.CROSS_ENTROPY:
        classes: NDArray[np.int64] = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
        return classes
    if task is Task.BCE:
        return (logits + generator.logistic(size=logits.shape) > 0).astype(np.float32)
    return (logits + generator.standard_normal(logits.shape)).astype(np.float32)


def _refuse_unreached(problem: Problem, trainer: OrtTrainer, *, unseen: Set[str]) -> None:
    """Refuse where a weight that reads units, and that the loss depends on, has no gradient."""
    tensors = {reader.tensor for reader in problem.readers}
    bare = sorted(tensors - trainer.weights.keys() - unseen)
    if bare:
        raise NotTrainableError(
            f"weight {bare[0]}",
            expected="a gradient, as it reads units",
            found="none",
            way_out="lock the units that it reads",
        )
