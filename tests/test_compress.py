"""Compressions from Python: reports, files, proofs, and what happens when training blows up."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.admm.settings import Settings
from onnxadmm.admm.state import part
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import BudgetError, DataError, DivergedError, OptionError, TrainingUnavailableError
from onnxadmm.report.reading import read_report
from onnxadmm.report.report import Report
from onnxadmm.run import trainings as training
from onnxadmm.run.checkpoint import read_checkpoint
from onnxadmm.train import engine

pytestmark = pytest.mark.usefixtures("quick_latency")

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]
SHORT = oa.Recipe(epochs=3, retrain_epochs=2, batch_size=64)


def weights_of(path: Path) -> dict[str, NDArray[Any]]:
    """Dense weights of a file by name, sparse ones included, read through the onnx package alone."""
    graph = onnx.load(path).graph
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for sparse in graph.sparse_initializer:
        dense = np.zeros(int(np.prod(sparse.dims)), np.float32)
        dense[onnx.numpy_helper.to_array(sparse.indices)] = onnx.numpy_helper.to_array(sparse.values)
        found[sparse.values.name] = dense.reshape(tuple(sparse.dims))
    return found


def run(path: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits through onnxruntime alone."""
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    return np.asarray(logits)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compress") / "out"


@pytest.fixture(scope="module")
def report(digits: DemoFiles, few_digits: Digits, out: Path, quick_latency: None) -> Report:
    """A short compression to 30 % of the parameters and fewer bytes than these, and half of the weights that remain."""
    return oa.compress(
        digits.model,
        data=few_digits,
        test=few_digits,
        budget=oa.Budget(params=0.3, size="140kB", connections=0.5),
        out=out,
        recipe=SHORT,
        limits=oa.Limits(round_to=1),
    )


# -- what comes out ------------------------------------------------------------------------------------------


def test_report_counts_what_the_file_holds(report: Report, out: Path) -> None:
    weights = weights_of(out / "model.onnx")
    assert report.after.parameters == sum(array.size for array in weights.values())
    assert report.after.nonzero_parameters == sum(int(np.count_nonzero(array)) for array in weights.values())
    assert report.after.file_bytes == (out / "model.onnx").stat().st_size
    conv1, conv2, conv3, dense1 = (len(weights[f"{name}_weight"]) for name in ("conv1", "conv2", "conv3", "dense1"))
    assert report.after.macs == 64 * 9 * (conv1 + conv1 * conv2) + 16 * 9 * conv2 * conv3 + 4 * conv3 * dense1 + (
        10 * dense1
    )


def test_budgets_are_met_and_reported(report: Report) -> None:
    parameters, size, connections = report.budgets
    assert (parameters.kind, parameters.asked, parameters.original) == ("params", "0.3", 124_778)
    assert parameters.reached == report.after.parameters
    assert parameters.reached <= parameters.limit == pytest.approx(0.3 * 124_778)
    assert (size.kind, size.asked, size.limit, size.original) == ("size", "140kB", 140_000, report.before.file_bytes)
    assert size.reached == report.after.file_bytes <= 140_000
    # Dense, as bytes are counted before connections go, the file would be nearly as large as allowed.
    assert 0.95 * 140_000 < 4 * parameters.reached < 140_000
    assert connections.kind == "connections"
    assert connections.reached <= connections.limit == 0.5
    assert all(budget.met for budget in report.budgets)


def test_pruned_connections_are_zero_and_leave_the_file(report: Report, out: Path) -> None:
    weights = weights_of(out / "model.onnx")
    kernels = [array for array in weights.values() if array.ndim > 1]
    alive = sum(int(np.count_nonzero(array)) for array in kernels) / sum(array.size for array in kernels)
    assert 0.4 < alive <= 0.5
    assert onnx.load(out / "model.onnx").graph.sparse_initializer or report.after.file_bytes >= 4 * 0.5 * sum(
        array.size for array in kernels
    )


def test_verification_is_part_of_every_run(report: Report) -> None:
    assert report.verification is not None
    assert report.verification.passed
    assert report.verification.snr_db >= report.verification.threshold_db >= 80


def test_result_keeps_the_interface_and_the_descriptions(digits: DemoFiles, report: Report, out: Path) -> None:
    before, after = onnx.load(digits.model), onnx.load(out / "model.onnx")
    assert after.graph.input == before.graph.input
    assert after.graph.output == before.graph.output
    assert after.opset_import == before.opset_import
    assert after.ir_version == before.ir_version
    assert after.doc_string == before.doc_string
    assert [node.op_type for node in after.graph.node] == [node.op_type for node in before.graph.node]
    onnx.checker.check_model(after)


def test_result_says_what_was_done_to_it(report: Report, out: Path) -> None:
    properties = {entry.key: entry.value for entry in onnx.load(out / "model.onnx").metadata_props}
    kept = json.loads(properties["onnxadmm.pruned"])[-1]["units"]
    assert kept == {
        group.name: [group.units_before, group.units_after] for group in report.groups if group.locked is None
    }


def test_report_is_the_one_on_disk(report: Report, out: Path) -> None:
    assert read_report(out / "report.json") == report
    text = (out / "report.md").read_text()
    assert f"{report.after.parameters:,}" in text


def test_history_has_every_iteration(report: Report, out: Path) -> None:
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert len(rows) == len(report.history)
    assert [row["stage"] for row in rows] == ["prune"] * (3 * 8) + ["retrain"] * 2
    first, last = rows[0], rows[3 * 8 - 1]
    assert last["budget"] < first["budget"]
    assert last["cost"] <= report.budgets[0].limit
    for name in ("neurons", "connections"):
        assert last[name]["rho"] > first[name]["rho"]
        assert {"primal", "dual", "rho"} <= set(last[name])
    assert all(row["heldout"] is not None for row in rows)


def test_accuracy_in_the_report_is_that_of_the_file(report: Report, out: Path, few_digits: Digits) -> None:
    images, labels = few_digits
    assert report.after.test is not None
    assert report.after.test.samples == len(labels)
    found = float((run(out / "model.onnx", images).argmax(1) == labels).mean())
    assert report.after.test.value == pytest.approx(found)
    assert found > 0.9


def test_plan_on_disk_rebuilds_the_result(digits: DemoFiles, report: Report, out: Path) -> None:
    plan = oa.Plan.read(out / "plan.json")
    small = oa.shrink(digits.model, plan)
    shapes = {name: tuple(value.shape.numpy()) for name, value in small.ir.graph.initializers.items() if value.shape}
    assert shapes == {name: array.shape for name, array in weights_of(out / "model.onnx").items()}
    assert oa.verify(digits.model, small, plan).passed
    for name, zeros in plan.zeros.items():
        assert zeros.shape == weights_of(digits.model)[name].shape


def weights_in(model: oa.Model) -> list[NDArray[Any]]:
    """The weights of a model in memory, in the order of their names."""
    initializers = model.ir.graph.initializers
    return [initializers[name].const_value.numpy() for name in sorted(initializers)]  # type: ignore[union-attr]


# -- ways to ask ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_nothing_is_written_without_a_folder(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = oa.compress(
        digits.model, data=few_digits, budget={"macs": "40%"}, recipe=SHORT, limits={"round_to": 1}, bench=False
    )
    assert report.after.macs is not None
    assert report.after.macs <= 0.4 * 2_133_248 + 1
    assert report.after.test is None
    assert all(row.connections is None for row in report.history), "connections were left alone"
    assert list(tmp_path.iterdir()) == []
    # What was asked for comes back all the same: the model, and the plan that makes it.
    assert sum(array.size for array in weights_in(oa.load(report.model))) == report.after.parameters
    small = oa.shrink(oa.load(digits.model), replace(report.plan, simplified=True))
    assert [array.shape for array in weights_in(small)] == [array.shape for array in weights_in(report.model)]
    assert report.report.after == report.after
    assert isinstance(report, oa.Report)
    assert report.latency == ()
    assert not any("faster" in sentence for sentence in report.warnings)
    given = {"macs": "40%", "params": None, "round_to": 1, "epochs": SHORT.epochs, "bench": False, "out": None}
    assert {name: report.options[name] for name in given} == given
    assert report.options["data"] == "in memory: tuple"


@pytest.mark.slow
def test_a_model_in_memory_and_batches_from_a_generator_will_do(digits: DemoFiles, few_digits: Digits) -> None:
    def loader() -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        images, labels = few_digits
        for start in range(0, len(images), 100):
            yield images[start : start + 100], labels[start : start + 100]

    model = onnx.load(digits.model)
    from_batches = oa.compress(model, data=loader(), budget=oa.Budget(params=0.3), recipe=SHORT)
    from_arrays = oa.compress(model, data=few_digits, budget=oa.Budget(params=0.3), recipe=SHORT)
    assert from_batches.groups == from_arrays.groups
    assert from_batches.history == from_arrays.history


@pytest.mark.slow
def test_the_teacher_alone_needs_no_labels(digits: DemoFiles, few_digits: Digits) -> None:
    images, _ = few_digits
    recipe = oa.Recipe(distillation=1.0, epochs=3, retrain_epochs=2, batch_size=64)
    report = oa.compress(digits.model, data=images, budget=oa.Budget(params=0.3), recipe=recipe)
    assert report.after.heldout is not None
    assert report.after.heldout.value > 0.9
    assert report.after.parameters <= 0.3 * report.before.parameters


@pytest.mark.slow
def test_joint_mode_keeps_the_share_each_layer_was_given(digits: DemoFiles, few_digits: Digits) -> None:
    recipe = oa.Recipe(mode="joint", epochs=3, retrain_epochs=1, batch_size=64)
    report = oa.compress(
        digits.model,
        data=few_digits,
        targets={"conv2*": 0.25, "conv*": 0.5},
        recipe=recipe,
        limits=oa.Limits(round_to=1),
    )
    kept = {group.name: (group.units_after, group.units_before) for group in report.groups}
    assert kept == {
        "conv1_weight": (16, 32),
        "conv2_weight": (16, 64),
        "conv3_weight": (48, 96),
        "dense1_weight": (128, 128),
        "dense2_weight": (10, 10),
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["holistic", "joint"])
def test_the_papers_method_meets_the_budget(mode: Any, digits: DemoFiles, few_digits: Digits) -> None:
    recipe = oa.Recipe(method="paper", mode=mode, epochs=4, retrain_epochs=2, batch_size=64)
    report = oa.compress(digits.model, data=few_digits, budget=oa.Budget(params=0.5), recipe=recipe)
    assert report.budgets[0].met
    assert report.verification is not None
    assert report.verification.passed
    assert report.history[0].neurons is not None


@pytest.mark.slow
def test_ignored_groups_stay_whole(digits: DemoFiles, few_digits: Digits) -> None:
    report = oa.compress(
        digits.model, data=few_digits, budget=oa.Budget(params=0.4), recipe=SHORT, ignore=["conv1*", "dense1*"]
    )
    kept = {group.name: group.units_after for group in report.groups}
    assert (kept["conv1_weight"], kept["dense1_weight"]) == (32, 128)
    assert kept["conv2_weight"] + kept["conv3_weight"] < 64 + 96


@pytest.mark.slow
def test_limits_of_a_group_are_kept(digits: DemoFiles, few_digits: Digits) -> None:
    limits = oa.Limits(keep_at_least=12, max_ratio=0.75, round_to=4)
    report = oa.compress(digits.model, data=few_digits, budget=oa.Budget(params=0.2), recipe=SHORT, limits=limits)
    for group in report.groups:
        if group.locked is None:
            assert group.units_after >= max(12, 0.25 * group.units_before)
            assert group.units_after % 4 == 0
    assert report.budgets[0].met


@pytest.mark.slow
def test_dense_and_sparse_files_compute_the_same(digits: DemoFiles, few_digits: Digits, tmp_path: Path) -> None:
    budget = oa.Budget(params=0.5, connections=0.1)
    for name, sparse in (("sparse", True), ("dense", False)):
        oa.compress(digits.model, data=few_digits, budget=budget, recipe=SHORT, sparse=sparse, out=tmp_path / name)
    sparse_file, dense_file = (tmp_path / name / "model.onnx" for name in ("sparse", "dense"))
    assert onnx.load(sparse_file).graph.sparse_initializer
    assert not onnx.load(dense_file).graph.sparse_initializer
    # onnx's own shape inference knows no sparse weights, so its full check is for dense files.
    onnx.checker.check_model(onnx.load(dense_file), full_check=True)
    assert sparse_file.stat().st_size < 0.5 * dense_file.stat().st_size
    np.testing.assert_array_equal(run(sparse_file, few_digits[0]), run(dense_file, few_digits[0]))


# -- refusals that need Python -------------------------------------------------------------------------------


def test_a_budget_out_of_reach_is_refused_before_training(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path
) -> None:
    for budget in (oa.Budget(params=20), oa.Budget(macs=0.5, size=1000)):
        with pytest.raises(BudgetError, match=r"the groups that bind it are .*_weight"):
            oa.compress(digits.model, data=few_digits, budget=budget, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_unreadable_batches_leave_nothing_behind(digits: DemoFiles, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        oa.compress(digits.model, data=iter([]), budget=oa.Budget(params=0.3), out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_targets_without_joint_mode_are_refused(digits: DemoFiles, few_digits: Digits) -> None:
    with pytest.raises(OptionError, match="--mode joint"):
        oa.compress(digits.model, data=few_digits, targets={"conv*": 0.5})


def test_no_training_engine_is_refused_in_one_sentence(
    digits: DemoFiles, few_digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "providers", dict)
    with pytest.raises(TrainingUnavailableError, match="no onnxruntime at all"):
        oa.compress(digits.model, data=few_digits, budget=oa.Budget(params=0.3))


@pytest.mark.slow
def test_a_network_that_is_cut_to_pieces_has_not_diverged(digits: DemoFiles, few_digits: Digits) -> None:
    # The distance from the teacher counts with the square of the temperature: to say nothing costs 300 here.
    recipe = replace(SHORT, temperature=12.0, epochs=4)
    report = oa.compress(digits.model, data=few_digits, budget=oa.Budget(params=0.01), recipe=recipe, bench=False)
    assert max(row.loss for row in report.history if row.stage == "prune") > Settings.divergence_floor
    assert report.budgets[0].met


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_divergence_names_the_iteration_and_keeps_the_last_good_state(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path
) -> None:
    recipe = oa.Recipe(epochs=6, retrain_epochs=1, batch_size=64, learning_rate=1e6)
    out = tmp_path / "out"
    with pytest.raises(DivergedError, match=r"iteration \d+"):
        oa.compress(digits.model, data=few_digits, budget=oa.Budget(params=0.3), recipe=recipe, out=out)
    assert {path.name for path in (out / "unfinished").iterdir()} == {"checkpoint.npz", "history.jsonl"}
    _, whole = read_checkpoint(out / "unfinished" / "checkpoint.npz")
    state = part(whole, "prune/solver/weights")
    shapes = {name: array.shape for name, array in state.items()}
    assert shapes.items() >= {name: array.shape for name, array in weights_of(digits.model).items()}.items()
    assert all(np.isfinite(array).all() for array in state.values())


@pytest.mark.slow
def test_divergence_while_retraining_keeps_the_weights_before_the_cut(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object, **__: object) -> None:
        raise DivergedError("retraining, epoch 1", expected="a finite loss", found="nan", way_out="lower it")

    monkeypatch.setattr(training, "retrain", diverge)
    out = tmp_path / "out"
    with pytest.raises(DivergedError, match="retraining"):
        oa.compress(digits.model, data=few_digits, budget=oa.Budget(params=0.3), recipe=SHORT, out=out)
    _, state = read_checkpoint(out / "unfinished" / "checkpoint.npz")
    shapes = {name: array.shape for name, array in part(state, "pruned/weights").items()}
    assert shapes == {name: array.shape for name, array in weights_of(digits.model).items()}
