"""Networks as frameworks really export them train: the loss falls, and gradients are those of the exported file."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxadmm.runtime.session import failures
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.metrics import sample_losses
from onnxadmm.train.preflight.gradient_check import compare
from onnxadmm.train.trainer import OrtTrainer
from tests.shared import need_shared
from tests.train.graphs import Array

pytestmark = pytest.mark.usefixtures("engine")

ZOO = Path(__file__).parent.parent / "zoo"
MSE = Loss(Task.MSE)
BATCH, STEPS = 4, 20

#: Networks, with the learning rate they are given.
NETWORKS = {
    "torch_dynamo_lenet": 3e-3,
    "torch_script_resnet_basic": 3e-3,
    "torch_dynamo_vgg_bn": 3e-3,
    "torch_script_mobilenet_v2": 3e-3,
    "torch_dynamo_mobilenet_v3": 3e-3,
    "torch_script_efficientnet": 3e-3,
    "torch_dynamo_unet_transposed": 3e-3,
    "torch_script_unet_resize": 3e-3,
    "torch_dynamo_super_resolution": 3e-3,
    "torch_script_convnext": 3e-3,
    "torch_dynamo_vit": 3e-3,
    "torch_dynamo_vit_opset23": 3e-3,
    "torch_script_bert": 3e-3,
    "torch_dynamo_bert_opset23": 3e-3,
    "torch_dynamo_llama_opset23": 3e-3,
    "torch_dynamo_masked_attention": 3e-2,
    "torch_script_alexnet": 3e-3,
    "torch_dynamo_vgg": 3e-3,
    "torch_dynamo_swin_fixed": 3e-3,
    "torch_script_shufflenet_v2_fixed": 3e-3,
    "torch_script_lstm": 1e-2,
    "torch_dynamo_gru_both_state": 1e-2,
    "torch_script_group_norm": 3e-3,
    "torch_dynamo_style_transfer": 3e-3,
    "torch_dynamo_einsum_attention": 3e-3,
    "torch_script_yolo": 2e-2,
    "keras_same_padding": 3e-3,
    "keras_lstm": 1e-2,
    "keras_gru": 3e-3,
    "keras_transformer": 3e-3,
    "keras_unet": 3e-3,
    "jax_cnn": 3e-3,
    "jax_resnet_opset20": 3e-3,
    "paddle_unet": 3e-3,
    "paddle_lstm": 1e-2,
    "sklearn_mlp_classifier_tanh": 1e-2,
    "ort_optimised_resnet": 3e-3,
    "ort_optimised_vit": 3e-3,
    "ort_optimised_mobilenet_v3": 3e-3,
    "handmade_opset7": 3e-3,
}


def sample(name: str, shape: tuple[int, ...], dtype: np.dtype[np.generic], seed: int) -> Array:
    generator = np.random.default_rng([seed, len(name)])
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    # Every vocabulary has two words; the masks say what is seen.
    return np.ones(shape, dtype) if dtype.kind == "b" else generator.integers(0, 2, shape).astype(dtype)


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: tuple(d.dim_value or 8 for d in value.type.tensor_type.shape.dim[1:])
        for value in model.graph.input
        if value.name not in weights
    }


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_exported_network_trains_with_its_own_gradients(name: str) -> None:
    model = onnx.load(ZOO / f"{name}.onnx")
    # Converters of scikit-learn write a label, then its probabilities.
    output = model.graph.output[-1 if name.startswith("sklearn") else 0].name
    train_a_little(model, output=output, learning_rate=NETWORKS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20_cifar10", "resnet20_cifar10_bn"])
def test_resnet_with_and_without_its_batch_normalisations_trains_with_its_own_gradients(name: str) -> None:
    model = onnx.load(need_shared(f"models/{name}.onnx"))
    train_a_little(model, output=model.graph.output[0].name, learning_rate=3e-3)


def train_a_little(model: onnx.ModelProto, *, output: str, learning_rate: float) -> None:
    """Twenty steps: values and gradients are the exported file's, and the loss falls."""
    with OrtTrainer(model, loss=MSE, batch_size=BATCH, output=output, input_shapes=shapes_of(model)) as trainer:
        inputs = {s.name: sample(s.name, s.shape, s.dtype, 1) for s in trainer.artifacts.inputs}
        weights = list(trainer.weights)
        plain = Predictor(model, task=Task.MSE, output=output, replaceable=weights)
        fed = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
        given = {key: array for key, array in inputs.items() if key in fed}
        try:
            start = plain.logits(given)
        except failures() as error:
            pytest.skip(f"this onnxruntime does not run the exported file: {str(error)[-80:]}")
        # Every channel is to move by its own amount, which twenty steps suffice for.
        shift = np.random.default_rng(5).standard_normal((1, start.shape[1], *[1] * (start.ndim - 2)))
        target = (start + max(float(start.std()), 0.3) * shift).astype(np.float32)
        first = trainer.backward(Batch(inputs, target, None, BATCH))
        scale = max(1.0, float(np.abs(start).max()))
        np.testing.assert_allclose(trainer.logits, start, atol=2e-4 * scale)
        check = compare(
            lambda moved: float(
                sample_losses(plain.logits(given, constants=moved).astype(np.float64), target, None, MSE).mean()
            ),
            trainer.snapshot(),
            {key: array.copy() for key, array in trainer.gradients.items()},
            names=weights,
            weight="all",
            operator="all",
            seed=0,
        )
        assert check.verdict == "right", check
        losses = [first]
        for _ in range(STEPS):
            trainer.update(learning_rate)
            losses.append(trainer.backward(Batch(inputs, target, None, BATCH)))
        assert min(losses[-3:]) < 0.9 * losses[0], losses
