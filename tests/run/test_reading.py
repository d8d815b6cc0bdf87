"""What outputs are compared by where nothing trains and no loss is named."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

import onnxadmm as oa
from onnxadmm.errors import DataError
from onnxadmm.graph.model import from_proto
from onnxadmm.progress import SILENT
from onnxadmm.run.journal import Journal
from onnxadmm.run.reading import read_training
from onnxadmm.run.trainings import Training
from onnxadmm.train.losses import Task
from tests.samples_text import parse_sample

#: Ends of a network of rows [N, 6], and what its outputs are then taken for.
ENDS = {
    "rows": ("float[N,5] y", "y = MatMul (x, w5)", Task.CROSS_ENTROPY),
    "one column": ("float[N,1] y", "y = MatMul (x, w1)", Task.MSE),
    "softmax": ("float[N,5] y", "s = MatMul (x, w5)\ny = Softmax <axis: int = 1> (s)", Task.CROSS_ENTROPY),
    "softmax of one": ("float[N,1] y", "s = MatMul (x, w1)\ny = Softmax <axis: int = 1> (s)", Task.MSE),
    "sigmoid": ("float[N,5] y", "s = MatMul (x, w5)\ny = Sigmoid (s)", Task.MSE),
    "argmax": ("int64[N] y", "s = MatMul (x, w5)\ny = ArgMax <axis: int = 1, keepdims: int = 0> (s)",
               Task.CROSS_ENTROPY),
    "positions": ("float[N,5,1] y", "s = MatMul (x, w5)\ny = Unsqueeze (s, two)", Task.MSE),
    "two outputs": ("float[N,5] y, float[N,5] z", "y = MatMul (x, w5)\nz = Relu (y)", Task.MSE),
    "laid in a column": ("float[M,1] y", "s = MatMul (x, w5)\ny = Reshape (s, column)", Task.MSE),
}  # fmt: skip


def network(outputs: str, nodes: str) -> onnx.ModelProto:
    model = parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17]> net (float[N,6] x) => ({outputs})
        <float[6,5] w5, float[6,1] w1, int64[1] two = {{2}}, int64[2] column = {{-1, 1}}> {{ {nodes} }}"""
    )
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name not in used]:
        model.graph.initializer.remove(tensor)
    return model


def read(
    model: onnx.ModelProto,
    *,
    recipe: oa.Recipe | None = None,
    labels: NDArray[np.int64] | None = None,
    cache: Path | None = None,
) -> tuple[Training, Journal]:
    journal = Journal(SILENT)
    samples = np.random.default_rng(0).standard_normal((24, 6)).astype(np.float32)
    training = read_training(
        from_proto(model),
        samples if labels is None else (samples, labels),
        None,
        recipe=recipe if recipe is not None else oa.Recipe(distillation=1.0),
        preprocessing=oa.Preprocessing(cache=cache),
        inputs={},
        seed=0,
        journal=journal,
        trains=False,
    )
    return training, journal


@pytest.mark.parametrize("end", ENDS)
def test_outputs_are_compared_as_what_they_look_like(end: str) -> None:
    outputs, nodes, task = ENDS[end]
    training, journal = read(network(outputs, nodes))
    assert training.loss.task is task
    words = "scores of classes" if task is Task.CROSS_ENTROPY else "numbers"
    assert any(f"taken for {words}" in sentence and "--loss" in sentence for sentence in journal.notes)


def test_a_loss_that_is_named_is_taken() -> None:
    outputs, nodes, _ = ENDS["rows"]
    training, journal = read(network(outputs, nodes), recipe=oa.Recipe(loss="mse", distillation=1.0))
    assert training.loss.task is Task.MSE
    assert not any("taken for" in sentence for sentence in journal.notes)


def test_labels_of_outputs_that_look_like_numbers_are_left_alone() -> None:
    labels = np.arange(24) % 5
    training, journal = read(network(*ENDS["positions"][:2]), labels=labels)
    assert not training.held_out.has_labels
    assert "Labels were left alone: --loss says what they mean." in journal.notes
    training, _ = read(network(*ENDS["rows"][:2]), labels=labels)
    assert training.held_out.has_labels


def test_the_teacher_of_a_later_run_knows_what_the_cache_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answered = []
    for ends in ("rows", "rows", "softmax", "positions"):
        outputs, nodes, _ = ENDS[ends]
        training, _ = read(network(outputs, nodes), recipe=oa.Recipe(distillation=1.0, batch_size=8), cache=tmp_path)
        assert training.teacher is not None
        asked: list[int] = []
        honest = training.teacher._predictor.logits
        monkeypatch.setattr(
            training.teacher._predictor,
            "logits",
            lambda inputs, asked=asked, honest=honest: asked.append(1) or honest(inputs),
        )
        labelled = [batch.teacher for batch in training.made(0, 0)]
        answered.append((len(asked), labelled))
    assert [count for count, _ in answered] == [2, 0, 2, 2]  # 22 of 24 samples train, in whole batches
    for first, second in zip(answered[0][1], answered[1][1], strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("loss", "shape"), [("cross-entropy", (3, 4)), ("mse", (5, 3, 4)), ("bce", (5, 3, 4))])
def test_labels_of_another_size_are_refused_where_only_the_model_can_tell(loss: str, shape: tuple[int, ...]) -> None:
    model = from_proto(
        parse_sample(
            """<ir_version: 8, opset_import: ["" : 17]> net (float[N,2,H,W] x) => (float[N,5,H,W] y)
            <float[5,2,1,1] w> { y = Conv (x, w) }"""
        )
    )
    samples = np.random.default_rng(0).standard_normal((24, 2, 3, 4)).astype(np.float32)

    def read_with(labels: tuple[int, ...], tested: tuple[int, ...]) -> Training:
        data, test = ((samples, np.zeros((24, *size), np.int64)) for size in (labels, tested))
        return read_training(
            model,
            data,
            test,
            recipe=oa.Recipe(loss=loss),  # type: ignore[arg-type]  # one of its names
            preprocessing=oa.Preprocessing(),
            inputs={},
            seed=0,
            journal=Journal(SILENT),
        )

    turned = (*shape[:-2], shape[-1], shape[-2])
    assert read_with(shape, shape).held_out.has_labels
    with pytest.raises(DataError, match=r"the labels: expected shape .*3, 4\] for each sample.* found .*4, 3\]"):
        read_with(turned, shape)
    with pytest.raises(DataError, match="the labels of the test data: expected shape"):
        read_with(shape, turned)


def test_classes_of_the_test_data_are_those_of_the_training_data_by_name() -> None:
    model = from_proto(
        parse_sample(
            """<ir_version: 8, opset_import: ["" : 17]> net (float[N,3,4,4] x) => (float[N,3] y)
            <float[3,3,4,4] w, int64[2] rows = {0, 3}> { c = Conv (x, w) y = Reshape (c, rows) }"""
        )
    )
    training = [(Image.new("RGB", (4, 4), (number, 0, 0)), "abc"[number % 3]) for number in range(24)]

    def read_with(*tested: str) -> Training:
        test = [(Image.new("RGB", (4, 4), (0, number, 0)), name) for number, name in enumerate(tested)]
        return read_training(
            model, training, test, recipe=oa.Recipe(), preprocessing=oa.Preprocessing(), inputs={}, seed=0,
            journal=Journal(SILENT),
        )  # fmt: skip

    found = read_with("c", "b", "c").test
    assert found is not None
    assert found.labels is not None
    assert found.labels.tolist() == [2, 1, 2]
    with pytest.raises(DataError, match=r"the classes of the training data \(a, b, c\), found cat"):
        read_with("a", "cat")
