"""Squared gradients of gates, beside what they estimate: expectations over all answers, by finite differences."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.calibrate.network import Network
from onnxadmm.errors import NotTrainableError
from onnxadmm.graph.constants import constant, constants_by_name, with_constants
from onnxadmm.graph.model import Model
from onnxadmm.graph.runtime import open_session
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Limits, state_problem
from onnxadmm.progress import SILENT
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.run.fisher import expected_bytes, fisher_information
from onnxadmm.run.journal import Journal
from onnxadmm.run.reading import read_training
from onnxadmm.train.losses import Task
from onnxadmm.units.units import find_units
from tests.calibrate.networks import batches, convolutional, network

Array = NDArray[Any]

SAMPLES = 512
MEMORY = 1 << 30


class Asked:
    """A model, its problem and its samples, of which it has no labels."""

    def __init__(self, model: Model, loss: str, samples: Array) -> None:
        self.model = model
        self.units = find_units(model)
        self.problem = state_problem(model, self.units, Budget(params=0.6), Limits())
        self.training = read_training(
            model,
            samples,
            None,
            recipe=oa.Recipe(loss=loss, distillation=1.0),  # type: ignore[arg-type]  # one of its names
            preprocessing=oa.Preprocessing(),
            inputs={},
            seed=0,
            journal=Journal(SILENT),
            trains=False,
        )

    def found(self, *, memory: int = MEMORY, seed: int = 0) -> Array:
        training = replace(self.training, seed=seed)
        return fisher_information(training, self.model, self.units, self.problem, memory=memory, threads=1)

    def exact(self, task: Task, *, step: float = 1e-2) -> Array:
        """The mean over the samples of what is expected over all answers, by central differences of the logits."""
        gated = open_gates(self.model, self.units)
        values = {name: np.array(constant(value)) for name, value in constants_by_name(gated).items()}
        samples = next(iter(self.training.samples.batches(len(self.training.samples)))).inputs
        whole = _logits(gated, samples)
        found = []
        for unit in range(self.units.count):
            ends = []
            for sign in (1, -1):
                changed = {}
                for reader in self.problem.readers:
                    array = changed.setdefault(reader.tensor, values[reader.tensor].copy())
                    scale = np.where(reader.units == unit, 1 + sign * step, 1.0)
                    shape = [1] * array.ndim
                    shape[reader.axis] = -1
                    array *= scale.reshape(shape).astype(np.float32)
                ends.append(_logits(with_constants(gated, changed), samples))
            slope = (ends[0] - ends[1]) / (2 * step)
            found.append(float(_expected(task, whole, slope).mean()))
        return np.array(found)


def _logits(model: Model, inputs: Any) -> Array:
    with open_session(model) as session:
        return np.asarray(session.run(dict(inputs))[session.outputs[0]], np.float64)


def _expected(task: Task, logits: Array, slope: Array) -> Array:
    """E_y [(d log p(y) / dv)^2] of each sample, given dlogits/dv."""
    if task is Task.CROSS_ENTROPY:
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        return (share * np.square(slope - (share * slope).sum(axis=1, keepdims=True))).sum(axis=1)
    if task is Task.BCE:
        share = 1 / (1 + np.exp(-logits))
        return (share * (1 - share) * np.square(slope)).sum(axis=1)
    return np.square(slope).sum(axis=1)


def some(model: Model, count: int = SAMPLES) -> Array:
    (value,) = batches(model, count=1, size=count)[0].values()
    return value


@pytest.mark.parametrize("task", list(Task), ids=lambda task: task.value)
def test_it_is_what_is_expected_over_the_answers_of_the_network(task: Task) -> None:
    model = convolutional()
    asked = Asked(model, task.value, some(model))
    found, exact = np.mean([asked.found(seed=seed) for seed in range(12)], axis=0), asked.exact(task)
    # Up to a common factor, and the noise of so many sums of 16 samples each, whose squares are added: about 8 %.
    ratio = found / exact
    assert np.corrcoef(found, exact)[0, 1] > 0.98
    assert np.abs(ratio / np.median(ratio) - 1).max() < 0.35
    assert np.median(np.abs(ratio / np.median(ratio) - 1)) < 0.1


def test_units_that_nothing_depends_on_have_none() -> None:
    model = convolutional()
    values = constants_by_name(model)
    weight = np.array(constant(values["w2"]))
    weight[:, 3] = 0.0
    asked = Asked(with_constants(model, {"w2": weight}), "cross-entropy", some(model, 64))
    (group,) = (group for group in asked.units.groups if "w1" in group.tensors)
    found = asked.found()[group.start : group.start + group.count]
    assert found[3] == 0.0
    assert (np.delete(found, 3) > 0).all()


def test_labels_are_not_read_and_the_same_is_found_again() -> None:
    model = convolutional()
    asked, again = (Asked(model, "cross-entropy", some(model, 96)) for _ in range(2))
    np.testing.assert_array_equal(asked.found(), again.found())


def test_less_memory_takes_smaller_batches_and_none_is_refused() -> None:
    model = convolutional()
    asked = Asked(model, "cross-entropy", some(model))
    needed = _needed(asked)
    assert needed[16] > needed[1]
    close = asked.found(memory=needed[1])
    assert np.corrcoef(close, asked.exact(Task.CROSS_ENTROPY))[0, 1] > 0.95
    assert (close != asked.found()).any()
    with pytest.raises(NotTrainableError, match=r"gradients of the gates: expected at most 0 MB, found .* --memory"):
        asked.found(memory=1)


def test_units_behind_an_operator_without_a_gradient_are_refused() -> None:
    model = network(
        """g (float[N,6] x) => (float[N,4] y) {
            h = MatMul (x, w0)
            r = Relu (h)
            k = MatMul (r, w1)
            s = Round (k)
            y = MatMul (s, w2)
        }""",
        {"w0": [6, 8], "w1": [8, 5], "w2": [5, 4]},
    )
    with pytest.raises(NotTrainableError, match="weight w1: expected a gradient"):
        Asked(model, "cross-entropy", some(model, 64)).found()


def _needed(asked: Asked) -> dict[int, int]:
    """Bytes that steps of each size are expected to take."""
    from onnxadmm.train.losses import Loss
    from onnxadmm.train.trainer import OrtTrainer

    found = {}
    for size in (16, 1):
        with OrtTrainer(
            asked.model, loss=Loss(task=Task.CROSS_ENTROPY), batch_size=size, threads=1, engine="plain"
        ) as trainer:
            found[size] = trainer.expected_bytes
    return found


def test_samples_of_one_class_after_the_other_are_drawn_from_all() -> None:
    whole = convolutional()
    values = constants_by_name(whole)
    model = with_constants(whole, {name: 0 * np.array(constant(values[name])) for name in ("b0", "b1", "b2")})
    samples = some(model, 1500)
    samples[:1000] = 0.0
    asked = Asked(model, "cross-entropy", samples)
    drawn = replace(asked.training, samples=asked.training.samples.take(np.arange(800)))  # without those held out
    first = fisher_information(drawn, model, asked.units, asked.problem, memory=MEMORY, threads=1)
    # Of zeros nothing comes, and gates have no slope.
    assert (first == 0).all()
    assert (asked.found() > 0).all()


def test_what_it_takes_is_about_known_before() -> None:
    model = convolutional()
    asked = Asked(model, "cross-entropy", some(model, 64))
    said = expected_bytes(model, sample_bytes=Network(model, asked.units).sample_bytes)
    assert 0.3 < said / _needed(asked)[16] < 3
