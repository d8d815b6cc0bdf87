"""Columns behind a flattening as units of their own: whichever go, the rest computes what it did without them."""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # it ships no types
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxadmm as oa
from onnxadmm.graph.model import Model, load, to_proto
from onnxadmm.plan.problem import Limits
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.rules.labels import Labels
from onnxadmm.units.columns import about_columns, with_columns
from onnxadmm.units.cost import Cost, CountKind
from onnxadmm.units.units import find_units
from tests.graphs import feeds
from tests.graphs.network import random_graph
from tests.rewrite import laws
from tests.rewrite.plans import KINDS, random_keep
from tests.samples_text import load_sample, parse_sample
from tests.units.flattened import CONV, HEAD, LAWS, WAYS, prepared, sample


def run(proto: onnx.ModelProto, inputs: Mapping[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(inputs))[0])


def gathers(model: Model) -> list[str]:
    return [node.name or "" for node in model.ir.graph if node.op_type == "Gather"]


@pytest.mark.parametrize("way", WAYS)
def test_whichever_columns_go_all_laws_hold(way: str) -> None:
    proto, model, units = prepared(sample(way))
    assert units.columns
    assert any(set(term.axes[0].tolist()) != {-1} for term in units.index_terms)
    for seed in range(6):
        for kind in KINDS:
            case = laws.prune(proto, model, units, random_keep(units, seed=seed, kind=kind))
            for law in LAWS:
                law(case)


@pytest.mark.parametrize("way", ["a Flatten", "channels last, a Transpose and a Reshape"])
def test_the_result_is_the_users_network_with_zeros_in_the_product(way: str) -> None:
    """No mask and no Gather of ours: rows of the weight of the given network are zeroed by hand."""
    given = sample(way)
    _, model, units = prepared(given)
    group = units.group("f_columns")
    assert group is not None
    assert group.count == 96
    for seed in range(4):
        keep = np.ones(units.count, np.bool_)
        columns = np.random.default_rng(seed).random(96) < 0.15
        columns[0] = True
        keep[group.start : group.start + 96] = columns
        by_hand = onnx.ModelProto.FromString(given.SerializeToString())
        (weight,) = (tensor for tensor in by_hand.graph.initializer if tensor.name == "W2")
        array = numpy_helper.to_array(weight) * columns[:, None]
        weight.CopyFrom(numpy_helper.from_array(array.astype(np.float32), "W2"))
        inputs = feeds(given, batch=5, seed=seed)
        small = to_proto(shrink(model, units, keep))
        np.testing.assert_allclose(run(small, inputs), run(by_hand, inputs), rtol=1e-4, atol=1e-5)
        shapes = {tensor.name: tuple(tensor.dims) for tensor in small.graph.initializer}
        assert shapes["W2"] == (columns.sum(), 5)
        spread = columns.reshape(6, 16) if way == "a Flatten" else columns.reshape(16, 6).T
        assert shapes["W1"] == (spread.any(axis=1).sum(), 2, 3, 3)


@pytest.mark.parametrize("way", WAYS)
def test_a_gather_that_picks_all_is_taken_out_again(way: str) -> None:
    given = sample(way)
    _, model, units = prepared(given)
    assert gathers(model)
    whole = shrink(model, units, np.ones(units.count, np.bool_))
    assert not gathers(whole)
    before, after = load(given), to_proto(whole)
    assert after.SerializeToString(deterministic=True) == to_proto(before).SerializeToString(deterministic=True)


def test_whole_channels_leave_no_gather_behind() -> None:
    _, model, units = prepared(sample("a Flatten"))
    keep = np.ones(units.count, np.bool_)
    group = units.group("f_columns")
    assert group is not None
    keep[group.start : group.start + 32] = False
    small = shrink(model, units, keep)
    assert not gathers(small)
    assert {tuple(value.shape or ()) for value in small.ir.graph.initializers.values()} >= {(4, 2, 3, 3), (64, 5)}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_with_picked_columns_is_analysed_as_before(way: str) -> None:
    _, model, units = prepared(sample(way))
    keep = random_keep(units, seed=3)
    small = load(to_proto(shrink(model, units, keep)))
    again = with_columns(small)
    assert gathers(again) == gathers(small)
    assert len(gathers(small)) == len(gathers(model))
    found = find_units(again, features=True)
    counted = {group.name: int(keep[group.start : group.start + group.count].sum()) for group in units.groups}
    left = {group.name.removesuffix("_pruned"): group.count for group in found.groups}
    assert left == {name: count for name, count in counted.items() if count > 1}
    case = laws.prune(to_proto(again), again, found, random_keep(found, seed=4))
    for law in LAWS[:-1]:  # there are two records
        law(case)


@pytest.mark.parametrize("way", WAYS)
def test_without_the_option_such_a_file_is_cut_by_channels(way: str) -> None:
    _, model, units = prepared(sample(way))
    small = to_proto(shrink(model, units, random_keep(units, seed=3)))
    laws.hold(small, *LAWS[:4], seeds=(0, 1))


@pytest.mark.parametrize("operator", ["Conv", "Softmax", "LSTM"])
def test_a_network_without_a_flattening_is_left_as_it_is_and_the_user_is_told(operator: str) -> None:
    model = load(load_sample(operator))
    assert with_columns(model) is model
    assert about_columns(find_units(model, features=True)).startswith("--features changes nothing")


def test_heads_side_by_side_are_no_flattening() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    heads (float[N,5,6] x) => (float[N,5,3] y)
    <float[6,8] W1, float[6,8] W2, float[6,8] W3, float[8,3] W4, int64[4] parted = {0, 5, 2, 4},
    int64[3] joined = {0, 5, 8}> {
        q = MatMul (x, W1)
        k = MatMul (x, W2)
        v = MatMul (x, W3)
        q4 = Reshape (q, parted)
        k4 = Reshape (k, parted)
        v4 = Reshape (v, parted)
        qh = Transpose <perm: ints = [0, 2, 1, 3]> (q4)
        kh = Transpose <perm: ints = [0, 2, 3, 1]> (k4)
        vh = Transpose <perm: ints = [0, 2, 1, 3]> (v4)
        s = MatMul (qh, kh)
        p = Softmax (s)
        o = MatMul (p, vh)
        t = Transpose <perm: ints = [0, 2, 1, 3]> (o)
        j = Reshape (t, joined)
        y = MatMul (j, W4)
    }"""
    model = load(parse_sample(text))
    assert with_columns(model) is model
    picked = parse_sample(text.replace("y = MatMul (j", "g = Gather <axis: int = 2> (j, columns)\ny = MatMul (g"))
    picked.graph.initializer.append(numpy_helper.from_array(np.arange(8), "columns"))
    assert not find_units(load(picked), features=True).columns


def test_a_gather_that_gives_an_output_of_the_model_stays() -> None:
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    columns (float[N,2,8,8] x) => (float[N,3] y, float[N,96] p) <{CONV}, float[96,5] W2, float[5,3] W3> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        f = Flatten (h)
        p = Gather <axis: int = 1> (f, columns)
        t = MatMul (p, W2)
        y = MatMul (t, W3)
    }}"""
    proto = parse_sample(text)
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(96), "columns"))
    model = load(proto)
    units = find_units(model, features=True)
    assert units.columns == ("p",)
    case = laws.prune(proto, model, units, random_keep(units, seed=0))
    laws.law_masked_equals_shrunk(case)
    laws.law_signature_is_unchanged(case)
    laws.law_nothing_removed_changes_nothing(proto, model, units)


def test_what_is_tied_to_positions_that_stay_whatever_goes_stays_as_well() -> None:
    labels = Labels()
    one, other = labels.new(2), labels.new(2)
    labels.lock(one, "columns of its own", firm=False)
    labels.lock(other[:1], "an output")
    assert not labels.firm(one).any()
    labels.tie(one, other)
    assert labels.firm(one).tolist() == [True, False]
    assert labels.locked(one).all()


def test_columns_that_must_stay_leave_the_channels_free() -> None:
    """A normalisation over all columns locks them, and a Gather would only lock the channels as well."""
    text = f"""{CONV}, float[96,3] W2, float[96] positive, float[96] shift> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        f = Flatten (h)
        l = LayerNormalization (f, positive, shift)
        y = MatMul (l, W2)
    }}"""
    locked = load(parse_sample(HEAD + text))
    assert with_columns(locked) is locked
    text = f"""{CONV}, float[128,96] W2, float[96,3] W3> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        f = Flatten (h)
        k = Flatten (x)
        m = MatMul (k, W2)
        s = Softmax (m)
        p = Mul (f, s)
        y = MatMul (p, W3)
    }}"""
    tied = with_columns(load(parse_sample(HEAD + text)))
    assert gathers(tied) == ["k_columns"]


@pytest.mark.slow
def test_random_networks_of_all_operators_hold_all_laws(networks: int) -> None:
    found = 0
    for seed in range(networks // 3):
        given = random_graph(seed)
        model = with_columns(load(given))
        units = find_units(model, features=True)
        if not units.columns or not units.groups:
            continue
        found += 1
        for kind in KINDS[:3]:
            case = laws.prune(to_proto(model), model, units, random_keep(units, seed=seed, kind=kind))
            laws.law_masked_equals_shrunk(case)
            laws.law_cost_is_counted_on_the_shrunk_graph(case)
    assert found >= networks // 60


@pytest.mark.parametrize("budget", [oa.Budget(params=0.3), oa.Budget(macs=0.5, params=0.4), oa.Budget(size=0.6)])
def test_a_plan_meets_its_budget_and_says_what_it_is_of(budget: oa.Budget) -> None:
    given = load(sample("a Flatten"))
    plan = oa.rank(given, budget, features=True)
    assert plan.features
    assert oa.Plan.from_json(plan.to_json()) == plan
    small = oa.shrink(given, plan)
    proof = oa.verify(given, small, plan)
    assert proof.passed
    kinds: tuple[CountKind, ...] = ("params", "macs")
    shares = []
    for kind in kinds:
        whole, left = (Cost(find_units(model), kind).dense() for model in (given, small))
        shares += [left / whole / float(limit)] if (limit := budget.amounts.get(kind)) is not None else []
    assert not shares or 0.7 < max(shares) <= 1
    if budget.size is not None:
        assert len(to_proto(small).SerializeToString()) <= 0.6 * given.file_bytes
    masked = oa.mask(given, plan)
    assert gathers(masked) == ["f_columns"]


def test_counts_of_columns_need_not_fill_vectors() -> None:
    model = with_columns(load(parse_sample(HEAD + WAYS["a Flatten"])))
    units = find_units(model, features=True)
    limits = Limits(round_to=4)
    multiples = {group.name: (group.columns, limits.of(group).multiple) for group in units.groups}
    assert sorted(multiples.values()) == [(False, 4), (True, 1)]


def test_a_sentence_counts_columns_that_are_units() -> None:
    """Two flattenings that are added share their units."""
    model = with_columns(load(parse_sample(HEAD + WAYS["two flattenings that are added"])))
    units = find_units(model, features=True)
    assert about_columns(units).startswith(f"{sum(group.count for group in units.groups if group.columns)} columns ")
