"""Files as the exporters of the README really write them, compressed from data to proof."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.bench.inputs import random_inputs
from onnxadmm.graph.model import load
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.losses import Task
from tests.shared import needs_training

pytestmark = [needs_training, pytest.mark.slow, pytest.mark.usefixtures("quick_latency")]

ZOO = Path(__file__).parent.parent / "zoo"
SAMPLES = 64

#: Classifiers, whose labels are what they say themselves, and the width of what stands before their tail.
CLASSIFIERS = {
    "sklearn_mlp_classifier": 4,
    "sklearn_mlp_classifier_binary": 2,
    "sklearn_mlp_classifier_tanh": 4,
    "keras_lenet": None,
    "keras_resnet": None,
    "keras_lstm": None,
    "keras_transformer": None,
    "torch_dynamo_lenet": None,
    "torch_script_resnet_basic": None,
    "torch_dynamo_text_cnn": None,
    "torch_script_lstm": None,
}
#: What has no classes follows the original alone.
OTHERS = (
    "keras_two_inputs",
    "torch_dynamo_bert",
    "sklearn_mlp_regressor",
    "sklearn_mlp_regressor_pca",
    "keras_autoencoder",
    "keras_time_series",
    "keras_unet",
    "torch_dynamo_yolo",
    "torch_dynamo_ssd",
    "torch_script_actor_critic",
    "torch_dynamo_crnn",
)


def made(name: str) -> tuple[Path, dict[str, NDArray[Any]]]:
    path = ZOO / f"{name}.onnx"
    model = load(path)
    batches = [random_inputs(model, batch=SAMPLES, seed=seed) for seed in range(1)]
    return path, batches[0]


def compressed(path: Path, data: object, **recipe: Any) -> oa.Report:
    report = oa.compress(
        path,
        data=data,
        budget=oa.Budget(params=0.8),
        recipe=oa.Recipe(**{"epochs": 1, "retrain_epochs": 1, "batch_size": 8, "workers": 1, **recipe}),
        limits=oa.Limits(round_to=1),
    )
    assert report.verification is not None
    assert report.verification.passed
    assert report.before.heldout is not None
    return report


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_an_exported_classifier_learns_its_own_answers(name: str) -> None:
    path, inputs = made(name)
    logits = Predictor(onnx.load(path), task=Task.CROSS_ENTROPY).logits(inputs)
    report = compressed(path, {**inputs, "labels": logits.argmax(axis=1)})
    assert report.before.heldout is not None
    assert (report.before.heldout.metric, report.before.heldout.value) == ("accuracy", 1.0)
    assert logits.shape[1] == CLASSIFIERS[name] or CLASSIFIERS[name] is None


@pytest.mark.parametrize("name", OTHERS)
def test_an_exported_network_without_classes_follows_the_original(name: str) -> None:
    path, inputs = made(name)
    report = compressed(path, inputs, loss="mse", distillation=1.0)
    assert report.before.heldout is not None
    assert report.before.heldout.metric == "mse against the original"
    assert report.before.heldout.value == pytest.approx(0.0, abs=1e-6)


def test_the_recipe_for_scikit_learn_is_exported_and_trained(tmp_path: Path) -> None:
    from skl2onnx import to_onnx  # type: ignore[import-not-found]
    from sklearn.neural_network import MLPClassifier  # type: ignore[import-not-found]

    random = np.random.default_rng(0)
    samples = random.standard_normal((400, 10))
    labels = (samples[:, 0] > 0).astype(int) + (samples[:, 1] > 0)
    classifier = MLPClassifier((32, 32), max_iter=1000, random_state=0).fit(samples, labels)
    onnx_model = to_onnx(classifier, samples[:1].astype("float32"), options={"zipmap": False})
    (tmp_path / "model.onnx").write_bytes(onnx_model.SerializeToString())
    report = compressed(tmp_path / "model.onnx", (samples.astype(np.float32), labels))
    assert report.before.heldout is not None
    assert report.before.heldout.value > 0.8
