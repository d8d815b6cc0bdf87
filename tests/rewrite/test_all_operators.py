"""Networks of all operators: each block alone and many of them at random are pruned, and every law holds.

``pytest tests/rewrite/test_all_operators.py --networks 5000`` tries more random ones.
"""

from collections import Counter

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxadmm.graph.model import load
from onnxadmm.graph.runtime import open_session
from onnxadmm.operators.table import ruled_operators
from tests.graphs import features, feeds
from tests.graphs.checking import check
from tests.graphs.operators.mixed import OPSETS, mixed_graph, mixed_graphs, single
from tests.graphs.operators.registry import Block, all_blocks
from tests.graphs.operators.sampled import sample_block
from tests.rewrite.sweep import hold, writes_free_units

#: Networks per block: fixed and free batch, and other kinds of port.
SEEDS = (0, 1)


def operators_of(model: onnx.ModelProto) -> set[str]:
    return {f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in model.graph.node}


def test_every_operator_of_the_rule_table_is_reached_by_a_block() -> None:
    reached = set().union(*(block.operators for block in all_blocks()))
    ruled = {f"{rule.domain}.{rule.name}" if rule.domain else rule.name for rule in ruled_operators()}
    assert sorted(ruled - reached) == []


@pytest.mark.parametrize(
    ("name", "domain"), [("Elu", ""), ("LayerNormalization", ""), ("Concat", ""), ("BiasGelu", "com.microsoft")]
)
def test_an_operator_without_a_block_has_its_sample_as_one(name: str, domain: str) -> None:
    made = sample_block(name, domain)
    assert made.name not in {block.name for block in all_blocks()}  # it has a block of its own
    for seed in SEEDS:
        original = single(made, seed)
        assert made.operators <= operators_of(original)
        assert hold(original, seed=seed).removed


@pytest.mark.parametrize("block", all_blocks(), ids=lambda block: block.name)
def test_a_block_alone_is_pruned_exactly(block: Block) -> None:
    """Its operators are there, the layer in front of it loses units, and every law holds."""
    for seed in SEEDS:
        original = single(block, seed)
        assert block.operators <= operators_of(original)
        case = hold(original, seed=seed)
        assert writes_free_units(case.units, first_weight(original)), case.units.locked


def first_weight(model: onnx.ModelProto) -> str:
    """The weight of the layer right behind the input."""
    return next(str(tensor.name) for tensor in model.graph.initializer if tensor.name.startswith("first_"))


@pytest.mark.slow
def test_random_networks_are_pruned_exactly(networks: int) -> None:
    broken: dict[int, str] = {}
    seen: Counter[str] = Counter()
    lost = 0
    for seed in range(networks):
        original = mixed_graph(seed)
        try:
            case = hold(original, seed=seed)
        except Exception as error:  # whatever it is, the seed that shows it is wanted
            broken[seed] = f"{type(error).__name__}: {error}"
            continue
        lost += case.removed > 0
        seen.update(features(original))
    assert broken == {}
    assert lost >= 0.7 * networks
    drawn = {block for block in all_blocks() if block.opsets[1] >= min(OPSETS)}
    shown = {block for block in drawn if seen[f"block {block.name}"]}
    assert len(shown) >= 0.9 * len(drawn), sorted(block.name for block in drawn - shown)
    assert {"symbolic batch", "fixed batch", "two inputs", "second output", "embedding of an input"} <= set(seen)
    assert {"residual around a block", "join around a block", "shared weight", "initializers listed as inputs"} <= set(
        seen
    )


@pytest.mark.slow
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(original=mixed_graphs(), seed=st.integers(0, 2**16))
def test_drawn_networks_are_pruned_exactly(original: onnx.ModelProto, seed: int) -> None:
    hold(original, seed=seed)


@pytest.mark.slow
def test_random_networks_are_valid_run_and_stay_finite() -> None:
    for seed in range(60):
        model = mixed_graph(seed)
        check(model)
        with open_session(load(model), as_written=True) as session:
            for name, output in session.run(feeds(model)).items():
                assert np.isfinite(output).all(), f"seed {seed}: {name}"


def test_the_same_seed_gives_the_same_network_and_another_seed_another() -> None:
    once = [mixed_graph(seed).SerializeToString(deterministic=True) for seed in range(20)]
    assert once == [mixed_graph(seed).SerializeToString(deterministic=True) for seed in range(20)]
    assert len(set(once)) == len(once)
