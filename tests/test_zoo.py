"""The rewriter on small networks that each framework really exported: nothing crashes, nothing is wrong, most shrink.

The limits here are tables, so that a model that stops shrinking, or starts to, shows.
"""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxadmm.bench.inputs import random_inputs, required_inputs
from onnxadmm.graph.model import Model, clone, load, save, to_proto
from onnxadmm.planning import rank
from onnxadmm.rewrite.mask import mask as masked
from onnxadmm.rewrite.shrink import shrink as rewritten
from onnxadmm.rewrite.verify import verify as compare
from onnxadmm.surgery import find_groups, mask, shrink, trial_inputs, verify
from onnxadmm.units.cost import Cost
from onnxadmm.units.units import Units, find_units
from onnxadmm.units.vanishing import may_vanish

ZOO = Path(__file__).parent / "zoo"
MODELS = tuple(sorted(path.stem for path in ZOO.glob("*.onnx")))

# Models of which more than nine tenths of the parameters stay when 30 % of the units of every group go, and why.
HARDLY_SHRINK: dict[str, str] = {}

# Models that onnxruntime 1.19.2 does not load or run, for their opset; they are verified all the same.
NOT_FOR_THIS_RUNTIME = {
    "jax_mlp_opset23",
    "sklearn_mlp_regressor",
    "torch_dynamo_bert_opset23",
    "torch_dynamo_llama_opset23",
    "torch_dynamo_masked_attention_opset23",
    "torch_dynamo_vit_opset23",
}

# Models in which units end in a sum over an activation: how many, in the group that a weight belongs to.
SUMMED = {
    "torch_dynamo_einsum_attention": ("q", 8),
    "torch_dynamo_recommender": ("bottom.2.weight", 8),
    "torch_dynamo_siamese": ("branch.3.weight", 16),
    "torch_script_einsum_attention": ("q", 8),
    "torch_script_recommender": ("bottom.2.weight", 8),
    "torch_script_siamese": ("branch.3.weight", 16),
}

# Networks whose branches may go altogether: how many groups end in sums that can do without.
BRANCHES = {
    "jax_resnet_opset20": 1, "keras_resnet": 3, "keras_transformer": 1, "ort_float16_bert": 4,
    "ort_optimised_convnext": 2, "paddle_transformer": 2, "torch_dynamo_bert": 4, "torch_dynamo_detr": 1,
    "torch_dynamo_efficientnet": 2, "torch_dynamo_gpt": 4, "torch_dynamo_llama": 4, "torch_dynamo_mixer": 4,
    "torch_dynamo_mobilenet_v3": 2, "torch_dynamo_resnet_bottleneck": 3, "torch_dynamo_swin": 3,
    "torch_script_resnet_raw": 3, "torch_script_vit": 4,
}  # fmt: skip

LARGEST_BYTES = 150_000


@cache
def loaded(name: str) -> Model:
    return load(ZOO / f"{name}.onnx")


@cache
def groups_of(name: str) -> Units:
    return find_groups(loaded(name))


@pytest.fixture(autouse=True, scope="module")
def _groups_are_found_once() -> Iterator[None]:
    """Every verb looks for the groups of a model; here they are found once in each, as no verb may change it."""
    found: dict[tuple[object, ...], tuple[Model, Units]] = {}

    def once(model: Model, *, inexact: bool = False, features: bool = False, ignore: Sequence[str] = ()) -> Units:
        key = (id(model), inexact, features, tuple(ignore))
        if key not in found:  # a model that is kept keeps its id
            found[key] = (model, find_units(model, inexact=inexact, features=features, ignore=ignore))
        return found[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("onnxadmm.surgery.find", once)
        yield
    found.clear()


def checker_complaint(proto: onnx.ModelProto) -> str | None:
    """What the checker with shape inference says, numbers and names left out: None when nothing."""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return re.sub(r"\d+", "#", str(error).splitlines()[0])
    return None


def test_the_zoo_is_there_and_small() -> None:
    assert len(MODELS) >= 200
    assert [name for name in MODELS if os.path.getsize(ZOO / f"{name}.onnx") > LARGEST_BYTES] == []


def test_the_tables_name_models_of_the_zoo() -> None:
    assert set(HARDLY_SHRINK) | set(SUMMED) | NOT_FOR_THIS_RUNTIME <= set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_every_locked_group_names_an_operator_or_an_output(name: str) -> None:
    operators = {node.op_type for node in loaded(name).ir.graph.all_nodes()}
    unnamed = [
        (group.name, group.reason)
        for group in groups_of(name).locked
        if not group.reason.startswith("reaches graph output ")
        and not any(re.search(rf"\b{re.escape(operator)} \(.+\)", group.reason) for operator in operators)
    ]
    assert unnamed == []


@pytest.mark.parametrize("name", [name for name in MODELS if name not in NOT_FOR_THIS_RUNTIME])
def test_some_output_depends_on_the_input(name: str) -> None:
    """Where the signal dies on the way, any two networks with the same last biases look equal."""
    model = loaded(name)
    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(str(ZOO / f"{name}.onnx"), providers=["CPUExecutionProvider"])
    first, second = (session.run(None, random_inputs(model, batch=2, seed=seed)) for seed in (1, 2))
    floats = [(a, b) for a, b in zip(first, second, strict=True) if getattr(a, "dtype", np.dtype("i1")).kind == "f"]
    changes = [float(np.abs(a - b).max() / np.abs(a).max()) for a, b in floats]
    assert not changes or max(changes) > 5e-3


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_something_to_prune(name: str) -> None:
    assert groups_of(name).groups


@pytest.mark.parametrize("name", MODELS)
def test_shrunk_model_is_valid_smaller_and_computes_what_its_mask_computes(name: str, tmp_path: Path) -> None:
    model = loaded(name)
    before = to_proto(clone(model)).SerializeToString(deterministic=True)
    plan = rank(model, ratio=0.3)
    masked, small = mask(model, plan), shrink(model, plan)

    bytes_written = [save(item, tmp_path / f"{number}.onnx") for number, item in enumerate((model, masked, small))]
    assert bytes_written[2] < min(bytes_written[0], os.path.getsize(ZOO / f"{name}.onnx"))
    assert bytes_written[1] <= bytes_written[0] + 4_096 + 256 * len(groups_of(name).gates)
    if checker_complaint(onnx.load(ZOO / f"{name}.onnx")) is None:
        assert checker_complaint(onnx.load(tmp_path / "1.onnx")) is None
        assert checker_complaint(onnx.load(tmp_path / "2.onnx")) is None
    new = set(small.ir.graph.initializers) - set(model.ir.graph.initializers)  # of an old file these are inputs as well
    names = [value.name for value in model.ir.graph.inputs]
    assert [value.name for value in small.ir.graph.inputs if value.name not in new] == names
    assert [str(value) for value in required_inputs(small)] == [str(value) for value in required_inputs(model)]
    assert [str(value) for value in small.ir.graph.outputs] == [str(value) for value in model.ir.graph.outputs]
    assert small.ir.opset_imports == model.ir.opset_imports
    assert to_proto(model).SerializeToString(deterministic=True) == before

    units, cost = groups_of(name), Cost(groups_of(name), "params")
    left = cost.total(plan.keep(model, units)) / cost.dense()
    assert (left > 0.9) == (name in HARDLY_SHRINK)

    found = verify(model, small, plan)
    assert found.passed, found.first_difference
    assert found.threshold_db >= (40 if "float16" in name else 80)
    assert found.inputs_tried >= 2


@pytest.mark.parametrize("name", SUMMED)
def test_units_that_end_in_a_sum_over_an_activation_may_go(name: str) -> None:
    tensor, count = SUMMED[name]
    units = groups_of(name)
    gated = {unit for gate in units.gates for unit in gate.reader.units.tolist() if unit >= 0}
    groups = [group for group in units.groups if gated & set(range(group.start, group.start + group.count))]
    assert [(group.count, tensor in group.tensors) for group in groups] == [(count, True)]


@cache
def vanishing_of(name: str) -> frozenset[int]:
    return may_vanish(loaded(name), groups_of(name))


def test_as_many_networks_have_branches_that_may_go_as_the_method_says() -> None:
    told = re.search(
        r"(\d+) of the (\d+) exported networks", (ZOO.parents[1] / "docs" / "method.md").read_text("utf-8")
    )
    assert told is not None
    assert [int(number) for number in told.groups()] == [sum(map(bool, map(vanishing_of, MODELS))), len(MODELS)]


@pytest.mark.parametrize("name", MODELS)
def test_branches_go_altogether_and_exactly(name: str) -> None:
    model, units, vanishing = loaded(name), groups_of(name), vanishing_of(name)
    assert len(vanishing) == BRANCHES.get(name, len(vanishing))
    if not vanishing:
        return
    keep = np.ones(units.count, np.bool_)
    for group in units.groups:
        keep[group.start : group.start + group.count] = group.start not in vanishing
    small = rewritten(model, units, keep)
    assert len(small.ir.graph) < len(model.ir.graph)
    inputs = list(trial_inputs(model, seed=0, inputs={}))
    found = compare(
        masked(model, units, keep), small, inputs, kept=lambda value, shape: units.positions(value, keep, shape)
    )
    assert found.passed, found.first_difference
