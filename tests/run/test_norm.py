"""Normalisations that are put back while a network trains: a run gives the same graph as without them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

import onnxadmm as oa
from onnxadmm.demo import DemoFiles
from onnxadmm.errors import OptionError
from tests.conftest import Command
from tests.shared import needs_training
from tests.train.graphs import model_of, random

pytestmark = [
    pytest.mark.usefixtures("quick_latency"),
    needs_training,
]

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]


def run(digits: DemoFiles, data: Digits, out: Path, norm: str) -> oa.Report:
    recipe = oa.Recipe(epochs=2, retrain_epochs=1, batch_size=64, retrain_learning_rate=2e-3, norm=norm)  # type: ignore[arg-type]
    budget = oa.Budget(params=0.4, connections=0.7)
    return oa.compress(digits.model, data=data, budget=budget, out=out, recipe=recipe)


def nodes_of(path: Path) -> list[tuple[str, str, tuple[str, ...], tuple[str, ...]]]:
    return [(n.name, n.op_type, tuple(n.input), tuple(n.output)) for n in onnx.load(path).graph.node]


@pytest.mark.slow
def test_restored_run_ships_the_nodes_of_the_users_graph(
    digits: DemoFiles, few_digits: Digits, tmp_path: Path, quick_latency: None
) -> None:
    restored = run(digits, few_digits, tmp_path / "restore", "restore")
    kept = run(digits, few_digits, tmp_path / "keep", "keep")
    assert nodes_of(tmp_path / "restore" / "model.onnx") == nodes_of(tmp_path / "keep" / "model.onnx")
    for report, folder in ((restored, "restore"), (kept, "keep")):
        assert report.verification is not None
        assert report.verification.snr_db >= 80
        assert all(budget.met for budget in report.budgets)
        assert report.after.heldout is not None
        assert report.after.heldout.value > 0.5
        plan = oa.Plan.read(tmp_path / folder / "plan.json")
        small = oa.shrink(digits.model, plan)
        shapes = {name: value.shape for name, value in small.ir.graph.initializers.items()}
        stored = oa.load(tmp_path / folder / "model.onnx").ir.graph.initializers
        assert {name: value.shape for name, value in stored.items()} == shapes
    # The two trained differently, or the option would be without effect.
    assert restored.history != kept.history


def test_unknown_way_to_train_normalisations_is_refused() -> None:
    with pytest.raises(OptionError, match=r"--norm: expected auto, keep or restore, found 'fold'"):
        oa.Recipe(norm="fold")  # type: ignore[arg-type]


def normalised_network() -> onnx.ModelProto:
    """Two convolutions, each with BatchNormalization and Relu, pooling and a linear layer; 3 classes."""

    def weight(*shape: int, seed: int) -> NDArray[np.float32]:
        return random(shape, seed=seed, scale=0.4)

    weights = {"w1": weight(16, 2, 3, 3, seed=1), "w2": weight(16, 16, 3, 3, seed=2), "v": weight(16, 3, seed=3)}
    for prefix in ("n1", "n2"):
        weights |= {f"{prefix}.{part}": np.zeros(16, np.float32) for part in ("shift", "mean")}
        weights |= {f"{prefix}.{part}": np.ones(16, np.float32) for part in ("scale", "var")}
    nodes = []
    for index, source in ((1, "x"), (2, "r1")):
        norm = [f"c{index}", *(f"n{index}.{part}" for part in ("scale", "shift", "mean", "var"))]
        nodes += [
            helper.make_node("Conv", [source, f"w{index}"], [f"c{index}"], name=f"conv{index}", pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", norm, [f"h{index}"], name=f"norm{index}"),
            helper.make_node("Relu", [f"h{index}"], [f"r{index}"], name=f"relu{index}"),
        ]
    nodes += [
        helper.make_node("GlobalAveragePool", ["r2"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "v"], ["logits"], name="linear"),
    ]
    return model_of(nodes, inputs={"x": ["N", 2, 6, 6]}, outputs=["logits"], weights=weights)


@pytest.mark.slow
def test_networks_own_normalisations_ship_with_statistics_of_the_small_network(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 256)
    images = (generator.standard_normal((256, 2, 6, 6)) + labels[:, None, None, None]).astype(np.float32)
    recipe = oa.Recipe(epochs=2, retrain_epochs=2, batch_size=32, norm="restore")
    oa.compress(
        normalised_network(),
        data=(images, labels),
        budget=oa.Budget(params=0.5),
        out=tmp_path / "out",
        recipe=recipe,
        limits=oa.Limits(round_to=1),
        sparse=False,
        expect_accuracy=0,  # weights are drawn
    )
    shipped = onnx.load(tmp_path / "out" / "model.onnx")
    assert [node.name for node in shipped.graph.node] == [node.name for node in normalised_network().graph.node]
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in shipped.graph.initializer}
    assert weights["n1.mean"].shape < (16,)
    # What the first normalisation reads depends on the first weight alone.
    shipped.graph.output.append(helper.make_tensor_value_info("c1", onnx.TensorProto.FLOAT, None))
    (values,) = onnx.reference.ReferenceEvaluator(shipped).run(["c1"], {"x": images})  # type: ignore[misc]
    np.testing.assert_allclose(weights["n1.mean"], values.mean((0, 2, 3)), atol=0.1 * values.std())
    np.testing.assert_allclose(weights["n1.var"], values.var((0, 2, 3)), rtol=0.2)


@pytest.mark.parametrize(("given", "deep", "rate"), [(None, False, 5e-3), (None, True, 2e-3), (1e-4, True, 1e-4)])
def test_learning_rate_of_retraining_depends_on_depth_unless_it_is_given(
    given: float | None, deep: bool, rate: float
) -> None:
    assert oa.Recipe(retrain_learning_rate=given).retraining_rate(deep=deep) == rate


def test_option_of_the_command_line_reaches_the_recipe(command: Command, tmp_path: Path, digits: DemoFiles) -> None:
    ran = command(
        *("compress", digits.model, "--data", digits.training, "--out", tmp_path / "out"),
        *("--params", "0.5", "--norm", "fold"),
    )
    assert ran.status == 2
    assert "--norm: expected auto, keep or restore, found 'fold'" in ran.stderr
