"""Branches of which no unit stays are taken out exactly, wherever they are."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxadmm.units.cost import Cost
from onnxadmm.units.vanishing import emptied, may_vanish
from tests.graphs import random_graph
from tests.graphs.decoder import NORMS, Norm, decoder
from tests.rewrite import laws
from tests.rewrite.plans import without_branches

MODELS = Path(__file__).parents[2] / "benchmarks" / "models"
#: Random networks that have branches which may go; every fourth or so does.
SEEDS = (3, 12, 13, 21, 23, 25, 28, 29, 32, 37, 38, 53, 54, 58, 59, 64, 71, 80, 82, 83, 84, 85, 87, 88, 90, 92, 102)


def hold(original: onnx.ModelProto, seed: int) -> laws.Case:
    """Let branches go, and hold what is left to what holds of every plan."""
    model, units = laws.units_of(original)
    keep = without_branches(model, units, seed=seed)
    assert keep is not None, "no branch may go"
    case = laws.prune(original, model, units, keep)
    laws.law_masked_equals_shrunk(case)
    laws.law_shrunk_is_valid(case)
    laws.law_signature_is_unchanged(case)
    laws.law_removed_units_cannot_be_seen(case)
    laws.law_record_says_what_was_removed(case)
    assert emptied(units, keep)
    law_nothing_costs_more_than_was_counted(case)
    return case


def law_nothing_costs_more_than_was_counted(case: laws.Case) -> None:
    """What a branch alone has read goes with it: a norm in front of it is not counted with its inner units."""
    everything = np.ones_like(case.keep)
    for kind, count in (("macs", laws.count_macs), ("params", laws.count_parameters)):
        cost = Cost(case.units, kind)  # type: ignore[arg-type]  # one of its kinds
        before, after = count(case.model_message), count(case.shrunk_message)
        if before is not None and after is not None:
            saved = before - after + (laws.added_factors(case) if kind == "params" else 0)
            assert saved >= cost.total(everything) - cost.total(case.keep) - 0.5, kind


@pytest.mark.parametrize("seed", SEEDS)
def test_branches_of_random_networks(seed: int) -> None:
    hold(random_graph(seed), seed)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("norm", NORMS)
def test_heads_and_inner_widths_of_a_decoder(norm: Norm, seed: int) -> None:
    original = decoder(norm)
    if norm.startswith("Skip"):  # the sum is inside of another operator
        assert not may_vanish(*laws.units_of(original))
        return
    hold(original, seed)


@pytest.mark.parametrize(
    ("name", "groups", "nodes"),
    [("resnet20", 9, 25), ("mobilenetv2", 6, 26), ("bert_made", 4, 15), ("vit_made", 4, 11)],
)
def test_trained_networks_go_down_to_what_leads_through_them(name: str, groups: int, nodes: int) -> None:
    original = onnx.load(MODELS / f"{name}.onnx")
    model, units = laws.units_of(original)
    vanishing = may_vanish(model, units)
    assert len(vanishing) == groups
    keep = np.ones(units.count, np.bool_)
    for group in units.groups:
        if group.start in vanishing:
            keep[group.start : group.start + group.count] = False
    case = laws.prune(original, model, units, keep)
    laws.law_masked_equals_shrunk(case)
    assert len(case.shrunk_message.graph.node) == nodes
    law_nothing_costs_more_than_was_counted(case)
    if name in ("resnet20", "mobilenetv2"):
        laws.law_cost_is_counted_on_the_shrunk_graph(case)
    hold(original, 1)
