"""Gates in front of norms over features: their gradients, and a decoder whose width gets smaller in training."""

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
from tests.graphs.decoder import NORMS, TOKENS, WORDS, Norm, decoder
from tests.rewrite import laws
from tests.samples_text import parse_sample

pytestmark = pytest.mark.usefixtures("quick_latency")

Array = NDArray[np.float64]
_HEAD = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    normed (float[N,5,6] x) => (float[N,3] y)
    <float[6,8] W1, float[6,8] W2, float[8] scale, float[8] shift, float[8,3] Wo, float[3] Bo>
    {
    a = MatMul (x, W1)
    b = MatMul (x, W2)"""
_TAIL = """f = ReduceMean <axes: ints = [1], keepdims: int = 0> (z)
    y = Gemm (f, Wo, Bo)
    }"""
NETWORKS = {
    "SimplifiedLayerNormalization": f"""{_HEAD}
    t = Add (a, b)
    n = SimplifiedLayerNormalization <epsilon: float = 0.5> (t, scale)
    z = Tanh (n)
    {_TAIL}""",
    "SkipSimplifiedLayerNormalization": f"""{_HEAD}
    n = com.microsoft.SkipSimplifiedLayerNormalization <epsilon: float = 0.5> (a, b, scale)
    z = Tanh (n)
    {_TAIL}""",
    "LayerNormalization": f"""{_HEAD}
    t = Add (a, b)
    n = LayerNormalization <epsilon: float = 0.5> (t, scale, shift)
    z = Tanh (n)
    {_TAIL}""",
    "SkipLayerNormalization": f"""{_HEAD}
    n = com.microsoft.SkipLayerNormalization <epsilon: float = 0.5> (a, b, scale, shift)
    z = Tanh (n)
    {_TAIL}""",
}


def loss_of(operator: str, weights: dict[str, Array], v: Array, x: Array, labels: NDArray[np.int64]) -> float:
    """Cross-entropy in float64 with ``v`` [8] on what the norm reads and on the rows of the last layer."""
    total = (x @ weights["W1"] + x @ weights["W2"]) * v
    layer = "Simplified" not in operator
    total = total - total.mean(axis=-1, keepdims=True) if layer else total
    normed = total / np.sqrt((total**2).mean(axis=-1, keepdims=True) + 0.5) * weights["scale"]
    normed = normed + weights["shift"] if layer else normed
    logits = (np.tanh(normed).mean(axis=1) * v) @ weights["Wo"] + weights["Bo"]
    logits -= logits.max(axis=1, keepdims=True)
    return float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(x)), labels]).mean())


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("operator", NETWORKS)
def test_a_gate_in_front_of_a_norm_has_the_gradient_of_finite_differences(operator: str) -> None:
    original = parse_sample(NETWORKS[operator])
    model, units = laws.units_of(original)
    problem = state_problem(model, units, oa.Budget(params=0.5), Limits())
    random = np.random.default_rng(0)
    x, labels = random.standard_normal((4, 5, 6)).astype(np.float32), random.integers(0, 3, 4)
    gates = random.uniform(0.2, 1.2, units.count)
    assert [group.count for group in units.groups] == [8]
    loss = oa.Recipe(distillation=0.0).objective()
    with OrtTrainer(open_gates(model, units), loss=loss, batch_size=4) as trainer:
        assert restrict_to(problem, trainer.weights).readers == problem.readers
        gated = GatedWeights(
            trainer.weights, trainer.gradients, readers=problem.readers, unit_count=units.count, held=problem.held
        )
        gated.write(gates)
        found_loss = trainer.backward(Batch(inputs={"x": x}, labels=labels, teacher=None, count=4))
        found = gated.collect()
    arrays = {name: np.asarray(array, np.float64) for name, array in laws.constants(original.graph).items()}

    def at(v: Array) -> float:
        return loss_of(operator, arrays, v, x.astype(np.float64), labels)

    step = 1e-5
    expected = [(at(gates + shift) - at(gates - shift)) / (2 * step) for shift in np.eye(8) * step]
    assert found_loss == pytest.approx(at(gates), rel=1e-5)
    assert np.abs(expected).min() > 1e-6
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("norm", [norm for norm in NORMS if norm != "RMSNormalization"])  # too new to train
def test_the_width_of_a_decoder_gets_smaller_in_training_and_ships_without_gates(norm: Norm, tmp_path: Path) -> None:
    original = decoder(norm, blocks=1)
    random = np.random.default_rng(1)
    tokens = random.integers(0, WORDS, (200, TOKENS))
    path, out = tmp_path / "decoder.onnx", tmp_path / "out"
    onnx.save(original, path)
    report = oa.compress(
        path,
        data=(tokens, np.roll(tokens, -1, axis=1)),
        budget=oa.Budget(params=0.8),
        out=out,
        recipe=oa.Recipe(epochs=2, retrain_epochs=1, batch_size=50),
        limits=oa.Limits(round_to=1),
        ignore=["Wq0", "Wg0"],
        simplified=False,
        expect_accuracy=0,  # weights are drawn
    )
    assert report.verification.passed
    assert report.verification.snr_db >= 100
    (line,) = [line for line in report.groups if line.name == "words"]
    assert line.units_after < line.units_before == 24

    small = onnx.load(out / "model.onnx")
    assert {tensor.name for tensor in small.graph.initializer} >= {t.name for t in original.graph.initializer}
    assert laws.constants(small.graph)["scale_end"].shape == (line.units_after,)
    before, after = (
        [list(node.output) for node in graph.node if node.op_type in ("Gather", "MatMul", "Softmax", "Transpose")]
        for graph in (original.graph, small.graph)
    )
    assert before == after
    assert not any("gate" in name for node in small.graph.node for name in (*node.input, *node.output))

    plan = Plan.read(out / "plan.json")
    assert oa.verify(path, oa.shrink(path, plan), plan).passed
