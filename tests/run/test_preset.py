"""The settings of the paper for LeNet-5: what they stand for, which networks they are for, what they leave behind."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import onnxadmm as oa
from onnxadmm.cli import compress as verb
from onnxadmm.cli.app import app
from onnxadmm.errors import CheckpointError, OptionError
from onnxadmm.graph.model import from_proto, to_proto
from onnxadmm.run.choices import Choices
from onnxadmm.run.command import command_line
from onnxadmm.run.preset import refuse_beside_preset, with_preset
from tests.conftest import Command
from tests.run.test_choices import CHOICES
from tests.run.test_resume import InterruptedRun
from tests.shared import need_shared, needs_training

pytestmark = [pytest.mark.usefixtures("quick_latency")]

PRESET = "lenet5-paper"
PLAIN = replace(CHOICES, budget=None, calibration=None)
JOINT = replace(PLAIN, recipe=oa.Recipe(mode="joint"))


def lenet(
    channels: tuple[int, int] = (20, 50),
    products: tuple[int, ...] = (500, 10),
    *,
    turned: bool = True,
    names: str = "w{}",
    kernel: int = 3,
) -> onnx.ModelProto:
    """LeNet-5 of images [1, 12, 12], with weights that nobody has trained.

    Args:
        turned: whether products are Gemm that read their weights as [outputs, inputs]; else MatMul and Add.
        names: of the weights, by their number.
    """
    generator = np.random.default_rng(0)
    nodes, constants, data, width = [], [], "image", 1
    for number, count in enumerate((*channels, *products)):
        flat = number >= len(channels)
        if number == len(channels):
            nodes.append(helper.make_node("Flatten", [data], ["flat"], axis=1))
            data, width = "flat", width * (2 if kernel == 3 else 1) ** 2
        shape = (count, width) if flat else (count, width, kernel, kernel)
        array = (generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        weight, offset = names.format(number), f"b{number}"
        if flat and not turned:
            array = np.ascontiguousarray(array.T)
        constants.append(numpy_helper.from_array(array, weight))
        constants.append(numpy_helper.from_array(np.full(count, 0.01, np.float32), offset))
        last = number == len(channels) + len(products) - 1
        out = "logits" if last else f"h{number}"
        if not flat:
            nodes.append(helper.make_node("Conv", [data, weight, offset], [f"c{number}"], name=f"layer{number}"))
            nodes.append(
                helper.make_node("MaxPool", [f"c{number}"], [f"p{number}"], kernel_shape=[2, 2], strides=[2, 2])
            )
            nodes.append(helper.make_node("Relu", [f"p{number}"], [out]))
        else:
            to = out if last else f"g{number}"
            if turned:
                nodes.append(helper.make_node("Gemm", [data, weight, offset], [to], transB=1, name=f"layer{number}"))
            else:
                nodes.append(helper.make_node("MatMul", [data, weight], [f"m{number}"], name=f"layer{number}"))
                nodes.append(helper.make_node("Add", [f"m{number}", offset], [to]))
            if not last:
                nodes.append(helper.make_node("Relu", [to], [out]))
        data, width = out, count
    # 12 -> 10 -> 5 -> 3 -> 1 with kernels of three; padded to leave two by two.
    for node in nodes:
        if node.op_type == "Conv" and node.input[0] != "image":
            node.attribute.append(helper.make_attribute("pads", [1, 1, 0, 0]))
    graph = helper.make_graph(
        nodes,
        "lenet",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 12, 12])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", products[-1]])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# -- what it stands for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("names", ["w{}", "onnx::Conv_{}", "a[b]{}*"])
def test_the_targets_are_those_of_the_paper_whatever_the_names(turned: bool, names: str) -> None:
    model = from_proto(lenet(turned=turned, names=names))
    chosen = with_preset(PRESET, JOINT, model)
    assert chosen.recipe.method == "paper"
    assert chosen.budget is None
    assert chosen.limits.round_to == 1
    assert list(chosen.targets.values()) == [8 / 20, 50 / 500]
    assert list(chosen.connection_targets.values()) == [0.2, 0.08, 0.01, 0.07]
    assert chosen.unit_share is None
    units = oa.find_groups(model)
    for pattern, layer in zip(chosen.targets, (0, 2), strict=True):
        assert [group.matches(pattern) for group in units.groups] == [number == layer for number in range(3)]


def test_one_budget_is_of_all_connections_and_of_all_units() -> None:
    chosen = with_preset(PRESET, PLAIN, from_proto(lenet()))
    assert chosen.budget == oa.Budget(connections=0.048)
    assert (chosen.targets, chosen.connection_targets) == ({}, {})
    assert chosen.unit_share == 0.52
    assert chosen.recipe.method == "paper"


def test_the_network_of_the_paper_is_known() -> None:
    model = oa.load(need_shared("models/lenet5_mnist.onnx"))
    assert list(with_preset(PRESET, JOINT, model).connection_targets) == [
        "c1.weight",
        "c2.weight",
        "f1.weight",
        "f2.weight",
    ]


@pytest.mark.parametrize("choices", [PLAIN, JOINT], ids=["holistic", "joint"])
def test_the_command_line_of_a_report_names_the_preset_and_nothing_that_it_says(choices: Choices) -> None:
    told = command_line(with_preset(PRESET, choices, from_proto(lenet())), {"model": "m.onnx", "data": "d.npz"})
    mode = " --mode joint" if choices is JOINT else ""
    assert told == f"onnxadmm compress m.onnx --data d.npz --preset {PRESET}{mode} --seed 0"
    context = (
        typer.main.get_command(app)
        .commands["compress"]
        .make_context(  # type: ignore[attr-defined]
            "compress", [*shlex.split(told)[2:], "--out", "out"]
        )
    )
    read = verb.arguments({**context.params, "quiet": True})
    assert (read["preset"], read["recipe"].mode) == (PRESET, choices.recipe.mode)


# -- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"channels": (6, 16), "products": (120, 84, 10)},
        {"channels": (20, 50), "products": (500, 100, 10)},
        {"channels": (20, 50), "products": (400, 10)},
        {"channels": (50, 20)},
        {"products": (500, 11)},
    ],
)
@pytest.mark.parametrize("choices", [PLAIN, JOINT], ids=["holistic", "joint"])
def test_another_network_is_refused_in_one_sentence(given: dict[str, Any], choices: Choices) -> None:
    with pytest.raises(OptionError, match=r"^--preset lenet5-paper: expected LeNet-5: .*, found a"):
        with_preset(PRESET, choices, from_proto(lenet(**given)))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"budget": oa.Budget(params=0.5)}, "a budget"),
        ({"budget": oa.Budget(connections=0.5)}, "a budget"),
        ({"targets": {"w0": 0.5}}, "--target"),
        ({"connection_targets": {"w0": 0.5}}, "--connection-target"),
        ({"calibration": oa.CalibrationOptions()}, "--calibrate"),
        ({"recipe": oa.Recipe(method="calibrated")}, "--method calibrated"),
        ({"ignore": ("w0",)}, "--ignore"),
        ({"limits": oa.Limits(round_to=8)}, "limits of groups"),
        ({"limits": oa.Limits(max_ratio=0.5)}, "limits of groups"),
    ],
)
def test_options_that_say_otherwise_are_refused(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(OptionError, match=f"--preset lenet5-paper: expected none of the options .* found {found}"):
        refuse_beside_preset(PRESET, replace(PLAIN, **changes))
    refuse_beside_preset(PRESET, replace(JOINT, limits=oa.Limits(round_to=1), recipe=oa.Recipe(method="paper")))
    with pytest.raises(OptionError, match="--preset: expected lenet5-paper, found 'vgg'"):
        refuse_beside_preset("vgg", PLAIN)


def test_the_command_refuses_before_anything_takes_long(command: Command, tmp_path: Path) -> None:
    onnx.save(lenet((6, 16)), tmp_path / "m.onnx")
    words = ["compress", tmp_path / "m.onnx", "--data", "nowhere.npz", "--out", tmp_path / "out"]
    for more, said in (
        (["--preset", PRESET], "expected LeNet-5"),
        (["--preset", PRESET, "--params", "0.1"], "found a budget"),
        (["--preset", PRESET, "--max-drop", "1"], "--max-drop"),
        (["--connection-target", "w0=0.5"], "expected --data with --mode joint"),
        (["--connection-target", "w0"], "expected GLOB=SHARE"),
        (["--connection-target", "w0=0.5", "--max-drop", "1"], "--max-drop"),
    ):
        ran = command(*words, *more)
        assert ran.status == 2, more
        assert said in " ".join(ran.stderr.split())
    calibrated = ["compress", tmp_path / "m.onnx", "--calibrate", "nowhere.npz", "--out", tmp_path / "out"]
    ran = command(*calibrated, "--connection-target", "w0=0.5")
    assert ran.status == 2
    assert "or --calibrate" in " ".join(ran.stderr.split())


# -- whole runs ------------------------------------------------------------------------------------------------

Digits = tuple[NDArray[np.float32], NDArray[np.int64]]


@pytest.fixture(scope="module")
def samples() -> Digits:
    generator = np.random.default_rng(1)
    labels = np.arange(320) % 10
    images = generator.standard_normal((10, 1, 12, 12))[labels] + 0.3 * generator.standard_normal((320, 1, 12, 12))
    return images.astype(np.float32), labels.astype(np.int64)


RUN: dict[str, Any] = {"bench": False, "expect_accuracy": 0}


def weights_of(model: oa.Model) -> dict[str, NDArray[np.float32]]:
    """Weights of the four layers in their order, as they stand in the file."""
    proto = to_proto(model)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    found |= {tensor.values.name: _dense(tensor) for tensor in proto.graph.sparse_initializer}
    return {name: found[name] for name in sorted(found) if name.startswith("w")}


def _dense(tensor: onnx.SparseTensorProto) -> NDArray[np.float32]:
    array = np.zeros(tuple(tensor.dims), np.float32)
    places = numpy_helper.to_array(tensor.indices)
    array.reshape(-1)[places if places.ndim == 1 else np.ravel_multi_index(tuple(places.T), array.shape)] = (
        numpy_helper.to_array(tensor.values)
    )
    return array


@needs_training
def test_every_layer_ends_with_the_papers_units_and_its_share_of_the_connections(samples: Digits) -> None:
    recipe = oa.Recipe(mode="joint", epochs=2, retrain_epochs=1, batch_size=32)
    result = oa.compress(lenet(), data=samples, preset=PRESET, recipe=recipe, **RUN)
    weights = weights_of(result.model)
    assert [array.shape for array in weights.values()] == [(8, 1, 3, 3), (50, 8, 3, 3), (50, 200), (10, 50)]
    sizes = [8 * 9, 50 * 8 * 9, 50 * 200, 10 * 50]
    expected = [int(share * size + 1e-9) for share, size in zip((0.2, 0.08, 0.01, 0.07), sizes, strict=True)]
    assert [int(np.count_nonzero(array)) for array in weights.values()] == expected
    (line,) = result.report.budgets
    assert (line.kind, line.asked, line.met) == ("connections", "by layer", True)
    assert line.reached == pytest.approx(sum(expected) / sum(sizes))
    assert result.report.options["preset"] == PRESET
    assert result.report.verification is not None
    assert result.report.verification.passed


@needs_training
def test_one_threshold_leaves_the_papers_share_of_units_and_connections(samples: Digits) -> None:
    recipe = oa.Recipe(epochs=2, retrain_epochs=1, batch_size=32)
    result = oa.compress(lenet(), data=samples, preset=PRESET, recipe=recipe, **RUN)
    weights = list(weights_of(result.model).values())
    assert sum(array.shape[0] for array in weights[:3]) == 296  # 52 % of 570
    size = sum(array.size for array in weights)
    assert sum(int(np.count_nonzero(array)) for array in weights) == int(0.048 * size)
    assert "0.52 of all units" in result.plan.note


@needs_training
def test_shares_of_connections_need_no_preset_and_decide_the_result(samples: Digits, tmp_path: Path) -> None:
    given: dict[str, Any] = {"recipe": oa.Recipe(mode="joint", epochs=2, retrain_epochs=1, batch_size=32), **RUN}
    given |= {"targets": {"layer0": 0.4}, "limits": oa.Limits(round_to=1), "out": tmp_path / "out", "data": samples}
    shares = {"w0": "50%", "layer?": 0.25}
    with pytest.raises(KeyboardInterrupt):
        oa.compress(lenet(), connection_targets=shares, progress=InterruptedRun(3, KeyboardInterrupt()), **given)
    with pytest.raises(CheckpointError, match=r"^--connection-target: expected"):
        oa.compress(lenet(), connection_targets={**shares, "w0": 0.4}, resume=True, **given)
    result = oa.compress(lenet(), connection_targets=shares, resume=True, **given)
    whole = oa.compress(lenet(), connection_targets=shares, **{**given, "out": None})
    for resumed, at_once in zip(weights_of(result.model).values(), weights_of(whole.model).values(), strict=True):
        np.testing.assert_array_equal(resumed, at_once)
    weights = weights_of(whole.model)
    assert {name: array.shape[0] for name, array in weights.items()} == {"w0": 8, "w1": 50, "w2": 500, "w3": 10}
    assert {name: int(np.count_nonzero(array)) for name, array in weights.items()} == {
        "w0": 8 * 9 // 2, "w1": 50 * 8 * 9 // 4, "w2": 500 * 200 // 4, "w3": 10 * 500 // 4,
    }  # fmt: skip
    assert "--connection-target w0=0.5 --connection-target 'layer?=0.25'" in whole.report.command
