"""Models that are no classifiers of one label per sample, compressed from data to report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import onnxadmm as oa
from onnxadmm.errors import DataError, NothingToPruneError, NotTrainableError, OptionError
from onnxadmm.report.report import Report
from tests.conftest import Command
from tests.samples_text import parse_sample
from tests.shared import needs_training

pytestmark = [needs_training, pytest.mark.slow, pytest.mark.usefixtures("quick_latency")]

Array = NDArray[Any]
SHORT = {"epochs": 1, "retrain_epochs": 1, "batch_size": 16, "workers": 1}
RANDOM = np.random.default_rng(0)


def weight(*shape: int, fan: int) -> NDArray[np.float32]:
    return (RANDOM.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)


TABLE, FIRST, LAST = 5 * weight(30, 24, fan=24), weight(24, 32, fan=24), 3 * weight(32, 5, fan=32)
CONV, HEAD = weight(16, 3, 3, 3, fan=27), weight(4, 16, 1, 1, fan=16)
IMAGES = RANDOM.standard_normal((96, 3, 8, 8)).astype(np.float32)


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[list[Any], int]],
    outputs: Mapping[str, list[Any]],
    weights: Mapping[str, Array],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, kind, shape) for name, (shape, kind) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tagger(length: int, *, tail: bool = True) -> onnx.ModelProto:
    """Five classes for each of some positions, classes last."""
    nodes = [
        helper.make_node("Gather", ["e", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "w1"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["s"]),
    ]
    nodes += [helper.make_node("Softmax", ["s"], ["p"], axis=-1)] if tail else []
    return model_of(
        nodes,
        {"ids": (["n", length], TensorProto.INT64)},
        {"p" if tail else "s": ["n", length, 5]},
        {"e": TABLE, "w1": FIRST, "w2": LAST},
    )


def tags(length: int) -> tuple[Array, Array]:
    """Samples and the classes that the tagger itself gives them."""
    ids = np.random.default_rng(1).integers(0, 30, (96, length))
    return ids, (np.maximum(TABLE[ids] @ FIRST, 0) @ LAST).argmax(-1)


def masks(*tail: onnx.NodeProto, outputs: Mapping[str, list[Any]], **inputs: list[Any]) -> onnx.ModelProto:
    """Four classes for every pixel of an image, and what stands behind them."""
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w1"], ["s"]),
        *tail,
    ]
    read = {name: (shape, TensorProto.FLOAT) for name, shape in {"x": ["n", 3, 8, 8], **inputs}.items()}
    return model_of(nodes, read, outputs, {"w0": CONV, "w1": HEAD})


def compressed(model: onnx.ModelProto, data: object, *, share: float = 0.7, **more: Any) -> Report:
    recipe = oa.Recipe(**{**SHORT, **more.pop("recipe", {})})
    limits = oa.Limits(round_to=1)
    more.setdefault("expect_accuracy", 0)  # weights and labels are drawn
    return oa.compress(model, data=data, budget=oa.Budget(params=share), recipe=recipe, limits=limits, **more)


# -- the axis of the classes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "tail"), [(5, True), (12, True), (12, False)])
def test_an_exact_tagger_is_right_everywhere_before_it_is_pruned(length: int, tail: bool) -> None:
    report = compressed(tagger(length, tail=tail), tags(length))
    assert report.before.heldout is not None
    assert report.before.heldout.metric == "accuracy"
    assert report.before.heldout.value == 1.0


def test_the_teacher_alone_answers_along_the_classes() -> None:
    report = compressed(tagger(12), tags(12)[0], recipe={"distillation": 1.0})
    assert report.before.heldout is not None
    assert (report.before.heldout.metric, report.before.heldout.value) == ("agreement", 1.0)


def test_an_open_choice_of_axis_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(OptionError, match=r"--class-axis.*axes 1 and 2"):
        compressed(tagger(5, tail=False), tags(5))
    report = compressed(tagger(5, tail=False), tags(5), recipe={"class_axis": -1})
    assert report.before.heldout is not None
    assert report.before.heldout.value == 1.0


# -- several outputs -----------------------------------------------------------------------------------------


def two_heads() -> onnx.ModelProto:
    model = masks(
        helper.make_node("GlobalAveragePool", ["r"], ["g"]),
        helper.make_node("Conv", ["g", "w2"], ["other"]),
        outputs={"s": ["n", 4, 8, 8], "other": ["n", 9, 1, 1]},
    )
    model.graph.initializer.append(numpy_helper.from_array(weight(9, 16, 1, 1, fan=16), "w2"))
    return model


@pytest.mark.parametrize("loss", ["cross-entropy", "mse", "bce"])
def test_the_teacher_alone_is_followed_in_all_outputs(loss: str) -> None:
    report = compressed(two_heads(), IMAGES, recipe={"distillation": 1.0, "loss": loss})
    assert any("outputs s, other" in sentence for sentence in report.simplified)
    assert report.before.heldout is not None
    assert report.before.heldout.value == pytest.approx(0.0, abs=1e-9) or loss == "bce"


def test_labels_need_a_choice_among_several_outputs() -> None:
    labels = np.zeros((96, 8, 8), np.int64)
    with pytest.raises(NotTrainableError, match="--output NAME"):
        compressed(two_heads(), (IMAGES, labels))
    report = compressed(two_heads(), (IMAGES, labels), recipe={"output": "s"})
    assert report.before.heldout is not None
    assert any("The loss sees the output s alone" in sentence for sentence in report.warnings)
    with pytest.raises(OptionError, match=r"--output.*s, other, found 'third'"):
        compressed(two_heads(), (IMAGES, labels), recipe={"output": "third"})


@pytest.mark.parametrize("method", ["calibrated", "admm"])
def test_units_that_only_other_outputs_read_stay(method: str) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "stem"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        *(
            node
            for head in "ab"
            for node in (
                helper.make_node("MatMul", ["r", f"{head}1"], [f"{head}m"]),
                helper.make_node("Relu", [f"{head}m"], [f"{head}r"]),
                helper.make_node("MatMul", [f"{head}r", f"{head}2"], [head]),
            )
        ),
    ]
    weights = {f"{head}1": weight(24, 32, fan=24) for head in "ab"}
    weights |= {f"{head}2": weight(32, 4, fan=32) for head in "ab"} | {"stem": weight(8, 24, fan=8)}
    numbers = TensorProto.FLOAT
    model = model_of(nodes, {"x": (["n", 8], numbers)}, {"a": ["n", 4], "b": ["n", 4]}, weights)
    samples, labels = RANDOM.standard_normal((96, 8)).astype(np.float32), np.arange(96) % 4
    epochs = None if method == "calibrated" else 1
    report = compressed(model, (samples, labels), recipe={"output": "a", "method": method, "epochs": epochs})
    kept = {group.name: (group.units_after, group.units_before) for group in report.groups}
    assert kept["b1"] == (32, 32)
    assert kept["a1"][0] < 32


# -- labels --------------------------------------------------------------------------------------------------


def test_void_pixels_of_a_mask_are_left_out_and_said() -> None:
    mask = RANDOM.integers(0, 4, (96, 8, 8)).astype(np.uint8)
    mask[:, 0] = 255
    report = compressed(masks(outputs={"s": ["n", 4, 8, 8]}), (IMAGES, mask))
    assert any("12.5 % of the labels are 255" in sentence for sentence in report.simplified)


# -- inputs without a batch, samples behind the first axis ---------------------------------------------------

SCALED = helper.make_node("Mul", ["s", "k"], ["y"])
TEACHER_ALONE = {"distillation": 1.0, "loss": "mse"}


@pytest.mark.parametrize("shape", [[], [1], [1, 4, 1, 1]])
def test_an_input_without_a_batch_is_held_at_its_value_from_the_data(shape: list[int]) -> None:
    model = masks(SCALED, outputs={"y": ["n", 4, 8, 8]}, k=shape)
    size = int(np.prod(shape))
    for value in (np.full(shape, 2, np.float32), np.full((96, size), 2, np.float32)):
        report = compressed(model, {"x": IMAGES, "k": value}, recipe=TEACHER_ALONE)
        assert report.verification is not None
        assert report.verification.passed


def test_an_input_without_a_batch_is_held_at_the_value_that_is_given(tmp_path: Path) -> None:
    model = masks(SCALED, outputs={"y": ["n", 4, 8, 8]}, k=[])
    report = compressed(model, IMAGES, inputs={"k": 2.0}, recipe=TEACHER_ALONE, out=tmp_path / "out")
    assert report.latency
    shipped = onnx.load(tmp_path / "out" / "model.onnx")
    assert [value.name for value in shipped.graph.input] == ["x", "k"]
    with pytest.raises(DataError, match=r"--input k=VALUE"):
        compressed(model, IMAGES, recipe=TEACHER_ALONE)
    with pytest.raises(DataError, match=r"this input has no batch.*values that differ"):
        compressed(model, {"x": IMAGES, "k": np.arange(96, dtype=np.float32)}, recipe=TEACHER_ALONE)


def test_a_value_that_is_given_serves_every_sample_of_an_input_with_a_batch() -> None:
    model = masks(SCALED, outputs={"y": ["n", 4, 8, 8]}, k=["n", 1, 1, 1])
    report = compressed(model, IMAGES, inputs={"k": [3.0]}, recipe=TEACHER_ALONE)
    assert report.verification is not None
    assert report.verification.passed


def test_the_command_line_gives_values_to_every_verb(tmp_path: Path, command: Command) -> None:
    path, small, plan = (str(tmp_path / name) for name in ("model.onnx", "small.onnx", "plan.json"))
    onnx.save(masks(SCALED, outputs={"y": ["n", 4, 8, 8]}, k=[1]), path)
    np.savez(tmp_path / "data.npz", x=IMAGES)
    value = ("--input", "k=2")
    words = ("--distillation", "1", "--loss", "mse", "--params", "0.7", "--epochs", "1", "--retrain-epochs", "1")
    more = ("--batch-size", "16", "--workers", "1", "--round-to", "1", "--out", tmp_path / "out")
    for run in (
        ("compress", path, "--data", tmp_path / "data.npz", *words, *more, *value),
        ("plan", path, "--ratio", "0.5", "-o", plan),
        ("shrink", path, plan, "-o", small, *value),
        ("verify", path, small, plan, *value),
        ("bench", path, small, "--seconds", "0.1", *value),
    ):
        done = command(*run)
        assert done.status == 0, done.stderr
    wrong = command("verify", path, small, plan, "--input", "k=two")
    assert wrong.status == 2
    assert "--input: expected NAME=VALUE, found 'k=two'" in wrong.stderr


@pytest.mark.parametrize("loss", ["mse", "cross-entropy"])
def test_time_in_front_of_the_samples_trains(loss: str) -> None:
    model = masks(
        helper.make_node("ReduceMax", ["s"], ["m"], axes=[2], keepdims=0),
        helper.make_node("Transpose", ["m"], ["t"], perm=[2, 0, 1]),
        outputs={"t": [8, "n", 4]},
    )
    labels = RANDOM.integers(0, 4, (96, 8)) if loss == "cross-entropy" else RANDOM.standard_normal((96, 8, 4))
    report = compressed(model, (IMAGES, labels), recipe={"loss": loss})
    assert report.before.heldout is not None
    assert report.before.heldout.samples == 10


# -- regression in any unit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e4])
def test_an_exact_regression_is_pruned_in_any_unit(unit: float) -> None:
    x = RANDOM.standard_normal((256, 16)).astype(np.float32)
    first, last = weight(16, 48, fan=16), (unit / 4 * weight(48, 8, fan=48)).astype(np.float32)
    shift = np.full(8, unit / 2, np.float32)
    model = model_of(
        [
            helper.make_node("Gemm", ["x", "w0"], ["g"]),
            helper.make_node("Relu", ["g"], ["r"]),
            helper.make_node("Gemm", ["r", "w1", "b1"], ["y"]),
        ],
        {"x": (["n", 16], TensorProto.FLOAT)},
        {"y": ["n", 8]},
        {"w0": first, "w1": last, "b1": shift},
    )
    report = compressed(
        model, (x, np.maximum(x @ first, 0) @ last + shift), share=0.5, recipe={"loss": "mse", "epochs": 4}
    )
    assert report.before.heldout is not None
    assert report.before.heldout.metric == "mse"
    assert report.before.heldout.value < 1e-6 * unit**2
    assert all(row.heldout is not None and row.heldout >= 0 for row in report.history)


# -- the same data twice -------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False])
def test_test_data_that_are_the_training_data_are_said_to_be(tmp_path: Path, same: bool) -> None:
    x, labels = tags(12)
    path, other = tmp_path / "data.npz", tmp_path / "other.npz"
    for each in (path, other):
        np.savez(each, ids=x, labels=labels)
    report = compressed(tagger(12), path, test=tmp_path / "." / "data.npz" if same else other)
    assert any("The test data are the training data" in sentence for sentence in report.warnings) == same


def test_an_archive_of_both_parts_is_no_data_given_twice(tmp_path: Path) -> None:
    x, labels = tags(12)
    np.savez(tmp_path / "both.npz", x_train=x, y_train=labels, x_test=x[:50], y_test=labels[:50])
    report = compressed(tagger(12), tmp_path / "both.npz", test=tmp_path / "both.npz")
    assert report.before.test is not None
    assert report.before.test.samples == 50
    assert not any("The test data are the training data" in sentence for sentence in report.warnings)


def test_weights_that_grow_since_they_are_written_out_are_left_whole_or_else_a_warning(tmp_path: Path) -> None:
    model = parse_sample(
        """<ir_version: 8, opset_import: ["" : 17]>
        filled (float[N, 6] x) => (float[N, 2] y)
        <float[6, 100] W1, float[100, 2] W2, int64[2] size = {100, 100}>
        { a = MatMul (x, W1)
          F = ConstantOfShape <value = float[1] {0.01}> (size)
          b = MatMul (a, F)
          y = MatMul (b, W2) }"""
    )
    data = RANDOM.standard_normal((64, 6)).astype(np.float32)
    recipe = {**SHORT, "loss": "mse", "distillation": 1.0}
    options: dict[str, Any] = {"data": data, "simplified": False, "bench": False}
    with pytest.raises(NothingToPruneError, match="the cuts of F, W1 have to write out more than they save"):
        oa.compress(model, budget={"params": 0.9}, recipe=recipe, **options)
    report = oa.compress(model, targets={"W1": 0.9, "F": 0.9}, recipe={**recipe, "mode": "joint"}, **options)
    assert [line for line in report.warnings if "bytes more than the original's" in line]


def test_an_output_that_has_no_samples_is_one_sentence() -> None:
    model = parse_sample(
        """<ir_version: 8, opset_import: ["" : 17]>
        averaged (float[N, T, 6] x) => (float[T, 4] y) <float[6, 16] W1, float[16, 4] W2>
        { a = MatMul (x, W1)  b = MatMul (a, W2)  y = ReduceMean <axes = [0], keepdims = 0> (b) }"""
    )
    data = RANDOM.standard_normal((64, 10, 6)).astype(np.float32), RANDOM.integers(0, 4, 64)
    with pytest.raises(NotTrainableError, match=r"output y: expected an answer for each of \d+ samples.*, found shape"):
        oa.compress(model, data=data, budget={"params": 0.5}, recipe=SHORT)
