import numpy as np
import onnx
import pytest
from onnx import helper

from onnxadmm.errors import DataError, OptionError
from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.model import from_proto, to_proto
from onnxadmm.runtime.session import SessionOptions, open_inference
from onnxadmm.train import engine as engines
from onnxadmm.train.data.batches import ArrayDataset, Batch, hold_out
from onnxadmm.train.data.fit import load_data
from onnxadmm.train.engine import Precision, multiplies_in_bfloat16
from onnxadmm.train.evaluate import Teacher, evaluate
from onnxadmm.train.losses import Loss
from onnxadmm.train.metrics import Metrics
from onnxadmm.train.prepare.signature import signature_of
from onnxadmm.train.trainer import OrtTrainer
from tests.shared import need_shared
from tests.train.graphs import DoubleGraph, mlp, model_of, random

pytestmark = pytest.mark.usefixtures("engine")


def batch(count: int = 8, seed: int = 0) -> Batch:
    generator = np.random.default_rng(seed)
    return Batch({"x": random([count, 6], seed=seed)}, generator.integers(0, 4, count), None, count)


def measured(
    model: onnx.ModelProto, trainer: OrtTrainer, data: ArrayDataset, loss: Loss, teacher: Teacher | None = None
) -> Metrics:
    """Loss and accuracy of a model with the weights a trainer has now."""
    return evaluate(with_constants(from_proto(model), trainer.weights), data, loss=loss, teacher=teacher)


def test_weights_and_gradients_are_contiguous_float32_views_with_the_same_keys() -> None:
    with OrtTrainer(mlp(), loss=Loss(), batch_size=8) as trainer:
        assert list(trainer.weights) == list(trainer.gradients) == ["b1", "b2", "w1", "w2"]
        for name, array in trainer.weights.items():
            for view in (array, trainer.gradients[name]):
                assert view.dtype == np.float32
                assert view.flags.c_contiguous
                assert view.flags.writeable
                assert view.ctypes.data % 64 == 0
            assert array.shape == trainer.gradients[name].shape


def test_what_is_written_to_a_weight_counts_in_the_next_step() -> None:
    with OrtTrainer(mlp(), loss=Loss(), batch_size=8) as trainer:
        data = batch()
        trainer.backward(data)
        trainer.weights["w2"][...] = 0.0
        trainer.weights["b2"][...] = [1.0, 2.0, 3.0, 4.0]
        trainer.backward(data)
        np.testing.assert_allclose(trainer.logits, np.tile([1.0, 2.0, 3.0, 4.0], (8, 1)), rtol=1e-6)


def test_views_stay_the_same_memory_over_many_steps() -> None:
    with OrtTrainer(mlp(), loss=Loss(), batch_size=8) as trainer:
        places = {name: array.ctypes.data for name, array in trainer.weights.items()}
        held = trainer.weights["w1"]
        before = held.copy()
        for seed in range(5):
            trainer.backward(batch(seed=seed))
            trainer.update(1e-2)
        assert {name: array.ctypes.data for name, array in trainer.weights.items()} == places
        assert not np.array_equal(held, before)


def test_gradients_are_overwritten_not_added_up() -> None:
    with OrtTrainer(mlp(), loss=Loss(), batch_size=8) as trainer:
        trainer.backward(batch())
        once = {name: gradient.copy() for name, gradient in trainer.gradients.items()}
        trainer.backward(batch())
        for name, gradient in once.items():
            np.testing.assert_array_equal(gradient, trainer.gradients[name])


def test_what_is_written_to_a_gradient_is_what_update_uses() -> None:
    with OrtTrainer(mlp(), loss=Loss(), batch_size=8) as trainer:
        before = trainer.snapshot()
        trainer.backward(batch())
        for gradient in trainer.gradients.values():
            gradient[...] = 0.0
        trainer.gradients["b2"][0] = 5.0
        trainer.update(1e-3)
        assert trainer.weights["b2"][0] == pytest.approx(before["b2"][0] - 1e-3, rel=1e-4)
        np.testing.assert_array_equal(trainer.weights["b2"][1:], before["b2"][1:])
        np.testing.assert_array_equal(trainer.weights["w1"], before["w1"])


def test_equal_seeds_give_equal_weights() -> None:
    results = []
    for _ in range(2):
        with OrtTrainer(mlp(), loss=Loss(), batch_size=8) as trainer:
            for seed in range(20):
                trainer.backward(batch(seed=seed))
                trainer.update(1e-2)
            results.append(trainer.snapshot())
    for name, array in results[0].items():
        np.testing.assert_array_equal(array, results[1][name])


def test_batch_of_another_size_or_dtype_is_refused_with_numbers() -> None:
    with OrtTrainer(mlp(), loss=Loss(), batch_size=8) as trainer:
        with pytest.raises(DataError, match=r"\[8, 6\].*\[7, 6\]"):
            trainer.backward(batch(7))
        good = batch()
        with pytest.raises(DataError, match=r"float32.*float64"):
            trainer.backward(Batch({"x": good.inputs["x"].astype(np.float64)}, good.labels, None, 8))
        with pytest.raises(DataError, match=r"labels.*nothing"):
            trainer.backward(Batch(good.inputs, None, None, 8))


def test_array_that_is_not_contiguous_gives_the_same_loss() -> None:
    with OrtTrainer(mlp(), loss=Loss(), batch_size=8) as trainer:
        good = batch()
        wide = np.zeros((8, 12), np.float32)
        wide[:, ::2] = good.inputs["x"]
        assert trainer.backward(good) == trainer.backward(Batch({"x": wide[:, ::2]}, good.labels, None, 8))


def test_trained_weights_return_to_the_users_model_and_nothing_else_changes() -> None:
    model = from_proto(mlp())
    before = to_proto(model)
    with OrtTrainer(model, loss=Loss(), batch_size=8) as trainer:
        for seed in range(5):
            trainer.backward(batch(seed=seed))
            trainer.update(1e-2)
        result = to_proto(with_constants(model, trainer.weights))
        trainer.backward(batch())
        logits = trainer.logits.copy()
    assert to_proto(model) == before
    assert result.graph.node == before.graph.node
    assert result.opset_import == before.opset_import
    np.testing.assert_allclose(DoubleGraph(result).run({"x": batch().inputs["x"]}), logits, atol=1e-5)


def test_weights_outlive_the_engine() -> None:
    trainer = OrtTrainer(mlp(), loss=Loss(), batch_size=8)
    trainer.backward(batch())
    view = trainer.weights["w1"]
    copy = view.copy()
    trainer.close()
    del trainer
    np.testing.assert_array_equal(view, copy)


def test_nothing_is_written_to_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with OrtTrainer(mlp(), loss=Loss(), batch_size=8) as trainer:
        trainer.backward(batch())
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


@pytest.mark.slow
def test_lenet_learns_mnist_again_after_its_classifier_was_erased() -> None:
    model = onnx.load(need_shared("models/lenet5_mnist.onnx"))
    images = need_shared("data/mnist-t10k-images-idx3-ubyte.gz")
    labels = need_shared("data/mnist-t10k-labels-idx1-ubyte.gz")
    data = load_data(f"{images},{labels}", signature=signature_of(model), loss=Loss(), mean=[0.1307], std=[0.3081])
    rest, held = hold_out(data, seed=1)
    assert evaluate(model, held, loss=Loss()).accuracy == pytest.approx(0.9942, abs=0.005)
    with OrtTrainer(model, loss=Loss(), batch_size=64) as trainer:
        trainer.weights["f2.weight"][...] = 0.0
        trainer.weights["f2.bias"][...] = 0.0
        losses = []
        for step in rest.batches(64, seed=1, shuffle=True, drop_last=True):
            losses.append(trainer.backward(step))
            trainer.update(1e-3)
            if len(losses) == 40:
                break
        assert losses[0] == pytest.approx(np.log(10), rel=1e-3)
        assert measured(model, trainer, held, Loss()).loss < 0.5


@pytest.mark.slow
def test_student_learns_from_its_teacher_without_any_label() -> None:
    model = onnx.load(need_shared("models/lenet5_mnist.onnx"))
    images = need_shared("data/mnist-t10k-images-idx3-ubyte.gz")
    loss = Loss(distillation=1.0, temperature=2.0)
    data = load_data(str(images), signature=signature_of(model), loss=loss, mean=[0.1307], std=[0.3081])
    assert not data.has_labels
    rest, held = hold_out(data, at_most=300)
    teacher = Teacher(model, loss=loss)
    with OrtTrainer(model, loss=loss, batch_size=64) as trainer:
        trainer.weights["f2.weight"][...] *= 0.1
        before = measured(model, trainer, held, loss, teacher=teacher)
        for number, step in enumerate(rest.batches(64, shuffle=True, drop_last=True)):
            trainer.backward(teacher.label(step))
            trainer.update(1e-3)
            if number == 20:
                break
        after = measured(model, trainer, held, loss, teacher=teacher)
    assert after.against == "teacher"
    assert after.loss < 0.5 * before.loss


def matmuls() -> onnx.ModelProto:
    """Two products of matrices large enough for kernels in bfloat16, which Gemm has none of."""
    return model_of(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            helper.make_node("Tanh", ["h"], ["a"]),
            helper.make_node("MatMul", ["a", "w2"], ["logits"]),
        ],
        inputs={"x": [64, 256]},
        outputs=["logits"],
        weights={"w1": random([256, 256], seed=1, scale=0.1), "w2": random([256, 128], seed=2, scale=0.1)},
    )


def test_bfloat16_is_refused_where_products_are_float32_and_close_where_they_are_not() -> None:
    data = Batch({"x": random([64, 256], seed=3)}, np.random.default_rng(0).integers(0, 128, 64), None, 64)
    if not multiplies_in_bfloat16():
        with pytest.raises(OptionError, match=r"--precision.*bfloat16.*onnxruntime.*float32"):
            OrtTrainer(matmuls(), loss=Loss(), batch_size=64, precision="bf16")
        return
    found: dict[Precision, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
    ways: tuple[Precision, ...] = ("float32", "bf16")
    for precision in ways:
        with OrtTrainer(matmuls(), loss=Loss(), batch_size=64, precision=precision) as trainer:
            trainer.backward(data)
            found[precision] = trainer.gradients["w1"].copy()
    off = np.linalg.norm(found["bf16"] - found["float32"]) / np.linalg.norm(found["float32"])
    assert 0 < off < 0.02


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_every_session_of_a_step_has_the_precision(precision: Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bool] = []

    def watched(model: onnx.ModelProto | bytes, options: SessionOptions) -> object:
        opened.append(options.bfloat16)
        return open_inference(model, options)

    monkeypatch.setattr(engines, "multiplies_in_bfloat16", lambda: True)
    monkeypatch.setattr(engines, "open_inference", watched)
    with OrtTrainer(mlp(), loss=Loss(), batch_size=8, accumulate=3, precision=precision):
        # The last ones are those of its parts, of three samples and of two.
        assert opened[-2:] == [precision == "bf16"] * 2
