import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxadmm.errors import NotTrainableError, OptionError
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.losses import IGNORED, Loss, Task
from onnxadmm.train.preflight import preflight as module
from onnxadmm.train.preflight.gradient_check import choose, compare
from onnxadmm.train.preflight.preflight import preflight
from tests.train.graphs import mlp, model_of, random

pytestmark = pytest.mark.usefixtures("engine")

CLASSES = Loss(Task.CROSS_ENTROPY)


def convnet() -> onnx.ModelProto:
    return model_of(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["h"], pads=[1, 1, 1, 1], name="conv"),
            helper.make_node("Relu", ["h"], ["r"], name="bend"),
            helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
            helper.make_node("Flatten", ["p"], ["f"], name="flat"),
            helper.make_node("Gemm", ["f", "v"], ["out"], name="linear"),
        ],
        inputs={"x": ["N", 2, 6, 6]},
        outputs=["out"],
        weights={"w": random([8, 2, 3, 3]), "b": random([8], seed=1), "v": random([8, 3], seed=2)},
    )


def images(count: int = 6, labels: bool = True) -> Batch:
    answers = np.arange(count, dtype=np.int64) % 3 if labels else None
    return Batch({"x": random([count, 2, 6, 6], seed=3)}, answers, None, count)


def child(monkeypatch: pytest.MonkeyPatch, folder: Path, sabotage: str) -> None:
    """Let the child run some lines before its work."""
    program = folder / "child.py"
    program.write_text(
        "import os, signal, sys\nfrom pathlib import Path\nfrom onnxadmm.train.preflight import child\n"
        f"{sabotage}\nchild.main(Path(sys.argv[1]))\n"
    )
    monkeypatch.setattr(module, "PROGRAM", (str(program),))


@pytest.mark.parametrize("labels", [True, False])
def test_sound_model_passes_with_all_weights_checked(labels: bool) -> None:
    result = preflight(convnet(), loss=CLASSES, batch=images(labels=labels))
    assert {check.weight for check in result.checks} == {"all weights", "w", "b", "v"}
    assert {check.verdict for check in result.checks} == {"right"}
    assert not result.frozen
    assert not result.untrainable


@pytest.mark.slow
@pytest.mark.parametrize("loss", [Loss(Task.MSE), Loss(Task.BCE, 1.0, 4.0), Loss(Task.CROSS_ENTROPY, 0.5, 2.0)])
def test_every_loss_passes(loss: Loss) -> None:
    result = preflight(mlp(), loss=loss, batch=Batch({"x": random([4, 6])}, None, None, 4))
    assert "wrong" not in {check.verdict for check in result.checks}


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_a_regression_passes_in_any_unit(unit: float) -> None:
    model = mlp()
    for tensor in model.graph.initializer:
        if tensor.name in ("w2", "b2"):
            tensor.raw_data = (np.float32(unit) * np.frombuffer(tensor.raw_data, np.float32)).tobytes()
    x = random([4, 6])
    for labels in (None, np.float32(unit) * random([4, 4], seed=5)):
        result = preflight(model, loss=Loss(Task.MSE), batch=Batch({"x": x}, labels, None, 4))
        assert {check.verdict for check in result.checks} == {"right"}, result.checks


def test_samples_without_a_label_pass() -> None:
    batch = Batch({"x": random([4, 6])}, np.array([0, IGNORED, 2, IGNORED]), None, 4)
    result = preflight(mlp(), loss=Loss(gaps=True), batch=batch)
    assert {check.verdict for check in result.checks} == {"right"}


def test_crash_names_the_operator_that_crashes_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child(
        monkeypatch,
        tmp_path,
        "run = child.BoundSession.run\n"
        "def crash(session):\n"
        "    names = [output.name for output in session._session.get_outputs()]\n"
        "    if len(names) > 3 or 'h_grad' in names:\n"
        "        os.kill(os.getpid(), signal.SIGFPE)\n"
        "    run(session)\n"
        "child.BoundSession.run = crash",
    )
    with pytest.raises(NotTrainableError, match=r"Relu \(bend\).*SIGFPE.*taking a step"):
        preflight(convnet(), loss=CLASSES, batch=images())


@pytest.mark.slow
def test_crash_without_a_single_cause_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child(
        monkeypatch,
        tmp_path,
        "step = child.OrtTrainer.backward\nchild.OrtTrainer.backward = lambda *_: os.kill(os.getpid(), signal.SIGSEGV)",
    )
    with pytest.raises(NotTrainableError, match=r"SIGSEGV.*taking a step, which no single operator caused alone"):
        preflight(convnet(), loss=CLASSES, batch=images())


def test_step_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child(monkeypatch, tmp_path, "import time\ntime.sleep(60)")
    with pytest.raises(NotTrainableError, match="no end within 1 s"):
        preflight(convnet(), loss=CLASSES, batch=images(), timeout=1.0)


@pytest.mark.slow
def test_failure_in_the_child_is_told_in_its_last_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child(monkeypatch, tmp_path, "raise RuntimeError('no such luck')")
    with pytest.raises(NotTrainableError, match="no such luck"):
        preflight(convnet(), loss=CLASSES, batch=images())


@pytest.mark.slow
@pytest.mark.parametrize(("weight", "reader"), [("v", "Gemm"), ("w", "Conv")])
def test_wrong_gradient_names_the_weight_and_its_reader(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weight: str, reader: str
) -> None:
    child(
        monkeypatch,
        tmp_path,
        "step = child.OrtTrainer.backward\n"
        "def wrong(trainer, batch):\n"
        "    value = step(trainer, batch)\n"
        f"    trainer.gradients['{weight}'][...] *= 1.2\n"
        "    return value\n"
        "child.OrtTrainer.backward = wrong",
    )
    with pytest.raises(NotTrainableError, match=rf"gradient of weight {weight}, read by {reader}"):
        preflight(convnet(), loss=CLASSES, batch=images())


@pytest.mark.slow
def test_gradient_that_is_no_number_names_the_weight() -> None:
    model = convnet()
    batch = images()
    broken = {"x": batch.inputs["x"].copy()}
    broken["x"][0] = np.nan
    with pytest.raises(NotTrainableError, match=r"gradient of weight v, read by Gemm \(linear\).*NaN"):
        preflight(model, loss=CLASSES, batch=Batch(broken, batch.labels, None, 6))


@pytest.mark.slow
def test_training_copy_with_other_outputs_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child(
        monkeypatch,
        tmp_path,
        "plain = child.Predictor.logits\n"
        "child.Predictor.logits = lambda self, inputs, constants={}: plain(self, inputs, constants=constants) + 1",
    )
    with pytest.raises(NotTrainableError, match="outputs of the original"):
        preflight(convnet(), loss=CLASSES, batch=images())


@pytest.mark.slow
def test_refusals_of_the_child_keep_their_class_and_words() -> None:
    with pytest.raises(OptionError, match="no_such_weight"):
        preflight(convnet(), loss=CLASSES, batch=images(), trainable=["no_such_weight"])


@pytest.mark.slow
def test_weights_behind_an_untrainable_operator_are_listed() -> None:
    model = convnet()
    model.graph.node[1].CopyFrom(helper.make_node("Hardmax", ["h"], ["r"], name="odd", axis=1))
    result = preflight(model, loss=CLASSES, batch=images(), freeze_untrainable=True)
    assert result.untrainable == {"b": "Hardmax (odd)", "w": "Hardmax (odd)"}
    assert {check.weight for check in result.checks} == {"all weights", "v"}


@pytest.mark.slow
def test_parent_keeps_its_own_interpreter_settings() -> None:
    before = list(sys.path)
    preflight(mlp(), loss=CLASSES, batch=Batch({"x": random([2, 6])}, None, None, 2))
    assert sys.path == before


def test_every_kind_of_reader_is_chosen_first() -> None:
    readers = {f"c{index}": f"Conv (n{index})" for index in range(5)} | {"g": "Gemm (last)"}
    assert set(choose(readers, 2)) == {"c0", "g"} or set(choose(readers, 2)) == {"c4", "g"}
    assert len(choose(readers, 4)) == 4
    assert set(choose(readers, 99)) == set(readers)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "right"), (1.15, "wrong"), (-1.0, "wrong"), (0.0, "wrong")])
def test_comparison_judges_a_planted_factor(factor: float, verdict: str) -> None:
    weights = {"w": random([20], seed=1)}
    slope = np.linspace(-1, 1, 20, dtype=np.float32)
    check = compare(
        lambda moved: float((moved.get("w", weights["w"]).astype(np.float64) * slope).sum()),
        weights,
        {"w": np.float32(factor) * slope},
        names=["w"],
        weight="w",
        operator="Gemm",
        seed=0,
    )
    assert check.verdict == verdict
