"""Another network as the teacher: it is asked in place of the original, and refused where it does not fit."""

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxadmm as oa
from onnxadmm.ahead import Ahead
from onnxadmm.errors import CheckpointError, OptionError, OutputError
from onnxadmm.graph.model import from_proto, to_proto
from onnxadmm.progress import SILENT
from onnxadmm.run.journal import Journal
from onnxadmm.run.machines import Site, as_bytes
from onnxadmm.run.reading import read_training
from onnxadmm.run.trainings import Training
from onnxadmm.train.losses import Task
from tests.conftest import Command
from tests.run.test_resume import InterruptedRun
from tests.samples_text import parse_sample
from tests.shared import needs_training

pytestmark = [pytest.mark.usefixtures("quick_latency")]

Floats = NDArray[np.float32]
WEIGHTS = {"A": (6, 24), "B": (24, 5)}
PLAIN = "float[N,6] x"
MLP = "h = MatMul (x, A)\nr = Relu (h)\ny = MatMul (r, B)"


def network(
    weights: Mapping[str, Floats],
    *,
    inputs: str = PLAIN,
    outputs: str = "float[N,5] y",
    nodes: str = MLP,
) -> onnx.ModelProto:
    declared = ", ".join(f"float[{','.join(map(str, array.shape))}] {name}" for name, array in weights.items())
    model = parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17]> net ({inputs}) => ({outputs}) <{declared}> {{ {nodes} }}"""
    )
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return model


def drawn(seed: int, shapes: Mapping[str, tuple[int, ...]] = WEIGHTS) -> dict[str, Floats]:
    generator = np.random.default_rng(seed)
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


GOOD = drawn(1)
#: Far from it, as a network is that was pruned too hard.
POOR = {name: array + 1.2 * other for (name, array), other in zip(GOOD.items(), drawn(2).values(), strict=True)}
SAMPLES = np.random.default_rng(3).standard_normal((1024, 6)).astype(np.float32)
LABELS = np.arange(1024) % 5


def answered(weights: Mapping[str, Floats], samples: Floats) -> NDArray[np.float64]:
    """What the network computes, in double precision and without a session."""
    first, second = (weights[name].astype(np.float64) for name in "AB")
    return np.asarray(np.maximum(samples.astype(np.float64) @ first, 0) @ second)


def read(
    teacher: onnx.ModelProto | None,
    *,
    model: onnx.ModelProto | None = None,
    data: object = SAMPLES,
    recipe: oa.Recipe | None = None,
    cache: Path | None = None,
) -> tuple[Training, Journal]:
    journal = Journal(SILENT)
    training = read_training(
        from_proto(network(POOR) if model is None else model),
        data,
        None,
        recipe=oa.Recipe(distillation=1.0, batch_size=32) if recipe is None else recipe,
        preprocessing=oa.Preprocessing(cache=cache),
        inputs={},
        seed=0,
        journal=journal,
        teacher=None if teacher is None else from_proto(teacher),
    )
    return training, journal


def lessons(training: Training) -> list[tuple[Floats, Floats]]:
    """Samples, and what is said of them, of one epoch."""
    found = []
    for batch in training.made(0, 0):
        assert batch.teacher is not None
        ((_, samples),) = batch.inputs.items()
        found.append((samples, batch.teacher))
    return found


def assert_taught_by(weights: Mapping[str, Floats], training: Training) -> None:
    for samples, told in lessons(training):
        np.testing.assert_allclose(told, answered(weights, samples), rtol=1e-4, atol=1e-4)


# -- who is asked --------------------------------------------------------------------------------------------


def test_the_teacher_answers_in_place_of_the_original_and_is_named() -> None:
    training, journal = read(network(GOOD))
    assert_taught_by(GOOD, training)
    assert any(f"sha256 {from_proto(network(GOOD)).sha256[:12]}), not the original" in said for said in journal.notes)
    training, journal = read(None)
    assert_taught_by(POOR, training)
    assert not any("teacher" in said for said in journal.notes)


@pytest.mark.parametrize(
    ("given", "nodes"),
    [
        ({"inputs": "float[N,6] image"}, "h = MatMul (image, A)\nr = Relu (h)\ny = MatMul (r, B)"),
        ({"inputs": "float[8,6] x", "outputs": "float[8,5] y"}, ""),
        ({"outputs": "float[N,5] scores"}, "h = MatMul (x, A)\nr = Relu (h)\nscores = MatMul (r, B)"),
        (
            {"outputs": "float[N,5] p"},
            "h = MatMul (x, A)\nr = Relu (h)\ns = MatMul (r, B)\np = Softmax <axis: int = 1> (s)",
        ),
        (
            {"outputs": "float[N,24] r, float[N,5] y"},
            "h = MatMul (x, A)\nr = Relu (h)\ny = MatMul (r, B)",
        ),
        ({"inputs": "float[N,M] x", "outputs": "float[N,K] y"}, ""),
        (
            {"outputs": "int64[N] label, float[N,5] p"},
            "h = MatMul (x, A)\nr = Relu (h)\ns = MatMul (r, B)\np = Softmax <axis: int = 1> (s)\n"
            "label = ArgMax <axis: int = 1, keepdims: int = 0> (s)",
        ),
    ],
    ids=[
        "another input name",
        "a fixed batch",
        "another output name",
        "a softmax",
        "one of two outputs",
        "open sizes",
        "two of one",
    ],
)
def test_what_is_called_the_same_or_the_only_one_is_taken(given: dict[str, str], nodes: str) -> None:
    training, _ = read(network(GOOD, **given, **({"nodes": nodes} if nodes else {})))
    assert_taught_by(GOOD, training)


def test_all_outputs_are_those_of_the_teacher() -> None:
    student = network(POOR, outputs="float[N,5] y, float[N,24] r")
    # In another order, and one of them in half precision.
    nodes = "h = MatMul (x, A)\nq = Relu (h)\ny = MatMul (q, B)\nk = Cast <to: int = 10> (h)\nr = Relu (k)"
    teacher = network(GOOD, outputs="float16[N,24] r, float[N,5] y", nodes=nodes)
    training, journal = read(teacher, model=student)
    assert training.loss.task is Task.MSE
    assert any("between this network and the teacher is taken over all elements" in said for said in journal.notes)
    for samples, told in lessons(training):
        expected = np.concatenate([answered(GOOD, samples), np.maximum(samples @ GOOD["A"], 0)], axis=1)
        np.testing.assert_allclose(told, expected, rtol=2e-3, atol=2e-3)


def test_answers_are_kept_for_each_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    for weights in (GOOD, None, GOOD, drawn(7)):
        training, _ = read(None if weights is None else network(weights), cache=tmp_path)
        assert training.teacher is not None
        counted: list[int] = []
        honest = training.teacher._predictor.logits
        monkeypatch.setattr(
            training.teacher._predictor,
            "logits",
            lambda inputs, counted=counted, honest=honest: counted.append(1) or honest(inputs),
        )
        for samples, told in lessons(training):
            expected = answered(POOR if weights is None else weights, samples)
            np.testing.assert_allclose(told, expected, rtol=2e-3, atol=2e-2)  # in half precision
        asked.append(len(counted) > 0)
    assert asked == [True, True, False, True]


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shapes", "said"),
    [
        ({"inputs": "float[N,7] x"}, {"A": (7, 24), "B": (24, 5)}, r"input x: .*\[\?, 6\].* found .*\[\?, 7\]"),
        ({"inputs": "float[N,6,1] x"}, None, r"input x: .*\[\?, 6\].* found .*\[\?, 6, 1\]"),
        (
            {"inputs": "float[N,6] a, float[N,6] b", "nodes": f"x = Add (a, b)\n{MLP}"},
            None,
            "inputs: expected x, as of the model, found a, b",
        ),
        (
            {"inputs": "double[N,6] x", "nodes": f"f = Cast <to: int = 1> (x)\n{MLP.replace('(x, A)', '(f, A)')}"},
            None,
            "input x: expected float32 .* found float64",
        ),
        ({"outputs": "float[N,4] y"}, {"A": (6, 24), "B": (24, 4)}, r"output y: .*\[\?, 5\].* found .*\[\?, 4\]"),
        (
            {"outputs": "float[N,5] a, float[N,24] r", "nodes": MLP.replace("y =", "a =")},
            None,
            "outputs: expected one that is called y, as of the model, found a, r",
        ),
    ],
    ids=["more features", "another rank", "two inputs", "doubles", "fewer classes", "two outputs, neither of the name"],
)
def test_a_teacher_that_does_not_fit_is_refused_before_data_are_read(
    given: dict[str, str], shapes: dict[str, tuple[int, ...]] | None, said: str
) -> None:
    with pytest.raises(OptionError, match=f"^--teacher, {said}.*leave --teacher out"):
        read(network(drawn(1, shapes or WEIGHTS), **given), data="nowhere.npz")


def test_sizes_that_a_file_leaves_free_are_looked_at_in_an_answer() -> None:
    with pytest.raises(
        OptionError, match=r"--teacher, the answer to a sample: expected shape \[5\].* found shape \[4\]"
    ):
        read(
            network(
                {**GOOD, "some": np.array([1, 1, 0, 1, 1], np.float32)},
                outputs="float[N,K] y",
                nodes=f"{MLP.replace('y =', 's =')}\nc = Cast <to: int = 9> (some)\n"
                "y = Compress <axis: int = 1> (s, c)",
            )
        )
    with pytest.raises(OptionError, match="--teacher, a sample: expected an answer"):
        read(network(drawn(1, {"A": (7, 24), "B": (24, 5)}), inputs="float[N,M] x", outputs="float[N,K] y"))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"data": (SAMPLES, LABELS), "recipe": oa.Recipe(distillation=0)}, "--distillation 0"),
        ({"calibrate": SAMPLES}, "a calibration, in which nothing trains"),
        ({"data": (SAMPLES, LABELS), "recipe": oa.Recipe(method="calibrated", retrain_epochs=0)}, "a calibration"),
    ],
)
def test_a_run_that_learns_nothing_from_a_teacher_refuses_it(given: dict[str, Any], found: str) -> None:
    with pytest.raises(OptionError, match=f"--teacher: expected a run that learns from it, found {found}"):
        oa.compress(network(POOR), budget={"params": 0.5}, teacher=network(GOOD), **given)


def test_the_command_refuses_with_status_2(command: Command, tmp_path: Path) -> None:
    onnx.save(network(POOR), tmp_path / "m.onnx")
    onnx.save(network(drawn(1, {"A": (6, 24), "B": (24, 4)}), outputs="float[N,4] y"), tmp_path / "t.onnx")
    np.savez(tmp_path / "d.npz", x=SAMPLES, labels=LABELS)
    words = ["compress", tmp_path / "m.onnx", "--data", tmp_path / "d.npz", "--params", "0.5", "--out", tmp_path / "o"]
    ran = command(*words, "--teacher", tmp_path / "t.onnx")
    assert ran.status == 2
    assert "--teacher, output y: expected shape [?, 5]" in " ".join(ran.stderr.split())
    ran = command(*words, "--teacher", tmp_path / "none.onnx")
    assert ran.status == 2
    assert "no such file" in ran.stderr


def test_the_teacher_is_not_written_over(tmp_path: Path) -> None:
    onnx.save(network(GOOD), tmp_path / "model.onnx")
    with pytest.raises(OutputError):
        oa.compress(network(POOR), data=SAMPLES, teacher=tmp_path / "model.onnx", out=tmp_path, force=True,
                    budget={"params": 0.5}, recipe=oa.Recipe(distillation=1))  # fmt: skip


# -- whole runs ----------------------------------------------------------------------------------------------

RECIPE = oa.Recipe(distillation=1, epochs=4, retrain_epochs=12, batch_size=32)
RUN: dict[str, Any] = {"data": SAMPLES, "budget": {"params": 0.8}, "recipe": RECIPE, "limits": oa.Limits(round_to=1)}
RUN |= {"bench": False}


def agreement(model: onnx.ModelProto | oa.Model, samples: Floats) -> float:
    found = from_proto(model) if isinstance(model, onnx.ModelProto) else model
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in to_proto(found).graph.initializer}
    return float((answered(weights, samples).argmax(1) == answered(GOOD, samples).argmax(1)).mean())


@needs_training
def test_a_poor_network_learns_from_a_better_one_what_it_cannot_learn_from_itself() -> None:
    others = np.random.default_rng(4).standard_normal((2000, 6)).astype(np.float32)
    alone = oa.compress(network(POOR), **RUN)
    taught = oa.compress(network(POOR), teacher=network(GOOD), **RUN)
    before, by_itself, by_another = (agreement(model, others) for model in (network(POOR), alone.model, taught.model))
    assert by_another > by_itself + 0.1
    assert by_another > before + 0.1
    assert taught.report.options["teacher"] == "in memory: ModelProto"
    assert "--teacher TEACHER" in taught.report.command
    assert any(said.startswith("The teacher is a network in memory") for said in taught.report.simplified)
    scores = taught.report.before.heldout, taught.report.after.heldout
    assert [score is not None and score.metric for score in scores] == ["agreement with the teacher"] * 2
    assert scores[0] is not None
    assert scores[0].is_share
    assert scores[0].value < 0.9  # the original does not agree with it
    assert alone.report.options["teacher"] is None
    assert alone.report.before.heldout is not None
    assert alone.report.before.heldout.metric == "agreement"


@needs_training
def test_a_calibration_fits_to_the_model_and_the_teacher_teaches_afterwards() -> None:
    given = {**RUN, "calibrate": SAMPLES, "recipe": oa.Recipe(retrain_epochs=12, batch_size=32)}
    del given["data"]
    untaught = oa.compress(network(POOR), **{**given, "recipe": oa.Recipe(batch_size=32)})
    taught = oa.compress(network(POOR), teacher=network(GOOD), **given)
    assert taught.plan.groups == untaught.plan.groups
    assert agreement(taught.model, SAMPLES) > agreement(untaught.model, SAMPLES) + 0.1


@needs_training
def test_a_run_is_not_resumed_with_another_teacher(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        oa.compress(
            network(POOR), teacher=network(GOOD), out=out, progress=InterruptedRun(3, KeyboardInterrupt()), **RUN
        )
    for other in (network(drawn(7)), None):
        with pytest.raises(CheckpointError, match=r"^--teacher: expected .*, as in the interrupted run"):
            oa.compress(network(POOR), teacher=other, out=out, resume=True, **RUN)
    oa.compress(network(POOR), teacher=network(GOOD), out=out, resume=True, **RUN)


def test_a_sweep_and_a_search_pass_the_teacher_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    taught: list[object] = []

    def compress(*given: object, **named: Any) -> None:
        taught.append(named.get("teacher"))
        raise EnoughError

    points = importlib.import_module("onnxadmm.points")
    monkeypatch.setattr(points, "compress", compress)
    ahead = Ahead("onnxadmm compress m.onnx --params 0.3 --out o", "", None)
    monkeypatch.setattr(points, "look_ahead", lambda *_, **__: ahead)
    with pytest.raises(EnoughError):
        oa.sweep("m.onnx", data="d.npz", amounts={"params": [0.5, 0.3]}, out=tmp_path / "s", teacher="t.onnx")
    with pytest.raises(EnoughError):  # with a budget there is no calibration before
        oa.search("m.onnx", data="d.npz", max_drop=1, by="params", budget={"macs": 0.9}, out=tmp_path / "f",
                  teacher="t.onnx")  # fmt: skip
    assert taught == ["t.onnx", "t.onnx"]


def test_a_machine_of_a_cluster_asks_the_teacher() -> None:
    model, teacher = from_proto(network(POOR)), from_proto(network(GOOD))
    whole, _ = read(network(GOOD))
    site = Site(
        model=as_bytes(model),
        input_shapes={},
        data=SAMPLES,
        made=False,
        digest=whole.digest(),
        recipe=oa.Recipe(distillation=1.0, batch_size=32),
        preprocessing=oa.Preprocessing(),
        inputs={},
        seed=0,
        trains=True,
        teacher=as_bytes(teacher),
    )
    assert_taught_by(GOOD, site.open()._training)
    assert_taught_by(POOR, replace(site, teacher=None).open()._training)


@needs_training
def test_what_is_expected_of_a_run_counts_its_teacher() -> None:
    wide = {"A": (6, 40000), "B": (40000, 5)}
    plain, taught = (oa.forecast(network(POOR), **RUN, **more) for more in ({}, {"teacher": network(drawn(1, wide))}))
    assert taught.memory_bytes - plain.memory_bytes == from_proto(network(drawn(1, wide))).file_bytes
