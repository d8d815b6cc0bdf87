"""Files as the exporters of the README really write them, compressed from data to proof."""

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from benchmarks import recipes
from onnxadmm.bench.inputs import random_inputs
from onnxadmm.graph.model import load
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.losses import Task
from tests.shared import needs_training

pytestmark = [needs_training, pytest.mark.slow, pytest.mark.usefixtures("quick_latency")]

ROOT = Path(__file__).resolve().parents[2]
ZOO = ROOT / "tests" / "zoo"
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
        bench=False,
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


INSTALLED = [recipe for recipe in recipes.RECIPES if recipe.module and importlib.util.find_spec(recipe.module)]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", INSTALLED, ids=lambda recipe: recipe.name)
def test_the_readmes_recipe_is_exported_compressed_and_run(recipe: recipes.Recipe, tmp_path: Path) -> None:
    """The blocks of code as they stand; `python -m benchmarks.recipes` does so with exporters that are not here."""
    outcome = recipes.cook(
        recipe,
        tmp_path,
        bring=lambda folder: recipes.export(recipe, sys.executable, folder),
        plain=sys.executable,
        more=["--params", "0.5", "--epochs", "2", "--retrain-epochs", "1", "--no-bench"],
    )
    assert outcome.parameters[1] <= 0.5 * outcome.parameters[0]
    assert outcome.snr_db >= 80
    assert outcome.plain == outcome.test[1] > 0.8


def test_every_recipe_of_the_readme_is_in_the_script() -> None:
    (section,) = re.findall(r"## Bringing a model\n(.*?)\n## ", (ROOT / "README.md").read_text(), re.DOTALL)
    titles = re.findall(r"^\*\*(.*?)\*\*", section, re.MULTILINE)
    assert [recipe.title for recipe in recipes.RECIPES if recipe.title] == titles
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert {recipe.group for recipe in recipes.RECIPES if recipe.group} <= groups.keys()
    assert "sklearn" in [recipe.name for recipe in INSTALLED], "it is in [dev]"


def test_a_network_from_nowhere_learns_lines_of_text(tmp_path: Path) -> None:
    """What the script does with a downloaded file, with one of the zoo: both classes, in the middle of the range."""
    images, labels = recipes.lines_of_text(40, seed=0)
    assert (images.shape, images.dtype, set(labels.tolist())) == ((40, 3, 48, 192), np.float32, {0, 1})
    upright, turned = images[labels == 0].mean(0), images[labels == 1].mean(0)
    assert -1.5 < images.min() < 0 < images.max() < 1.5
    assert np.abs(upright - turned).max() > 0.1
