"""Models with a custom operator in the middle: what can be done with its library, and what without."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import onnxadmm as oa
from onnxadmm.bisect import bisect
from onnxadmm.errors import CheckpointError, ModelFileError, NotTrainableError, PlanError
from onnxadmm.graph.model import from_proto, to_proto
from onnxadmm.graph.runtime import open_session
from onnxadmm.graph.shapes import infer
from onnxadmm.progress import Iteration, Silent
from onnxadmm.runtime.custom_ops import custom_operators
from onnxadmm.units.units import Units
from tests.conftest import Command
from tests.shared import SCALE2, compiled, needs_training

pytestmark = pytest.mark.usefixtures("quick_latency")

Data = tuple[NDArray[np.float32], NDArray[np.int64]]


def network(*, middle: str = "Scale2", domain: str = "com.example", side: int | str = 8) -> onnx.ModelProto:
    """Two convolutions, the operator, a convolution, a Reshape to a computed size, and two layers; ``x`` to 4 classes.

    The weights of the first layer behind the Reshape fit to images of side 8, whatever the file says.
    """
    generator = np.random.default_rng(0)
    shapes = {"c1": (16, 1, 3, 3), "c2": (24, 16, 3, 3), "c3": (20, 24, 3, 3), "f1": (32, 20 * 16), "f2": (4, 32)}
    weights: dict[str, NDArray[np.generic]] = {"first": np.array([0]), "rest": np.array([-1])}
    for name, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[1:]))
        weights[f"{name}.weight"] = (scale * generator.standard_normal(shape)).astype(np.float32)
        weights[f"{name}.bias"] = (0.1 * generator.standard_normal(shape[0])).astype(np.float32)

    def layer(operator: str, name: str, value: str, **attributes: object) -> list[onnx.NodeProto]:
        inputs = [value, f"{name}.weight", f"{name}.bias"]
        made = helper.make_node(operator, inputs, [name], name=name, **attributes)
        return [made, helper.make_node("Relu", [name], [f"{name}.relu"])]

    nodes = [
        *layer("Conv", "c1", "x", pads=[1, 1, 1, 1]),
        *layer("Conv", "c2", "c1.relu", pads=[1, 1, 1, 1]),
        helper.make_node(middle, ["c2.relu"], ["scaled"], name="scale", domain=domain),
        *layer("Conv", "c3", "scaled", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Shape", ["c3.relu"], ["lengths"]),
        helper.make_node("Gather", ["lengths", "first"], ["batch"]),
        helper.make_node("Concat", ["batch", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["c3.relu", "target"], ["flat"]),
        *layer("Gemm", "f1", "flat", transB=1),
        layer("Gemm", "f2", "f1.relu", transB=1)[0],
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, side, side])],
        [helper.make_tensor_value_info("f2", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def data(count: int) -> Data:
    """Noise whose class is which halves of the image are brighter: float32 ``[count, 1, 8, 8]``, int64 ``[count]``."""
    x = np.random.default_rng(1).standard_normal((count, 1, 8, 8)).astype(np.float32)
    upper, left = x[:, 0, :4].mean((1, 2)) > 0, x[:, 0, :, :4].mean((1, 2)) > 0
    return x, (2 * upper + left).astype(np.int64)


def free(units: Units) -> dict[str, int]:
    """Units of the groups that may shrink."""
    return {group.name: group.count for group in units.groups}


def test_everything_but_what_the_operator_touches_is_pruned_and_proven(scale2: Path) -> None:
    model = from_proto(network())
    with custom_operators([scale2]):
        assert free(oa.find_groups(model)) == {"c1.weight": 16, "c3.weight": 20, "f1.weight": 32}
        plan = oa.rank(model, ratio=0.5)
        small, masked = oa.shrink(model, plan), oa.mask(model, plan)
        proof = oa.verify(model, small, plan)
        assert proof.passed
        assert proof.snr_db > 110
        shapes = {tensor.name: list(tensor.dims) for tensor in to_proto(small).graph.initializer}
        assert shapes["c1.weight"] == [8, 1, 3, 3]
        assert shapes["c2.weight"] == [24, 8, 3, 3]
        assert shapes["c3.weight"] == [10, 24, 3, 3]
        assert shapes["f1.weight"] == [16, 10 * 16]
        # The kernel really ran: the masked original computes what it does with the operator written as a product.
        x = data(3)[0]
        found = open_session(masked).run({"x": x})["f2"]
    twin = to_proto(masked)
    node = next(node for node in twin.graph.node if node.op_type == "Scale2")
    node.CopyFrom(helper.make_node("Add", [node.input[0], node.input[0]], node.output))
    expected = open_session(from_proto(twin)).run({"x": x})["f2"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_a_shrunk_model_that_leaves_the_operator_out_does_not_pass(scale2: Path) -> None:
    model = from_proto(network())
    plan = oa.rank(model, ratio=0.5, custom_ops=[scale2])
    wrong = to_proto(oa.shrink(model, plan, custom_ops=[scale2]))
    node = next(node for node in wrong.graph.node if node.op_type == "Scale2")
    node.CopyFrom(helper.make_node("Identity", [node.input[0]], node.output))
    proof = oa.verify(model, wrong, plan, custom_ops=[scale2])
    assert not proof.passed
    assert "scaled" in (proof.first_difference or "")


def test_without_the_library_a_model_is_inspected_planned_masked_and_shrunk_as_far_as_shapes_are_known() -> None:
    model = from_proto(network())
    units = oa.find_groups(model)
    assert free(units) == {"c1.weight": 16}
    reasons = {locked.name: locked.reason for locked in units.locked}
    assert reasons["c2.weight"] == "no rule for Scale2 (scale)"
    assert "--custom-ops with the library of Scale2 would show it" in reasons["c3.weight"]
    plan = oa.rank(model, ratio=0.5)
    oa.mask(model, plan)
    small = oa.shrink(model, plan)
    with pytest.raises(ModelFileError, match=r"found Scale2 of domain com\.example, which has none; .* --custom-ops"):
        oa.verify(model, small, plan)
    with pytest.raises(ModelFileError, match=r"Scale2 of domain com\.example"):
        oa.bench([model, small])


def test_what_was_planned_without_the_library_is_proven_with_it(scale2: Path) -> None:
    model = from_proto(network())
    plan = oa.rank(model, ratio=0.5)
    assert oa.verify(model, oa.shrink(model, plan), plan, custom_ops=[scale2]).passed


def test_a_plan_that_needs_the_library_says_so(scale2: Path) -> None:
    model = from_proto(network())
    plan = oa.rank(model, ratio=0.5, custom_ops=[scale2])
    with pytest.raises(PlanError, match="--custom-ops"):
        oa.shrink(model, plan)
    assert bisect(model, plan, custom_ops=[scale2]) is None


def test_shapes_stated_in_the_file_need_no_library() -> None:
    proto = network()
    proto.graph.value_info.append(helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["N", 24, 8, 8]))
    assert free(oa.find_groups(proto)) == {"c1.weight": 16, "c3.weight": 20, "f1.weight": 32}


def test_shapes_behind_the_operator_come_from_running_the_model_at_two_samples(scale2: Path) -> None:
    model = from_proto(network())
    assert infer(model).shape("scaled") is None
    with custom_operators([scale2]):
        shapes = infer(model)
    assert shapes.shape("scaled") == (2, 24, 8, 8)
    assert shapes.dynamic("scaled") == (True, False, False, False)
    assert shapes.shape("f1") == (2, 32)
    assert shapes.partial("target") == (None, -1)
    assert shapes.contradictions == ()


@pytest.mark.slow
def test_lengths_that_only_fit_in_front_of_the_operator_are_tried_again(scale2: Path) -> None:
    def of_side(side: int) -> onnx.ModelProto:
        proto = network(side="side")
        for tensor in proto.graph.initializer:
            if tensor.name == "f1.weight":
                tensor.CopyFrom(numpy_helper.from_array(np.zeros((32, 20 * (side // 2) ** 2), np.float32), "f1.weight"))
        return proto

    with custom_operators([scale2]):
        free_side = infer(from_proto(of_side(10)))
    # No side among the samples is 10: behind the operator the contradiction shows as it would without one.
    assert free_side.contradictions == ("f1",)
    with custom_operators([scale2]):
        shapes = infer(from_proto(of_side(28)))
    assert shapes.contradictions == ()
    assert shapes.shape("scaled") is not None
    assert shapes.shape("scaled")[2:] == (28, 28)  # type: ignore[index]


def test_two_custom_operators_one_behind_the_other_are_seen_in_one_run(scale2: Path) -> None:
    proto = network()
    for node in proto.graph.node:
        if node.name == "f1":
            node.input[0] = "flat2"
    proto.graph.node.insert(11, helper.make_node("Scale2", ["flat"], ["flat2"], domain="com.example"))
    with custom_operators([scale2]):
        model = from_proto(proto)
        assert infer(model).shape("f1") == (2, 32)
        plan = oa.rank(model, ratio=0.5)
        assert [group.name for group in plan.groups] == ["c1.weight", "f1.weight"]
        assert oa.verify(model, oa.shrink(model, plan), plan).passed


def test_an_operator_in_a_branch_is_seen_as_well(scale2: Path) -> None:
    proto = network()
    branches = {}
    for name in ("then_branch", "else_branch"):
        node = helper.make_node("Scale2", ["c2.relu"], [name], domain="com.example")
        branches[name] = helper.make_graph([node], name, [], [helper.make_empty_tensor_value_info(name)])
    node = next(node for node in proto.graph.node if node.op_type == "Scale2")
    node.CopyFrom(helper.make_node("If", ["choice"], ["scaled"], name="choose", **branches))
    proto.graph.input.append(helper.make_tensor_value_info("choice", TensorProto.BOOL, []))
    with custom_operators([scale2]):
        model = from_proto(proto)
        assert infer(model).shape("scaled") == (2, 24, 8, 8)
        plan = oa.rank(model, ratio=0.5)
        assert {"c3.weight", "f1.weight"} <= {group.name for group in plan.groups}
        assert oa.verify(model, oa.shrink(model, plan), plan).passed


def test_an_operator_that_somebody_registers_in_onnx_s_own_domain_is_no_reason_to_stop() -> None:
    model = from_proto(network(middle="DCNv2", domain=""))
    units = oa.find_groups(model)
    assert free(units) == {"c1.weight": 16}
    plan = oa.rank(model, ratio=0.5)
    with pytest.raises(ModelFileError, match=r"found DCNv2 of domain ai\.onnx, which has none"):
        oa.verify(model, oa.shrink(model, plan), plan)


def test_a_network_with_the_operator_is_put_into_bytes_and_smaller_as_well(scale2: Path) -> None:
    x, _ = data(200)
    made = oa.quantize(network(), x, max_drop=100, custom_ops=[scale2], bench=False)
    result = oa.compress(
        network(), calibrate=x, budget={"params": 0.8}, calibration={"effort": "quick"}, custom_ops=[scale2],
        bench=False, int8=True, fp16=True,
    )  # fmt: skip
    assert result.int8 is not None
    for model in (made.model, result.int8):
        kinds = [node.op_type for node in model.ir.graph]
        assert kinds.count("Scale2") == 1
        assert "QuantizeLinear" in kinds
        with custom_operators([scale2]), open_session(model) as session:
            assert session.run({"x": x})
    assert result.variants[1].figures.parameters == result.after.parameters


@pytest.mark.slow
@needs_training
def test_training_goes_on_behind_the_operator_and_its_processes_have_the_library(scale2: Path) -> None:
    report = oa.compress(
        network(),
        data=data(400),
        budget=oa.Budget(params=0.4),
        recipe=oa.Recipe(epochs=2, retrain_epochs=1, batch_size=50, workers=2, freeze_untrainable=True),
        custom_ops=[scale2],
        expect_accuracy=0,  # weights are drawn
    )
    assert report.after.parameters <= 0.4 * report.before.parameters
    assert report.verification is not None
    assert report.verification.snr_db > 80
    (frozen,) = [warning for warning in report.warnings if "kept their values" in warning]
    assert "c2.weight (behind Scale2 (scale))" in frozen
    assert "f1.weight" not in frozen


@pytest.mark.slow
@needs_training
def test_training_through_the_operator_is_refused_by_its_name(scale2: Path) -> None:
    with pytest.raises(NotTrainableError, match=r"Scale2 of domain com\.example"):
        oa.compress(network(), data=data(200), budget=oa.Budget(params=0.4), custom_ops=[scale2], expect_accuracy=0)


class EndAtTheSecond(Silent):
    """Ends the run at its second iteration: the first one is in the checkpoint then."""

    def __init__(self) -> None:
        self._seen = 0

    def iteration(self, row: Iteration) -> None:
        self._seen += 1
        if self._seen == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
@needs_training
def test_resuming_asks_for_the_same_libraries_wherever_they_lie(scale2: Path, tmp_path: Path) -> None:
    def run(libraries: Sequence[Path], *, resume: bool, progress: Silent) -> oa.Report:
        return oa.compress(
            network(),
            data=data(200),
            budget=oa.Budget(params=0.4),
            recipe=oa.Recipe(epochs=1, retrain_epochs=0, batch_size=50, freeze_untrainable=True),
            custom_ops=libraries,
            expect_accuracy=0,
            out=tmp_path / "out",
            resume=resume,
            progress=progress,
        )

    with pytest.raises(KeyboardInterrupt):
        run([scale2], resume=False, progress=EndAtTheSecond())
    other = compiled(SCALE2.read_text().replace("2.0f", "3.0f"), tmp_path / "other.so")
    with pytest.raises(CheckpointError, match=r"--custom-ops: expected .*, as in the interrupted run"):
        run([other], resume=True, progress=Silent())
    with pytest.raises(CheckpointError, match=r"--custom-ops: expected .*, as in the interrupted run, found none"):
        run([], resume=True, progress=Silent())
    moved = tmp_path / "moved.so"
    moved.write_bytes(scale2.read_bytes())
    assert run([moved], resume=True, progress=Silent()).after.parameters > 0


def test_every_verb_that_runs_the_model_takes_the_library(command: Command, scale2: Path, tmp_path: Path) -> None:
    model, plan, small = tmp_path / "model.onnx", tmp_path / "plan.json", tmp_path / "small.onnx"
    onnx.save(network(), model)
    given = ("--custom-ops", scale2)
    inspected = command("inspect", model, "--json", *given)
    groups = json.loads(inspected.stdout)["groups"]
    assert [group["name"] for group in groups if group["locked"] is None] == ["c1.weight", "c3.weight", "f1.weight"]
    assert command("plan", model, "--ratio", 0.5, "-o", plan, *given).status == 0
    assert command("mask", model, plan, "-o", tmp_path / "masked.onnx", *given).status == 0
    assert command("shrink", model, plan, "-o", small, *given).status == 0
    verified = command("verify", model, small, plan, *given)
    assert (verified.status, verified.stderr) == (0, "")
    assert command("bench", model, small, "--seconds", 0.05, *given).status == 0
    without = command("bench", model, small, "--seconds", 0.05)
    assert without.status == 2
    assert "give the library that holds it with --custom-ops" in without.stderr
    missing = command("inspect", model, "--custom-ops", tmp_path / "nowhere.so")
    assert (missing.status, missing.stdout) == (2, "")
    assert "nowhere.so: expected a custom-operator library, found no such file" in missing.stderr
