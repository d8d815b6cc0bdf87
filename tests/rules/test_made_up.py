"""Whoever has an operator of their own can say what is to be known of it: by the public methods alone, and exactly."""

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnxadmm.graph.model import to_proto
from onnxadmm.rules.edit import Edit
from onnxadmm.rules.table import LabelFunction, RewriteFunction
from onnxadmm.rules.visit import Visit
from onnxadmm.units.cost import Cost
from tests.graphs import feeds
from tests.rewrite import laws
from tests.rewrite.laws import Array, Case
from tests.rewrite.plans import KINDS, random_keep
from tests.rules.made_up import (
    COMPUTED,
    NETWORKS,
    block_sum,
    product_with_bias,
    registered,
    rewrite_blocks,
    rewrite_size,
    shuffle_blocks,
)


def pruned(name: str, kind: str, *, seed: int = 1) -> Case:
    original = NETWORKS[name].model()
    model, units = laws.units_of(original)
    return laws.prune(original, model, units, random_keep(units, seed=seed, kind=kind))


def run(model: onnx.ModelProto, case: Case) -> list[Array]:
    evaluator = ReferenceEvaluator(model, new_ops=COMPUTED)
    return [np.asarray(output) for output in evaluator.run(None, feeds(case.original, batch=3, seed=2))]


def agrees(case: Case) -> bool:
    return laws.agree(run(to_proto(case.masked), case), run(to_proto(case.shrunk), case))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_shrunk_network_computes_what_the_masked_original_computes(name: str, kind: str) -> None:
    with registered():
        case = pruned(name, kind)
        assert {group.name: group.count for group in case.units.groups} == NETWORKS[name].groups
        assert agrees(case)
        assert case.removed or kind in ("random", "first stays", "last stays")
        laws.law_signature_is_unchanged(case)
        laws.law_record_says_what_was_removed(case)


@pytest.mark.parametrize("name", NETWORKS)
def test_without_a_rule_the_operator_locks_what_it_touches(name: str) -> None:
    _, units = laws.units_of(NETWORKS[name].model())
    reason = f"no rule for {NETWORKS[name].operator}"
    assert any(group.reason.startswith(reason) for group in units.locked), units.locked


def test_a_locked_axis_is_named_with_the_reason_that_the_rule_gives() -> None:
    with registered():
        _, units = laws.units_of(NETWORKS["maximum over features"].model())
    assert [group.reason for group in units.locked if group.name == "W1"] == [
        "RunningMaximum (h) compares positions along it"
    ]


def test_the_cost_of_a_product_is_that_of_what_is_left() -> None:
    with registered():
        case = pruned("two products", "random")
    first, second = (int(case.keep[group.start : group.start + group.count].sum()) for group in case.units.groups)
    assert (first, second) != (5, 7)
    assert Cost(case.units, "macs").total(case.keep) == pytest.approx(6 * first + first * second + second * 2)
    assert Cost(case.units, "params").total(case.keep) == pytest.approx(7 * first + first * second + 3 * second)


def test_every_block_keeps_equally_many() -> None:
    with registered():
        case = pruned("sums of blocks", "random")
    (group,) = case.units.groups
    assert group.block_count == 3
    (node,) = [node for node in to_proto(case.shrunk).graph.node if node.op_type == "BlockSum"]
    assert node.attribute[0].i == int(case.keep.sum()) // 3 < 4


def forgets_the_bias(visit: Visit) -> None:
    data, weight = visit.operand(0), visit.operand(1)
    visit.tie(data.axes[-1], weight.axes[0])
    visit.mark_reader(weight, 0)
    visit.operand(2)
    visit.set_result([*data.axes[:-1], weight.axes[1]])


def forgets_to_move_labels(visit: Visit) -> None:
    shuffle_blocks(visit)
    visit.set_result(visit.operand(0).axes)


def rewrites_nothing(edit: Edit) -> None:
    pass


def never_reads(visit: Visit) -> None:
    visit.mark_reader = lambda weight, axis: None  # type: ignore[method-assign]
    product_with_bias(visit)


def never_balances(visit: Visit) -> None:
    visit.balance = lambda blocks: None  # type: ignore[method-assign]
    block_sum(visit)


@pytest.mark.parametrize(
    ("name", "label", "rewrite"),
    [
        ("two products", forgets_the_bias, None),
        ("two products", never_reads, None),
        ("sums of blocks", never_balances, rewrite_size),
        ("sums of blocks", block_sum, rewrites_nothing),
        ("shuffled blocks", forgets_to_move_labels, rewrite_blocks),
        ("shuffled blocks", shuffle_blocks, rewrites_nothing),
    ],
)
def test_a_wrong_rule_is_found(name: str, label: LabelFunction, rewrite: RewriteFunction | None) -> None:
    def is_found(kind: str) -> bool:
        try:
            return not agrees(pruned(name, kind))
        except ValueError:  # numpy refuses shapes that do not fit
            return True

    with registered(**{NETWORKS[name].operator: (label, rewrite)}):
        assert any(is_found(kind) for kind in KINDS)
