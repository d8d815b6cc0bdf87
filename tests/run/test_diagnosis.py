"""What is wrong with the data is found and named: the right scale, mean and std, orders of channels and classes."""

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.graph.model import load
from onnxadmm.progress import SILENT
from onnxadmm.run import diagnosis
from onnxadmm.run.diagnosis import Remedy, find_remedy
from onnxadmm.run.journal import Journal
from onnxadmm.run.reading import read_training
from onnxadmm.train.evaluate import Predictor
from tests.shared import need_shared
from tests.train.graphs import mlp, random

Pictures = tuple[NDArray[np.uint8], NDArray[np.int64]]
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
CIFAR = "--mean 0.4914,0.4822,0.4465 --std 0.247,0.2435,0.2616"


def remedy(model: Any, data: object, *, thorough: bool = True, **preprocessing: Any) -> Remedy | None:
    loaded = load(model)
    training = read_training(
        loaded,
        data,
        None,
        recipe=oa.Recipe(held_out=0.6),
        preprocessing=oa.Preprocessing(**preprocessing),
        inputs={},
        seed=0,
        journal=Journal(SILENT),
    )
    predictor = Predictor(training.shown(loaded), task=training.loss.task)
    return find_remedy(training, predictor, thorough=thorough)


def named(model: Any, data: object, **given: Any) -> tuple[str, ...]:
    found = remedy(model, data, **given)
    assert found is not None
    return found.changes


@pytest.fixture(scope="module")
def stored_digits(digits: DemoFiles) -> Pictures:
    """Bytes ``[1297, 8, 8]`` from 0 to 16, which the network reads as 0 to 1."""
    with np.load(digits.training) as archive:
        return archive["images"], archive["labels"].astype(np.int64)


def test_right_data_need_no_remedy(digits: DemoFiles, stored_digits: Pictures) -> None:
    assert remedy(digits.model, stored_digits, scale=1 / 16) is None
    assert remedy(digits.model, stored_digits, thorough=False, scale=1 / 16) is None


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize(
    ("given", "left_out"),
    [
        ({}, ""),
        ({"scale": 1 / 300}, ""),
        ({"scale": 1 / 16, "mean": [0.5], "std": [0.5]}, " and without --mean and --std"),
        ({"scale": 1 / 16, "mean": [0.6]}, " and without --mean"),
    ],
)
def test_the_right_scale_of_digits_is_named(
    digits: DemoFiles, stored_digits: Pictures, given: Any, left_out: str, thorough: bool
) -> None:
    changes = named(digits.model, stored_digits, thorough=thorough, **given)
    assert changes == (f"with --scale 0.0625{left_out} (values from 0 to 1)",)


def test_digits_that_are_dark_where_they_should_be_bright_are_noticed(
    digits: DemoFiles, stored_digits: Pictures
) -> None:
    images, labels = stored_digits
    (change,) = named(digits.model, (16 - images, labels), scale=1 / 16)
    assert change == "with --scale -0.0625 --mean -1 (values from 0 to 1, dark for bright)"
    # What is named can be given, and helps.
    assert remedy(digits.model, (16 - images, labels), scale=-0.0625, mean=[-1.0]) is None


def test_rows_read_for_columns_are_noticed(digits: DemoFiles, stored_digits: Pictures) -> None:
    images, labels = stored_digits
    data = (images.swapaxes(1, 2).copy(), labels)
    assert named(digits.model, data, scale=1 / 16) == ("with rows and columns of the pictures exchanged",)
    both = named(digits.model, data)
    assert both == ("with --scale 0.0625 (values from 0 to 1)", "with rows and columns of the pictures exchanged")


def test_classes_in_another_order_are_noticed_whatever_else_is_wrong(
    digits: DemoFiles, stored_digits: Pictures
) -> None:
    images, labels = stored_digits
    order = np.array([1, 0, 2, 3, 4, 5, 6, 7, 9, 8])
    swapped = "with another order of the classes (it sees 0 as 1, 1 as 0, 8 as 9, 9 as 8)"
    assert named(digits.model, (images, order[labels]), scale=1 / 16) == (swapped,)
    assert named(digits.model, (images, order[labels])) == ("with --scale 0.0625 (values from 0 to 1)", swapped)


def test_labels_that_are_one_too_many_are_noticed(digits: DemoFiles, stored_digits: Pictures) -> None:
    images, labels = stored_digits
    few = labels < 9
    assert named(digits.model, (images[few], labels[few] + 1), scale=1 / 16) == ("with labels that are one less",)
    few = labels > 0
    assert named(digits.model, (images[few], labels[few] - 1), scale=1 / 16) == ("with labels that are one more",)


def test_nothing_is_named_that_chance_would_explain(digits: DemoFiles, stored_digits: Pictures) -> None:
    images, labels = stored_digits
    assert remedy(digits.model, (images, np.random.default_rng(1).permutation(labels)), scale=1 / 16) is None
    # A sample for each class and a bit fits many orders of the classes.
    few = np.random.default_rng(1).permutation(len(labels))[:24]
    assert remedy(digits.model, (images[few], np.random.default_rng(2).permutation(labels[few])), scale=1 / 16) is None


def test_a_network_of_two_classes_that_are_exchanged_is_noticed() -> None:
    x = random([400, 6], seed=3)
    weights = {tensor.name: np.frombuffer(tensor.raw_data, np.float32) for tensor in mlp(outputs=2).graph.initializer}
    hidden = np.tanh(x @ weights["w1"].reshape(5, 6).T + weights["b1"])
    answers = (hidden @ weights["w2"].reshape(2, 5).T + weights["b2"]).argmax(1)
    (change,) = named(mlp(outputs=2), (x, 1 - answers))
    assert change == "with another order of the classes (it sees 0 as 1, 1 as 0)"


def test_no_time_names_nothing(digits: DemoFiles, stored_digits: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "SECONDS", -1.0)
    assert remedy(digits.model, stored_digits) is None


# -- a network for colour pictures ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cifar() -> Pictures:
    """80 training pictures of each class of CIFAR-10, bytes ``[800, 32, 32, 3]``."""
    wanted, found = Counter[str](), []
    with tarfile.open(need_shared("data/cifar10-imagefolder.tar.xz"), "r|xz") as archive:
        for member, name in _pictures(archive):
            file = archive.extractfile(member) if wanted[name] < 80 else None
            if file is not None:
                wanted[name] += 1
                found.append((name, np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))))
    names = sorted(wanted)
    assert len(names) == 10
    return np.stack([image for _, image in found]), np.array([names.index(name) for name, _ in found])


def _pictures(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, str]]:
    for member in archive:
        parts = member.name.split("/")
        if member.isfile() and "train" in parts:
            yield member, parts[-2]


def resnet() -> Any:
    return need_shared("models/resnet20_cifar10.onnx")


def test_right_pictures_need_no_remedy(cifar: Pictures) -> None:
    assert remedy(resnet(), cifar, mean=MEAN, std=STD) is None


@pytest.mark.slow
@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize(
    ("given", "left_out"),
    [({}, ""), ({"std": STD}, ""), ({"mean": MEAN}, ""), ({"scale": 1.0}, " and without --scale")],
)
def test_a_missing_mean_is_noticed_and_the_right_one_named(
    cifar: Pictures, given: Any, left_out: str, thorough: bool
) -> None:
    changes = named(resnet(), cifar, thorough=thorough, **given)
    assert changes == (f"with {CIFAR}{left_out} (CIFAR-10's)",)


@pytest.mark.slow
def test_channels_in_the_opposite_order_are_noticed(cifar: Pictures) -> None:
    images, labels = cifar
    changes = named(resnet(), (images[..., ::-1].copy(), labels))
    options = "--mean 0.4465,0.4822,0.4914 --std 0.2616,0.2435,0.247"
    assert changes == (f"with {options} (CIFAR-10's)", "with the colour channels in the opposite order")


@pytest.mark.slow
def test_pictures_read_in_the_wrong_layout_are_noticed(cifar: Pictures) -> None:
    images, labels = cifar
    (change,) = named(resnet(), (images.reshape(-1, 3, 32, 32), labels), mean=MEAN, std=STD)
    assert change.startswith("with the pictures read channels last where they were read channels first")
