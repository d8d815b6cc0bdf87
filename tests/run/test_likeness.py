"""How far outputs are from the original's: nothing for the original, all there is for its mean."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxadmm.graph.model import from_proto
from onnxadmm.run.likeness import output_error
from tests.run.test_reading import ENDS, network, read


def with_weight(weight: NDArray[np.float64]) -> onnx.ModelProto:
    model = network(*ENDS["rows"][:2])
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight.astype(np.float32), "w5"))
    return model


def test_the_error_is_relative_to_how_much_the_original_varies() -> None:
    weight = np.random.default_rng(1).standard_normal((6, 5))
    training, _ = read(with_weight(weight))
    original = from_proto(with_weight(weight))
    assert output_error(training, original, original) == 0.0
    rows = np.concatenate([batch.inputs["x"] for batch in training.held_out.batches(8)]).astype(np.float64)
    before, after = rows @ weight, rows @ (0.5 * weight)
    expected = np.square(after - before).sum() / np.square(before - before.mean(axis=0)).sum()
    assert output_error(training, original, from_proto(with_weight(0.5 * weight))) == pytest.approx(expected, rel=1e-4)


def test_an_original_that_puts_out_the_same_for_all_has_no_such_error() -> None:
    training, _ = read(with_weight(np.zeros((6, 5))))
    zero, one = (from_proto(with_weight(np.full((6, 5), value))) for value in (0.0, 1.0))
    assert output_error(training, zero, one) is None
