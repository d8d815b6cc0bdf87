"""What is said when the original does badly on the data, which then were prepared otherwise than for its training."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.graph.model import load
from onnxadmm.progress import SILENT
from onnxadmm.run.doubts import find_doubts
from onnxadmm.run.journal import Journal
from onnxadmm.run.reading import read_training
from tests.train.graphs import mlp, random

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]


def doubts(model: Any, data: object, **recipe: Any) -> list[str]:
    loaded = load(model)
    training = read_training(
        loaded,
        data,
        None,
        recipe=oa.Recipe(**{"held_out": 0.5, "batch_size": 32, **recipe}),
        preprocessing=oa.Preprocessing(),
        inputs={},
        seed=0,
        journal=Journal(SILENT),
    )
    return list(find_doubts(training, loaded))


def test_data_as_the_original_knows_them_raise_no_doubt(digits: DemoFiles, few_digits: Digits) -> None:
    assert doubts(digits.model, few_digits) == []


@pytest.mark.parametrize("wrong", [lambda x: 1 - x, lambda x: x * 0.01, lambda x: x[..., ::-1, ::-1].copy()])
def test_data_prepared_otherwise_raise_one(digits: DemoFiles, few_digits: Digits, wrong: Any) -> None:
    images, labels = few_digits
    (sentence,) = doubts(digits.model, (wrong(images).astype(np.float32), labels))
    assert "--scale, --mean and --std" in sentence
    assert "order of the colour channels" in sentence


def test_another_order_of_the_classes_is_named(digits: DemoFiles, few_digits: Digits) -> None:
    images, labels = few_digits
    (sentence,) = doubts(digits.model, (images, (labels + 1) % 10))
    assert "another order of the classes: it sees 0 as 9, 1 as 0" in sentence


def test_a_sure_original_that_is_often_wrong_raises_one(digits: DemoFiles, few_digits: Digits) -> None:
    images, labels = few_digits
    noisy = np.where(np.arange(len(labels)) % 2, labels, (labels + 3) % 10)
    (sentence,) = doubts(digits.model, (images, noisy))
    assert "% sure of its held-out answers" in sentence


def test_answers_that_are_always_the_commonest_class_are_guesses() -> None:
    x = random([400, 6], seed=3)
    labels = (np.arange(400) % 10 == 0).astype(np.int64)
    model = mlp(outputs=2)
    for tensor in model.graph.initializer:
        if tensor.name == "b2":
            tensor.raw_data = np.float32([9, -9]).tobytes()
    (sentence,) = doubts(model, (x, labels))
    assert "90.0 % of held-out answers, little more than guessing" in sentence


@pytest.mark.parametrize(("offset", "said"), [(0.0, 0), (5.0, 1)])
def test_numbers_no_better_than_their_mean_raise_one(offset: float, said: int) -> None:
    x = random([200, 6], seed=3)
    weights = {tensor.name: np.frombuffer(tensor.raw_data, np.float32) for tensor in mlp().graph.initializer}
    hidden = np.tanh(x @ weights["w1"].reshape(5, 6).T + weights["b1"])
    exact = hidden @ weights["w2"].reshape(4, 5).T + weights["b2"]
    found = doubts(mlp(), (x, (exact + offset).astype(np.float32)), loss="mse")
    assert len(found) == said
    assert all("the unit and order of the targets" in sentence for sentence in found)
