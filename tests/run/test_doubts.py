"""What is said when the original does badly on the data, which then were prepared otherwise than for its training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import DataError, OptionError
from onnxadmm.graph.model import load
from onnxadmm.progress import SILENT, Silent
from onnxadmm.run.doubts import find_doubts, first_look, parse_accuracy
from onnxadmm.run.journal import Journal
from onnxadmm.run.reading import read_training
from onnxadmm.run.trainings import Training
from tests.conftest import Command
from tests.train.graphs import mlp, random

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]


def read(model: Any, data: object, journal: Journal, **recipe: Any) -> Training:
    return read_training(
        load(model),
        data,
        None,
        recipe=oa.Recipe(**{"held_out": 0.5, "batch_size": 32, **recipe}),
        preprocessing=oa.Preprocessing(),
        inputs={},
        seed=0,
        journal=journal,
    )


def doubts(model: Any, data: object, **recipe: Any) -> list[str]:
    return list(find_doubts(read(model, data, Journal(SILENT), **recipe), load(model)))


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
    assert "another order of the classes (it sees 0 as 9, 1 as 0" in sentence


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


# -- what is refused -----------------------------------------------------------------------------------------


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def look(model: Any, data: object, expected: float | None = None, **recipe: Any) -> list[str]:
    heard = Heard()
    first_look(read(model, data, Journal(heard), **recipe), load(model), expected=expected)
    return heard.notes


def shuffled(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.random.default_rng(4).permutation(labels)


def test_the_accuracy_of_the_original_is_shown_first(digits: DemoFiles, few_digits: Digits) -> None:
    assert look(digits.model, few_digits) == ["The original has a held-out accuracy of 100.00 % on 320 samples."]


def test_labels_that_are_guessed_at_best_are_refused(digits: DemoFiles, few_digits: Digits) -> None:
    images, labels = few_digits
    with pytest.raises(
        DataError, match=r"more right answers than guessing gives, 10 % of every class, found \d"
    ) as caught:
        look(digits.model, (images, shuffled(labels)))
    assert "no usual scale, mean, std, order of channels or of classes that was tried helps" in str(caught.value)
    assert str(caught.value).endswith("--expect-accuracy 0 goes on all the same.")
    assert caught.value.exit_status == 2


def test_what_is_wrong_is_named_where_it_was_found(digits: DemoFiles, few_digits: Digits) -> None:
    images, labels = few_digits
    with pytest.raises(DataError, match=r"with rows and columns of the pictures exchanged it is right in 100"):
        look(digits.model, (images.swapaxes(2, 3).copy(), labels))
    with pytest.raises(DataError, match=r"with another order of the classes \(it sees 0 as 9, 1 as 0"):
        look(digits.model, (images, (labels + 1) % 10))


def test_an_accuracy_of_0_lets_any_original_pass_with_a_warning(digits: DemoFiles, few_digits: Digits) -> None:
    images, labels = few_digits
    _, warning = look(digits.model, (images, shuffled(labels)), 0.0)
    assert warning.startswith("Warning: The original is right in ")


def test_an_expected_accuracy_is_held_against_all_held_out_samples(digits: DemoFiles, few_digits: Digits) -> None:
    images, labels = few_digits
    wrong = np.where(np.arange(len(labels)) % 5, labels, shuffled(labels))
    assert len(look(digits.model, (images, wrong), 0.7)) == 1
    with pytest.raises(DataError, match=r"at least 95.00 % \(--expect-accuracy\), found 8\d.\d\d % of 320 samples"):
        look(digits.model, (images, wrong), 0.95)


def test_few_answers_are_no_reason_to_refuse(digits: DemoFiles, few_digits: Digits) -> None:
    images, labels = few_digits
    images, labels = images[:60], labels[:60]
    # 5 of 30 are right, a little more than 1.5 times guessing would be with luck.
    wrong = np.where(np.arange(60) % 5, (labels + 3) % 10, labels)
    _, warning = look(digits.model, (images, wrong))
    assert warning.startswith("Warning: The original is right in 16.7 % of held-out answers, little more than")


@pytest.mark.parametrize(
    ("labelled", "loss", "found"), [(False, None, "data without labels"), (True, "mse", "--loss mse")]
)
def test_an_accuracy_cannot_be_expected_where_there_is_none(labelled: bool, loss: Any, found: str) -> None:
    x = random([60, 6], seed=3)
    data = (x, random([60, 4], seed=4)) if labelled else x
    with pytest.raises(
        OptionError, match=f"--expect-accuracy: expected labelled classes to measure it with, found {found}"
    ):
        look(mlp(), data, 0.5, distillation=1.0 if not labelled else 0.5, loss=loss)
    look(mlp(), data, 0.0, distillation=1.0 if not labelled else 0.5, loss=loss)


@pytest.mark.parametrize("share", ["90", "-1", 1.5, "nan", "much"])
def test_an_accuracy_that_is_no_share_is_refused(share: Any) -> None:
    with pytest.raises(OptionError, match="--expect-accuracy: expected a share"):
        parse_accuracy(share)
    assert parse_accuracy("90%") == 0.9


def test_a_run_ends_before_it_writes_anything(digits: DemoFiles, command: Command, tmp_path: Path) -> None:
    words = ("compress", digits.model, "--calibrate", digits.training, "--macs", "0.5", "--out", tmp_path / "out")
    done = command(*words, "--expect-accuracy", "90%")  # 1/255 is the scale of bytes, and these go up to 16
    assert done.status == 2
    assert "with --scale 0.0625 (values from 0 to 1) it is right in" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_accepted_accuracy_is_in_the_report_and_its_command(
    digits: DemoFiles, few_digits: Digits, command: Command, tmp_path: Path
) -> None:
    images, labels = few_digits
    np.savez(tmp_path / "data.npz", images=images, labels=shuffled(labels))
    words = (
        "compress",
        digits.model,
        "--calibrate",
        tmp_path / "data.npz",
        "--macs",
        "0.8",
        "--no-bench",
        "--effort",
        "quick",
    )
    assert command(*words, "--out", tmp_path / "out").status == 2
    assert command(*words, "--out", tmp_path / "out", "--expect-accuracy", "0").status == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["options"]["expect_accuracy"] == 0
    assert "--expect-accuracy 0 " in report["command"]
    assert any("little more than guessing" in warning for warning in report["warnings"])
