"""Plans by magnitude: what a norm sees, groups that shrink alike, protection of thin ones."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxadmm.errors import BudgetError
from onnxadmm.graph.model import Model, from_proto, load
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Limits
from onnxadmm.plan.rank import rank_by_budget, rank_by_ratio, score
from onnxadmm.units.units import find_units
from tests.shared import need_shared

ZOO = Path(__file__).resolve().parents[1] / "zoo"


def dense_chain(*weights):
    """A network of dense layers: ``relu(x W1) W2 ...``, each weight float32 ``[inputs, outputs]``."""
    names = [f"w{number}" for number in range(len(weights))]
    lines, last = [], "x"
    for name in names:
        lines.append(f"{name}_y = MatMul({last}, {name})")
        last = f"{name}_y"
        if name != names[-1]:
            lines.append(f"{name}_r = Relu({last})")
            last = f"{name}_r"
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N, {len(weights[0])}] x) => (float[N, {weights[-1].shape[1]}] {last}) {{ {chr(10).join(lines)} }}"""
    proto = onnx.parser.parse_model(text)
    for name, weight in zip(names, weights, strict=True):
        proto.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), name))
    return from_proto(proto)


def kept_shares(model: Model, budget: Budget, *, by="magnitude", round_to=1, **limits):
    units = find_units(model)
    keep = rank_by_budget(model, units, budget, by=by, limits=Limits(round_to=round_to, **limits), seed=0)
    return [float(keep[group.start : group.start + group.count].mean()) for group in units.groups]


def test_a_norm_counts_what_writes_a_unit_and_what_reads_it_alike():
    writes, reads = np.ones((4, 3)), np.ones((3, 2))
    writes[:, 1] = 0.1
    reads[2, :] = 0.1
    model = dense_chain(writes, 1000 * reads)
    found = score(model, find_units(model), by="magnitude", seed=0)
    assert found.sum() == pytest.approx(1.0)
    assert found[0] > found[1]
    assert found[1] == pytest.approx(found[2])  # though the readers are a thousand times larger


def test_a_weight_that_is_scaled_changes_no_plan():
    generator = np.random.default_rng(0)
    weights = [generator.standard_normal(shape) for shape in ((6, 20), (20, 30), (30, 4))]
    plain, scaled = dense_chain(*weights), dense_chain(weights[0] * 50, weights[1] / 50, weights[2] * 7)
    units = find_units(plain)
    keeps = [
        rank_by_budget(model, units, Budget(params=0.5), by="magnitude", limits=Limits(), seed=0)
        for model in (plain, scaled)
    ]
    np.testing.assert_array_equal(*keeps)


def test_weights_of_nothing_rank_all_units_alike():
    model = dense_chain(np.zeros((4, 5)), np.zeros((5, 2)))
    units = find_units(model)
    np.testing.assert_allclose(score(model, units, by="magnitude", seed=0), np.full(5, 0.2))
    assert rank_by_ratio(model, units, 0.4, by="magnitude", limits=Limits(), seed=0).sum() == 3


def test_units_of_little_norm_go_first_and_their_group_shrinks_further():
    generator = np.random.default_rng(0)
    weights = [generator.standard_normal(shape) for shape in ((20, 20), (20, 20), (20, 20))]
    weights[0][:, 5:] *= 0.01
    weights[1][5:, :] *= 0.01
    weak, strong = kept_shares(dense_chain(*weights), Budget(params=0.4))
    assert weak == pytest.approx(0.25)
    assert strong > 0.6


@pytest.mark.parametrize(("share", "least"), [(0.7, 0.6), (0.5, 0.45), (0.33, 0.3)])
def test_no_group_of_a_residual_network_is_eaten_while_others_are_whole(share, least):
    model = load(need_shared("models/resnet20_cifar10.onnx"))
    shares = kept_shares(model, Budget(macs=share))
    assert least <= min(shares) <= max(shares) < 0.95


@pytest.mark.parametrize("by", ["magnitude", "random"])
@pytest.mark.parametrize(
    "name", ["torch_dynamo_mobilenet_v2", "torch_dynamo_resnet_bottleneck", "keras_mobilenet", "paddle_resnet"]
)
def test_at_half_of_the_cost_every_group_keeps_a_fifth(name, by):
    assert min(kept_shares(load(ZOO / f"{name}.onnx"), Budget(macs=0.5), by=by)) > 0.2


def test_a_tenth_of_every_group_stays_unless_the_budget_or_the_user_says_otherwise():
    generator = np.random.default_rng(0)
    model = dense_chain(*(generator.standard_normal(shape) for shape in ((20, 40), (40, 40), (40, 20))))
    # A tenth of both: 20 * 4 + 4 * 4 + 4 * 20 = 176 parameters.
    assert kept_shares(model, Budget(params=176)) == [0.1, 0.1]
    assert min(kept_shares(model, Budget(params=150))) < 0.1
    assert min(kept_shares(model, Budget(params=0.5), keep_at_least=18)) >= 18 / 40
    with pytest.raises(BudgetError, match="at least 41"):
        kept_shares(model, Budget(params=40))


def test_a_share_of_every_group_leaves_multiples_where_they_are_asked_for() -> None:
    model = dense_chain(np.random.default_rng(0).standard_normal((4, 40)), np.ones((40, 2)))
    units = find_units(model)
    for ratio, expected in ((0.3, 24), (0.0, 40), (0.7, 8), (0.9, 4)):
        keep = rank_by_ratio(model, units, ratio, by="magnitude", limits=Limits(round_to=8), seed=0)
        assert keep.sum() == expected
