"""``onnxadmm.rule``: operators of a user's own shrink and train, and wrong declarations are refused."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import parser

import onnxadmm as oa
from onnxadmm.errors import InputError, NotTrainableError, OptionError
from onnxadmm.operators import outside, table
from onnxadmm.rules.visit import Visit
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.preflight.preflight import preflight
from onnxadmm.train.trainer import OrtTrainer
from tests.shared import needs_training

pytestmark = pytest.mark.usefixtures("restored_table")
#: ``com.microsoft.Inverse`` runs in every onnxruntime, and neither onnx nor this package knows it.
MODEL = """
    <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    network (float[N, 4] x) => (float[N, 3] y)
    <float[4, 4] A, float[4, 4] B, float[4, 3] C>
    {
        h = MatMul (x, A)
        inverse = com.microsoft.Inverse (B)
        z = MatMul (h, inverse)
        r = Relu (z)
        y = MatMul (r, C)
    }
"""


def model() -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    made = parser.parse_model(MODEL)
    for name, shape in {"A": (4, 4), "B": (4, 4), "C": (4, 3)}.items():
        array = generator.standard_normal(shape) + (3 * np.eye(4) if shape == (4, 4) else 0)
        made.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return made


def batch() -> Batch:
    generator = np.random.default_rng(1)
    images = generator.standard_normal((8, 4)).astype(np.float32)
    return Batch({"x": images}, generator.standard_normal((8, 3)).astype(np.float32), None, count=8)


RULES = """
import onnxadmm

def same_shape(call):
    return [(call.dtype(0), call.lengths(0))]

def gradient(write, node, upstream):
    # d(B^-1) = -B^-1 dB B^-1, so dL/dB = -Y^T G Y^T
    turned = write.add("Transpose", node.output[0], perm=[1, 0])
    product = write.add("MatMul", write.add("MatMul", turned, upstream[0]), turned)
    return [write.add("Neg", product)]

@onnxadmm.rule("Inverse", domain="com.microsoft", weights=(0,), shape=same_shape, gradient=gradient)
def inverse(visit):
    for axis in visit.operand(0).axes:
        visit.lock(axis, "is inverted")
    visit.set_result([None, None])
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A file that declares the operator with its gradient."""
    path = tmp_path / "rules.py"
    path.write_text(RULES)
    return path


def slope(trainer: OrtTrainer, weight: NDArray[np.float32], index: tuple[int, int]) -> float:
    """Central difference of the loss by one entry."""
    kept = weight[index]
    weight[index] = kept + 1e-2
    above = trainer.backward(batch())
    weight[index] = kept - 1e-2
    below = trainer.backward(batch())
    weight[index] = kept
    return (above - below) / 2e-2


@needs_training
@pytest.mark.parametrize(
    ("text", "replacement", "right"), [("", "", True), ('"Neg", product', '"Identity", product', False)]
)
def test_a_gradient_of_ones_own_is_the_slope_of_the_loss(rules: Path, text: str, replacement: str, right: bool) -> None:
    rules.write_text(RULES.replace(text, replacement) if text else RULES)
    outside.load_rules(rules)
    with OrtTrainer(model(), loss=Loss(Task.MSE), batch_size=8) as trainer:
        assert set(trainer.weights) == {"A", "B", "C"}
        trainer.backward(batch())
        gradient = trainer.gradients["B"].copy()
        slopes = [slope(trainer, trainer.weights["B"], index) for index in ((0, 0), (1, 3), (3, 2))]
    found = [gradient[index] for index in ((0, 0), (1, 3), (3, 2))]
    assert (found == pytest.approx(slopes, rel=2e-2, abs=1e-4)) is right


@pytest.mark.slow
@needs_training
def test_the_preflight_checks_a_gradient_of_ones_own_in_its_child(rules: Path) -> None:
    outside.load_rules(rules)
    found = preflight(model(), loss=Loss(Task.MSE), batch=batch())
    assert {check.weight for check in found.checks} == {"all weights", "A", "B", "C"}


@pytest.mark.slow
@needs_training
def test_the_preflight_refuses_a_wrong_gradient_of_ones_own_by_name(rules: Path) -> None:
    rules.write_text(RULES.replace('"Neg", product', '"Identity", product'))
    outside.load_rules(rules)
    with pytest.raises(NotTrainableError, match=r"weight B, read by Inverse \(inverse\): expected a slope"):
        preflight(model(), loss=Loss(Task.MSE), batch=batch())


@pytest.mark.slow
@needs_training
def test_a_rule_that_no_other_process_finds_is_refused_before_training() -> None:
    @oa.rule("Inverse", domain="com.microsoft", weights=(0,), shape=lambda call: [(call.dtype(0), call.lengths(0))])
    def inverse(visit: Visit) -> None:
        visit.set_result([None, None])

    with pytest.raises(OptionError, match=r"declaration that stands at the top level of .*test_own_rules.py"):
        preflight(model(), loss=Loss(Task.MSE), batch=batch())


def test_an_operator_with_a_rule_cannot_have_another() -> None:
    with pytest.raises(OptionError, match=r"ai.onnx::Relu: .* found one of this package"):
        oa.rule("Relu", domain="ai.onnx")(lambda visit: None)


def test_two_files_cannot_declare_one_operator(rules: Path, tmp_path: Path) -> None:
    outside.load_rules(rules)
    other = tmp_path / "other.py"
    other.write_text(RULES)
    with pytest.raises(OptionError, match=r"com.microsoft::Inverse: .* found one of .*rules.py"):
        outside.load_rules(other)
    outside.load_rules(rules)  # once more is once


def test_a_cell_that_runs_twice_declares_anew() -> None:
    for note in ("first", "second"):

        @oa.rule("Mine", domain="com.example", note=note, elementwise=True)
        def mine(visit: Visit) -> None:
            visit.set_result(visit.operand(0).axes)

    assert table.find("com.example", "Mine").note == "second"


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "found none"), ("1 / 0", "found ZeroDivisionError: division by zero"), ("(", "found SyntaxError")],
)
def test_a_file_of_rules_that_fails_is_one_sentence(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "rules.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=re.escape(words)):
        outside.load_rules(path)


def test_a_lowering_and_a_gradient_contradict_each_other() -> None:
    with pytest.raises(OptionError, match="expected a lowering or a gradient, found both"):
        oa.rule("Mine", domain="com.example", lowering=lambda *_: "", gradient=lambda *_: [])


def test_units_go_through_an_operator_of_ones_own(rules: Path) -> None:
    outside.load_rules(rules)
    groups = oa.find_groups(oa.load(model()))
    assert any("A" in group.tensors for group in groups.locked)
