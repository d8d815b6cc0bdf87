"""What the pages' how-tos promise, tried in a process of its own: ``python -m tests.follow NAME FILE``."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import parser
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

import onnxadmm as oa
from onnxadmm.graph.model import to_proto
from onnxadmm.operators.outside import load_rules
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.preflight.preflight import preflight
from onnxadmm.train.trainer import OrtTrainer

Array = NDArray[np.float32]

SCALED = """
    <ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>
    network (float[N, 4] x) => (float[N, 3] y)
    <float[4, 6] A, float[6, 3] C>
    { h = MatMul (x, A) s = com.example.Scale2 (h) y = MatMul (s, C) }
"""
INVERTED_WEIGHT = """
    <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    network (float[N, 4] x) => (float[N, 3] y)
    <float[4, 4] A, float[4, 4] B, float[4, 3] C>
    { h = MatMul (x, A) i = com.microsoft.Inverse (B) z = MatMul (h, i) r = Relu (z) y = MatMul (r, C) }
"""
INVERTED_ACTIVATION = """
    <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    network (float[N, 4] x) => (float[N, 3] y)
    <float[4, 4] A, float[2, 2] B, float[4, 3] C, int64[3] square = {-1, 2, 2}, int64[2] flat = {-1, 4}>
    {
        h = MatMul (x, A)
        t = Tanh (h)
        s = Reshape (t, square)
        m = Add (s, B)
        i = com.microsoft.Inverse (m)
        f = Reshape (i, flat)
        y = MatMul (f, C)
    }
"""


class Scale2(OpRun):
    """What the rule of the page is about."""

    op_domain = "com.example"

    def _run(self, x: Array) -> tuple[Array]:
        return (2 * x,)


def network(text: str) -> onnx.ModelProto:
    """The model of a text; square weights lie near a multiple of the identity."""
    model = parser.parse_model(text)
    generator = np.random.default_rng(0)
    declared = [value for value in model.graph.value_info if value.name in "ABC"]
    for value in declared:
        rows, columns = (axis.dim_value for axis in value.type.tensor_type.shape.dim)
        array = generator.standard_normal((rows, columns)) / 2 + (3 * np.eye(rows) if rows == columns else 0)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), value.name))
        model.graph.value_info.remove(value)
    return model


def batch() -> Batch:
    generator = np.random.default_rng(1)
    x, y = (generator.standard_normal((8, size)).astype(np.float32) for size in (4, 3))
    return Batch({"x": x}, y, None, count=8)


def trained(text: str) -> set[str]:
    """Take a step in a child, its gradients held against differences; the weights that were checked."""
    found = preflight(network(text), loss=Loss(Task.MSE), batch=batch())
    return {check.weight for check in found.checks} - {"all weights"}


def own_rule(rules: Path) -> None:
    model = network(SCALED)
    (locked,) = (group.reason for group in oa.find_groups(model).locked if "A" in group.tensors)
    assert "no rule for Scale2" in locked
    load_rules(rules)
    plan = oa.rank(model, ratio=0.5)
    masked, small = to_proto(oa.mask(model, plan)), to_proto(oa.shrink(model, plan))
    assert [list(tensor.dims) for tensor in small.graph.initializer] == [[4, 3], [3, 3]]
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    evaluators = [ReferenceEvaluator(proto, new_ops=[Scale2]) for proto in (masked, small)]
    (first,), (second,) = (evaluator.run(None, {"x": x}) for evaluator in evaluators)
    np.testing.assert_allclose(np.asarray(first), np.asarray(second), rtol=1e-5)
    with OrtTrainer(network(SCALED), loss=Loss(Task.MSE), batch_size=8) as trainer:
        trainer.backward(batch())
        gradient, weight = float(trainer.gradients["A"][1, 2]), trainer.weights["A"]
        weight[1, 2] += 1e-2
        above = trainer.backward(batch())
        weight[1, 2] -= 2e-2
        below = trainer.backward(batch())
    np.testing.assert_allclose(gradient, (above - below) / 2e-2, rtol=1e-2)


def own_gradient(rules: Path) -> None:
    load_rules(rules)
    assert trained(INVERTED_WEIGHT) == {"A", "B", "C"}


def gradient(_: Path) -> None:
    assert {"A", "C"} <= trained(INVERTED_ACTIVATION)


HOW_TO: dict[str, Callable[[Path], None]] = {"own-rule": own_rule, "own-gradient": own_gradient, "gradient": gradient}

if __name__ == "__main__":
    HOW_TO[sys.argv[1]](Path(sys.argv[2]))
