"""What is counted of answers, against counting them one by one."""

from typing import Any

import numpy as np
import pytest

from onnxadmm.run.answers import Answers, answers_of, joined
from onnxadmm.train.data.batches import ArrayDataset
from onnxadmm.train.data.images import Transform
from onnxadmm.train.losses import IGNORED


class Echo:
    """A predictor whose logits are its input."""

    def logits(self, inputs: dict[str, Any]) -> Any:
        return inputs["x"]


def asked(logits: Any, labels: Any, *, batch_size: int) -> Answers:
    dtype = np.dtype(np.float32)
    data = ArrayDataset({"x": logits}, labels, {"x": Transform(None, None, dtype)}, {}, np.arange(len(logits)))
    return answers_of(Echo(), data, batch_size=batch_size)  # type: ignore[arg-type]


@pytest.mark.parametrize("positions", [(), (3, 2)])
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_answers_are_counted_as_one_by_one(positions: tuple[int, ...], batch_size: int) -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(40, 5, *positions)).astype(np.float32)
    labels = generator.integers(0, 5, (40, *positions))
    labels[generator.random(labels.shape) < 0.2] = IGNORED
    labels[3] = IGNORED
    found = asked(logits, labels, batch_size=batch_size)
    rows = np.moveaxis(logits, 1, -1).reshape(40, -1, 5)
    right, sure, loss, by_class = [], [], [], {each: [] for each in range(5)}  # type: ignore[var-annotated]
    for sample, truths in zip(rows, labels.reshape(40, -1), strict=True):
        for row, truth in zip(sample, truths, strict=True):
            if truth != IGNORED:
                chances = np.exp(row.astype(float)) / np.exp(row.astype(float)).sum()
                right.append(row.argmax() == truth)
                by_class[int(truth)].append(row.argmax() == truth)
                sure.append(chances.max())
                loss.append(-np.log(chances[truth]))
    assert found.total == len(right)
    assert found.accuracy == pytest.approx(np.mean(right))
    assert found.balanced == pytest.approx(np.mean([np.mean(each) for each in by_class.values()]))
    assert found.sureness == pytest.approx(np.mean(sure))
    assert found.loss == pytest.approx(np.mean(loss))
    assert np.isnan(found.shares[3])
    known = labels.reshape(40, -1) != IGNORED
    answers = (rows.argmax(2) == labels.reshape(40, -1)).sum(1)[known.any(1)] / known.sum(1)[known.any(1)]
    assert found.shares[known.any(1)] == pytest.approx(answers)


def test_parts_joined_are_the_whole() -> None:
    generator = np.random.default_rng(2)
    logits, labels = generator.normal(size=(30, 4)).astype(np.float32), generator.integers(0, 4, 30)
    whole = asked(logits, labels, batch_size=30)
    parts = joined([asked(logits[:11], labels[:11], batch_size=4), asked(logits[11:], labels[11:], batch_size=30)])
    assert parts.accuracy == whole.accuracy
    assert parts.loss == pytest.approx(whole.loss)
    assert (parts.counts == whole.counts).all()
    assert (parts.shares == whole.shares).all()


def test_the_usual_answer_to_a_label_has_its_share() -> None:
    logits = np.eye(3, dtype=np.float32)[[1, 1, 2, 0]]
    found = asked(logits, np.array([0, 0, 0, 1]), batch_size=4)
    assert found.usual(0) == (1, pytest.approx(2 / 3))
    assert found.usual(1) == (0, 1.0)
