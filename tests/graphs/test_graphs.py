"""The generator is held to what it promises: valid graphs that run, the same for a seed, and of every kind."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # it ships no types
import pytest
from hypothesis import HealthCheck, given, settings

from tests.graphs import features, feeds, graphs, random_graph
from tests.graphs.elementwise import UNARY

SEEDS = range(400)

#: What at least a handful of graphs in ``SEEDS`` must show.
WANTED = {operator for operator, lowest, _ in UNARY if lowest == 13} | {
    *("Conv 1-D", "Conv 2-D", "Conv 3-D", "grouped Conv", "auto_pad", "strides", "dilations"),
    *("depthwise Conv with multiplier 1", "depthwise Conv with multiplier 2"),
    *("Gemm alpha", "Gemm beta", "Gemm transA", "Gemm without C"),
    *("Gemm with C of rank 0", "Gemm with C of rank 1", "Gemm with C of rank 2"),
    *("MatMul of rank 2", "MatMul of rank 3", "MatMul with a constant on the left", "MatMul with a batched constant"),
    *("BatchNormalization", "Clip", "PRelu", "Dropout", "Cast", "Identity", "HardSwish"),
    *("Add", "Sub", "Mul", "Div", "broadcast scalar", "broadcast constant"),
    *("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "ReduceMean"),
    *("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Pad", "Slice", "Split"),
    *("flatten by odd axis", "flatten by channels last", "flatten through Shape", "Reshape allowzero"),
    *("features folded back into an image", "tokens", "channel shuffle", "channels-last input"),
    *("residual", "residual with projection", "padded shortcut", "inverted bottleneck", "squeeze and excite"),
    *("spatial gate", "concatenated branches", "gated halves by Split", "gated halves by Slice"),
    *("shared weight", "shared shape constant", "constant node", "weight behind Identity", "weight behind Transpose"),
    *("initializers listed as inputs", "symbolic batch", "fixed batch", "two inputs", "second output"),
    *("com.microsoft.Gelu", "com.microsoft.QuickGelu", "Softmax", "features only", "fully convolutional"),
}


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, feeds(model))]


@pytest.mark.slow
def test_every_seed_gives_a_checked_graph_that_runs_and_stays_finite() -> None:
    constant = 0
    for seed in SEEDS:
        model = random_graph(seed)
        onnx.checker.check_model(model, full_check=True)
        outputs = run(model)
        assert all(np.isfinite(output).all() and np.abs(output).max() < 1e4 for output in outputs), f"seed {seed}"
        constant += any(np.ptp(output) == 0 for output in outputs)
    assert constant <= len(SEEDS) // 50, "outputs that never change prove nothing"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_graph() -> None:
    once = [random_graph(seed).SerializeToString(deterministic=True) for seed in range(40)]
    again = [random_graph(seed).SerializeToString(deterministic=True) for seed in range(40)]
    assert once == again
    assert len(set(once)) == len(once)


@pytest.mark.slow
def test_the_seeds_cover_every_wanted_operator_and_combination() -> None:
    seen = Counter(feature for seed in SEEDS for feature in features(random_graph(seed)))
    assert sorted(WANTED - set(seen)) == []
    opsets = {entry.version for seed in SEEDS for entry in random_graph(seed).opset_import if not entry.domain}
    assert opsets == set(range(13, 22))


def test_biases_are_nowhere_near_zero() -> None:
    for seed in range(60):
        for tensor in random_graph(seed).graph.initializer:
            if tensor.name.startswith(("bias", "beta", "mean")):
                assert np.abs(onnx.numpy_helper.to_array(tensor)).min() >= 0.15


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(model=graphs())
def test_drawn_graphs_are_valid_too(model: onnx.ModelProto) -> None:
    onnx.checker.check_model(model, full_check=True)
    run(model)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_symbolic_batch_takes_any_number(batch: int) -> None:
    symbolic = [model for model in map(random_graph, range(80)) if "symbolic batch" in features(model)]
    assert len(symbolic) > 20
    for model in symbolic:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        for output in session.run(None, feeds(model, batch=batch)):
            assert np.asarray(output).shape[0] == batch
