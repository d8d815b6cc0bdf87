"""Shares of connections by pattern: which weights they are of, and what is no such share."""

import numpy as np
import pytest
from onnx import numpy_helper

from onnxadmm.errors import OptionError
from onnxadmm.graph.model import Model, from_proto
from onnxadmm.plan.budget import Budget
from onnxadmm.plan.problem import Limits, UnitCount, refuse_contradictions, state_problem
from onnxadmm.units.units import find_units
from tests.samples_text import parse_sample


@pytest.fixture(scope="module")
def model() -> Model:
    """Three products: of weights W1, W2 and W3, in nodes that are called first, second and third."""
    proto = parse_sample(
        """<ir_version: 8, opset_import: ["" : 17]> net (float[N,6] x) => (float[N,3] y)
        <float[6,8] W1, float[8,10] W2, float[10,3] W3, float[10] B>
        { h = MatMul (x, W1)
          r = Relu (h)
          g = MatMul (r, W2)
          s = Add (g, B)
          q = Relu (s)
          y = MatMul (q, W3) }"""
    )
    named = iter(("first", "second", "third"))
    for node in proto.graph.node:
        if node.op_type == "MatMul":
            node.name = next(named)
    generator = np.random.default_rng(0)
    for tensor in proto.graph.initializer:
        array = generator.standard_normal(tuple(tensor.dims)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return from_proto(proto)


def shares(model: Model, targets: dict[str, float], connections: float | None = None) -> dict[str, float]:
    budget = Budget(params=0.5, connections=connections)
    problem = state_problem(model, find_units(model), budget, Limits(), connection_targets=targets)
    return {name: problem.share_of(name) for name in problem.connections}


@pytest.mark.parametrize(
    ("targets", "connections", "found"),
    [
        ({}, None, (1.0, 1.0, 1.0)),
        ({}, 0.5, (0.5, 0.5, 0.5)),
        ({"W2": 0.1}, None, (1.0, 0.1, 1.0)),
        ({"W2": 0.1}, 0.5, (0.5, 0.1, 0.5)),
        ({"second": 0.1, "W*": 0.2}, None, (0.2, 0.1, 0.2)),
        ({"W*": 0.2, "second": 0.1}, None, (0.2, 0.2, 0.2)),
        ({"?hird": 1.0}, 0.5, (0.5, 0.5, 1.0)),
    ],
)
def test_the_first_pattern_that_matches_a_weight_or_its_layer_counts(
    model: Model, targets: dict[str, float], connections: float | None, found: tuple[float, ...]
) -> None:
    assert tuple(shares(model, targets, connections).values()) == found


def test_a_pattern_that_matches_no_connections_is_refused(model: Model) -> None:
    for pattern in ("conv*", "B"):  # an offset has no connections
        with pytest.raises(OptionError, match=f"--connection-target: expected a pattern.*'{pattern[0]}.*W1, W2, W3"):
            shares(model, {pattern: 0.5})


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_out_of_range_is_refused(model: Model, share: float) -> None:
    with pytest.raises(OptionError, match="--connection-target: expected a share above 0 and at most 1"):
        shares(model, {"W2": share})


def test_one_budget_for_all_layers_has_no_targets_of_connections() -> None:
    targets = {"W2": 0.1}
    refuse_contradictions(None, {}, connection_targets=targets, layer_wise=True)
    with pytest.raises(OptionError, match="--connection-target: expected --data with --mode joint"):
        refuse_contradictions(Budget(params=0.5), {}, connection_targets=targets, layer_wise=False)


@pytest.mark.parametrize(("share", "most"), [(0.52, 9), (0.5, 9), (1.0, 18), (0.1, 1)])
def test_a_share_of_units_is_a_budget_in_which_each_costs_one(model: Model, share: float, most: int) -> None:
    units = find_units(model)
    problem = state_problem(model, units, Budget(connections=0.5), Limits(), unit_share=share)
    assert problem.budget == most
    keep = np.arange(units.count) < 5
    assert problem.cost.total(keep) == 5
    np.testing.assert_array_equal(problem.cost.marginal(keep), UnitCount().marginal(keep))
    np.testing.assert_array_equal(problem.cost.marginal(keep), np.ones(18))
