"""Each sample is a valid network that runs, shows its operator, and says something about its numbers."""

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # it ships no types
import pytest
from onnx.reference import ReferenceEvaluator

from tests.graphs import feeds
from tests.graphs.checking import check
from tests.samples_text import load_sample, sample_names

#: Newest opset of the default domain that the oldest supported onnxruntime runs.
NEWEST_RUN_OPSET = 21


def test_there_are_samples() -> None:
    assert len(sample_names()) >= 90


@pytest.mark.parametrize("operator", sample_names())
def test_sample_is_valid_and_contains_its_operator(operator: str) -> None:
    model = load_sample(operator)
    check(model)
    assert operator in {node.op_type for node in model.graph.node}
    assert model.graph.name == f"{operator.lower()}_sample"
    assert not any(
        tensor.name.startswith("B") and not np.any(onnx.numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
    )


@pytest.mark.parametrize("operator", sample_names())
def test_sample_runs_and_its_output_depends_on_its_input(operator: str) -> None:
    model = load_sample(operator)
    first, second = feeds(model, seed=1), feeds(model, seed=2)
    if model.opset_import[0].version > NEWEST_RUN_OPSET:
        reference = ReferenceEvaluator(model)
        outputs = [np.asarray(next(iter(reference.run(None, feed)))) for feed in (first, second)]
    else:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        outputs = [np.asarray(session.run(None, feed)[0]) for feed in (first, second)]
    assert np.isfinite(outputs[0]).all()
    assert not np.array_equal(outputs[0], outputs[1])
