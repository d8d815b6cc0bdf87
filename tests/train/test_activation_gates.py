"""Gates on activations in training: their gradients, and a network whose product of two activations gets smaller."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.admm.gates import GatedWeights
from onnxadmm.plan.plan import Plan
from onnxadmm.plan.problem import Limits, restrict_to, state_problem
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.trainer import OrtTrainer
from tests.rewrite import laws
from tests.samples_text import parse_sample

pytestmark = pytest.mark.usefixtures("quick_latency")

Array = NDArray[np.float64]

#: One head of attention; queries and keys of size eight are summed over in their product and nowhere else.
ATTENTION = """<ir_version: 8, opset_import: ["" : 17]>
    attention (float[N,5,6] x) => (float[N,3] y)
    <float[6,8] Wq, float[8] Bq, float[6,8] Wk, float[6,4] Wv, float[4,3] Wo, float[3] Bo,
    float scale = {0.5}>
    {
    a = MatMul (x, Wq)
    q = Add (a, Bq)
    b = MatMul (x, Wk)
    k = Transpose <perm: ints = [0, 2, 1]> (b)
    s = MatMul (q, k)
    c = Mul (s, scale)
    p = Softmax <axis: int = -1> (c)
    v = MatMul (x, Wv)
    o = MatMul (p, v)
    r = Relu (o)
    f = ReduceMean <axes: ints = [1], keepdims: int = 0> (r)
    y = Gemm (f, Wo, Bo)
    }"""


def attention_loss(weights: dict[str, Array], v: Array, w: Array, x: Array, labels: NDArray[np.int64]) -> float:
    """Cross-entropy in float64, ``v`` [8] on the size of the head and ``w`` [4] on that of the values."""
    q = x @ weights["Wq"] + weights["Bq"]
    scores = 0.5 * np.einsum("ntd,d,nsd->nts", q, v, x @ weights["Wk"])
    share = np.exp(scores - scores.max(axis=-1, keepdims=True))
    share /= share.sum(axis=-1, keepdims=True)
    mean = np.maximum(share @ (x @ weights["Wv"]), 0).mean(axis=1)
    logits = (mean * w) @ weights["Wo"] + weights["Bo"]
    logits -= logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(x)), labels]).mean())


@pytest.mark.usefixtures("engine")
def test_gates_on_activations_have_the_gradients_of_finite_differences() -> None:
    original = parse_sample(ATTENTION)
    model, units = laws.units_of(original)
    problem = state_problem(model, units, oa.Budget(macs=0.5), Limits())
    random = np.random.default_rng(0)
    x, labels = random.standard_normal((4, 5, 6)).astype(np.float32), random.integers(0, 3, 4)
    gates = random.uniform(0.2, 1.2, units.count)
    (group,) = [group for group in units.groups if "Wq" in group.tensors]
    heads = np.arange(group.start, group.start + group.count)
    others = np.setdiff1d(np.arange(units.count), heads)
    loss = oa.Recipe(distillation=0.0).objective()
    with OrtTrainer(open_gates(model, units), loss=loss, batch_size=4) as trainer:
        assert restrict_to(problem, trainer.weights).readers == problem.readers
        gated = GatedWeights(
            trainer.weights,
            trainer.gradients,
            readers=problem.readers,
            unit_count=units.count,
            held=problem.held,
        )
        gated.write(gates)
        found_loss = trainer.backward(Batch(inputs={"x": x}, labels=labels, teacher=None, count=4))
        found = gated.collect()

    arrays = {name: np.asarray(array, np.float64) for name, array in laws.constants(original.graph).items()}

    def at(v: Array) -> float:
        return attention_loss(arrays, v[heads], v[others], x.astype(np.float64), labels)

    step = 1e-5
    expected = [(at(gates + shift) - at(gates - shift)) / (2 * step) for shift in np.eye(units.count) * step]
    assert found_loss == pytest.approx(at(gates), rel=1e-5)
    assert np.abs(expected).min() > 1e-6
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_a_network_with_a_product_of_activations_loses_units_there_and_ships_without_gates(tmp_path: Path) -> None:
    original = parse_sample(ATTENTION)
    path = tmp_path / "attention.onnx"
    onnx.save(original, path)
    random = np.random.default_rng(1)
    x = random.standard_normal((600, 5, 6)).astype(np.float32)
    (logits,) = laws.run(original, {"x": x})
    labels = (logits - logits.mean(axis=0)).argmax(axis=1).astype(np.int64)
    out = tmp_path / "out"
    report = oa.compress(
        path,
        data=(x, labels),
        budget=oa.Budget(macs=0.6),
        out=out,
        recipe=oa.Recipe(epochs=3, retrain_epochs=1, batch_size=50),
        limits=oa.Limits(round_to=1),
        simplified=False,
    )
    assert report.verification.passed
    (line,) = [line for line in report.groups if line.name == "Wq"]
    assert 1 <= line.units_after < line.units_before == 8

    small = onnx.load(out / "model.onnx")
    assert [node.op_type for node in small.graph.node] == [node.op_type for node in original.graph.node]
    assert {tensor.name for tensor in small.graph.initializer} == {tensor.name for tensor in original.graph.initializer}
    shapes = {tensor.name: list(tensor.dims) for tensor in small.graph.initializer}
    assert shapes["Wq"] == shapes["Wk"] == [6, line.units_after]
    assert shapes["Bq"] == [line.units_after]

    plan = Plan.read(out / "plan.json")
    assert oa.verify(path, oa.shrink(path, plan), plan).passed


@pytest.mark.slow
def test_a_run_that_may_keep_everything_leaves_no_gate(tmp_path: Path) -> None:
    original = parse_sample(ATTENTION)
    random = np.random.default_rng(2)
    x = random.standard_normal((100, 5, 6)).astype(np.float32)
    oa.compress(
        original,
        data=(x, random.integers(0, 3, 100)),
        budget=oa.Budget(macs=1.0),
        out=tmp_path / "out",
        recipe=oa.Recipe(epochs=1, retrain_epochs=0, batch_size=25),
        simplified=False,
    )
    result = onnx.load(tmp_path / "out" / "model.onnx")
    before, after = (
        [(node.op_type, list(node.input), list(node.output)) for node in graph.node]
        for graph in (original.graph, result.graph)
    )
    assert after == before
    assert [(t.name, list(t.dims)) for t in result.graph.initializer] == [
        (t.name, list(t.dims)) for t in original.graph.initializer
    ]
