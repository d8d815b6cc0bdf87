"""Query and key of lower rank: against the truncated decomposition of the product, and through whole networks."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import onnxadmm as oa
from onnxadmm.calibrate.choose import choose
from onnxadmm.calibrate.distance import Goal, Outlook
from onnxadmm.calibrate.effort import EFFORTS
from onnxadmm.calibrate.moments import Moments
from onnxadmm.calibrate.narrowing import best_bases, narrow
from onnxadmm.calibrate.network import Network
from onnxadmm.calibrate.refit import refit
from onnxadmm.graph.constants import with_constants
from onnxadmm.graph.model import Model
from onnxadmm.plan.problem import state_problem
from onnxadmm.plan.rank import score
from onnxadmm.rewrite.gates import open_gates
from onnxadmm.rewrite.mask import mask
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.rewrite.verify import verify
from onnxadmm.units.units import find_units
from tests.calibrate.networks import batches, network, squares

Array = NDArray[Any]
SIZE = 12
EFFORT = EFFORTS["normal"]


def attention(scores: str = "q = Add (q0, bq)\n t = Transpose <perm = [0, 2, 1]> (k)\n s0 = MatMul (q, t)") -> Model:
    """Attention of one head, x being a layer of 20 hidden units.

    Args:
        scores: lines that compute ``s0`` of ``q0`` and ``k``.
    """
    constants: Mapping[str, Array] = {
        **{name: np.linspace(-1, 1, SIZE).astype(np.float32) for name in ("bq", "bk", "scales")},
        "c": np.array(0.3, np.float32),
    }
    return network(
        f"""g (float[N,10,16] x) => (float[N,10,3] y) {{
            h0 = MatMul (x, wh) h = Relu (h0)
            q0 = MatMul (h, wq)
            k0 = MatMul (h, wk) k = Add (k0, bk)
            v = MatMul (h, wv)
            {scores}
            s = Mul (s0, c) p = Softmax <axis = -1> (s) o = MatMul (p, v)
            y = MatMul (o, wo)
        }}""",
        {"wh": [16, 20], "wq": [20, SIZE], "wk": [20, SIZE], "wv": [20, 8], "wo": [8, 3]},
        constants=constants,
    )


@pytest.mark.parametrize("rank", [1, 4, 11, 12])
@pytest.mark.parametrize("low", [False, True])
def test_no_other_product_of_that_rank_is_nearer(rank: int, low: bool) -> None:
    generator = np.random.default_rng(rank)
    q, k = (generator.standard_normal((size, 12)) @ generator.standard_normal((12, 12)) for size in (40, 30))
    if low:  # the product itself has no more than five
        q = q[:, :5] @ generator.standard_normal((5, 12))
    left, right = best_bases(q.T @ q, k.T @ k, rank)
    values = np.linalg.svd(q @ k.T, compute_uv=False)
    found = np.square(q @ k.T - (q @ left) @ (k @ right).T).sum()
    assert found == pytest.approx(np.square(values[rank:]).sum(), rel=1e-6, abs=1e-9 * np.square(values).sum())


def test_offsets_take_part_in_the_product() -> None:
    model = attention()
    net = Network(model, find_units(model))
    ((start, pair),) = net.pairs.items()
    assert {layer.weight for layer in pair.layers} == {"wq", "wk"}
    rows = np.random.default_rng(0).standard_normal((1, 60, 20)).astype(np.float32) + 1.0
    keep = np.ones(net.units.count, np.bool_)
    keep[start + 5 : start + SIZE] = False
    fits = [(net.matrix(layer), np.zeros((1, SIZE))) for layer in pair.layers]
    constants = narrow(net, pair, fits, [Moments.of(rows)] * 2, keep)
    for name in ("wq", "wk"):
        assert not constants[name][:, 5:].any()
        assert not constants[f"b{name[1]}"][5:].any()
        assert constants[f"b{name[1]}"][:5].all()

    def product(values: Mapping[str, Array]) -> Array:
        q, k = (rows[0] @ values[f"w{part}"] + values[f"b{part}"] for part in "qk")
        return np.asarray(q @ k.T)

    biases = {f"b{part}": np.linspace(-1, 1, SIZE) for part in "qk"}
    whole = product({**{layer.weight: net.matrix(layer)[0] for layer in pair.layers}, **biases})
    best = np.square(np.linalg.svd(whole, compute_uv=False)[5:]).sum()
    assert np.square(product(constants) - whole).sum() == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize(
    "scores",
    [
        "q = Add (q0, bq)\n k1 = Mul (k, scales)\n t = Transpose <perm = [0, 2, 1]> (k1)\n s0 = MatMul (q, t)",
        "q = Add (q0, bq)\n q1 = Relu (q)\n t = Transpose <perm = [0, 2, 1]> (k)\n s0 = MatMul (q1, t)",
        "t = Transpose <perm = [0, 2, 1]> (k)\n s1 = MatMul (q0, t)\n m = ReduceSum (q0, last)\n s0 = Add (s1, m)",
    ],
    ids=["a factor for each unit", "an activation between", "a second reader"],
)
def test_what_is_more_than_a_product_is_no_pair(scores: str) -> None:
    model = attention(scores.replace("ReduceSum (q0, last)", "ReduceMean <axes = [2]> (q0)"))
    assert not Network(model, find_units(model)).pairs


def test_a_pair_is_chosen_fitted_and_cut_exactly() -> None:
    model = attention()
    units, feeds = find_units(model), batches(model)
    losses = []
    (start,) = Network(model, units).pairs
    stated = state_problem(model, units, oa.Budget(macs=0.8), oa.Limits(round_to=1))
    groups = [group if group.start == start else replace(group, keep_at_most_removed=0) for group in stated.groups]
    problem = replace(stated, groups=tuple(groups))
    for narrows in (True, False):
        net = Network(model, units, narrows=narrows)
        distance = Outlook(Goal(open_gates(model, units), feeds, squares), threads=1, room=10**9)
        (choice,) = choose(net, problem, feeds, score(model, units, by="magnitude", seed=0), distance, EFFORT)
        keep = choice(problem.budget)
        fitted = refit(net, keep, feeds, EFFORT)
        whole = with_constants(model, fitted.constants)
        found = verify(mask(whole, units, keep), shrink(whole, units, keep), feeds[:1])
        assert found.passed, found.first_difference
        losses += distance([net.without_units(fitted.constants, keep)])
    assert 1 < keep[start : start + SIZE].sum() < SIZE - 3
    assert losses[0] < 0.8 * losses[1]


def test_with_nothing_else_gone_its_loss_is_that_of_its_curve() -> None:
    model = attention()
    units, feeds = find_units(model), batches(model)
    net = Network(model, units)
    (start,) = net.pairs
    distance = Outlook(Goal(open_gates(model, units), feeds, squares), threads=1, room=10**9)
    keep, others = np.ones(units.count, np.bool_), np.ones(units.count, np.bool_)
    keep[start + 3 : start + SIZE] = False
    others[start : start + SIZE - 3] = False  # which of them stay is all one
    found = distance([net.without_units(refit(net, each, feeds, EFFORT).constants, each) for each in (keep, others)])
    assert found[0] == pytest.approx(found[1], rel=1e-3)
    assert found[0] < 0.7 * distance([net.without_units({}, keep)])[0]
