"""Columns behind a flattening as units of their own: whichever go, the rest computes what it did without them."""

from collections.abc import Mapping
from typing import get_args

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]  # it ships no types
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

import onnxadmm as oa
from onnxadmm.errors import OptionError
from onnxadmm.graph.model import Model, load, to_proto
from onnxadmm.plan.problem import Limits, state_problem
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.rules.labels import Labels
from onnxadmm.units.columns import about_columns, with_columns
from onnxadmm.units.cost import Cost, CountKind
from onnxadmm.units.units import Units, find_units
from tests.graphs import feeds
from tests.graphs.network import random_graph
from tests.rewrite import laws
from tests.rewrite.plans import KINDS, random_keep
from tests.samples_text import load_sample, parse_sample

HEAD = """<ir_version: 8, opset_import: ["" : 17]>
columns (float[N,2,8,8] x) => (float[N,3] y)
<"""
CONV = "float[6,2,3,3] W1, float[6] B1"
WAYS: dict[str, str] = {
    "a Flatten": f"""{CONV}, float[96,5] W2, float[5] B2, float[5,3] W3> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        r = Relu (h)
        f = Flatten (r)
        t = Gemm (f, W2, B2)
        s = Relu (t)
        y = Gemm (s, W3)
    }}""",
    "channels last, a Transpose and a Reshape": f"""{CONV}, float[96,5] W2, float[5,3] W3,
        int64[2] flat = {{-1, 96}}> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        r = Relu (h)
        l = Transpose <perm: ints = [0, 2, 3, 1]> (r)
        f = Reshape (l, flat)
        t = MatMul (f, W2)
        s = Relu (t)
        y = MatMul (s, W3)
    }}""",
    "two products that read one flattening": f"""{CONV}, float[5,96] W2, float[96,5] W3, float[5,3] W4> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        f = Flatten (h)
        t = Gemm <transB: int = 1> (f, W2)
        s = Sigmoid (t)
        u = MatMul (f, W3)
        v = Mul (s, u)
        y = MatMul (v, W4)
    }}""",
    "an activation, a slope for each column and a normalisation between": f"""{CONV}, float[96] slopes,
        float[96] positive1, float[96] shift, float[96] mean, float[96] positive2, float[96,3] W2> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        f = Flatten (h)
        p = PRelu (f, slopes)
        n = BatchNormalization (p, positive1, shift, mean, positive2)
        s = Sigmoid (n)
        y = MatMul (s, W2)
    }}""",
    "two flattenings that are added": f"""{CONV}, float[6,2,3,3] W2, float[96,3] W3> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        g = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W2)
        f = Flatten (h)
        k = Flatten (g)
        a = Add (f, k)
        r = Relu (a)
        y = MatMul (r, W3)
    }}""",
    "two flattenings that are joined": f"""{CONV}, float[4,2,5,5] W2, float[160,3] W3> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        g = Conv (x, W2)
        f = Flatten (h)
        k = Flatten (g)
        a = Concat <axis: int = 1> (f, k)
        r = Relu (a)
        y = MatMul (r, W3)
    }}""",
    "channels that are joined in front of it": f"""{CONV}, float[4,2,3,3] W2, float[160,3] W3> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        g = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W2)
        c = Concat <axis: int = 1> (h, g)
        f = Flatten (c)
        y = MatMul (f, W3)
    }}""",
    "a depthwise convolution and a sum of two in front of it": f"""{CONV}, float[6,2,3,3] W2, float[6,1,3,3] W3,
        float[96,3] W4> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        g = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W2)
        a = Add (h, g)
        d = Conv <group: int = 6, pads: ints = [1, 1, 1, 1]> (a, W3)
        f = Flatten (d)
        y = MatMul (f, W4)
    }}""",
    "a grouped convolution in front of it": f"""{CONV}, float[4,3,3,3] W2, float[64,3] W3> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        g = Conv <group: int = 2, pads: ints = [1, 1, 1, 1]> (h, W2)
        f = Flatten (g)
        y = MatMul (f, W3)
    }}""",
    "a flattening that is read by something else as well": f"""{CONV}, float[96,3] W2, int64[3] rows = {{-1, 3, 32}}> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        f = Flatten (h)
        t = MatMul (f, W2)
        q = Reshape (f, rows)
        u = ReduceMax <axes: ints = [2], keepdims: int = 0> (q)
        y = Add (t, u)
    }}""",
    "a single channel": """float[1,2,3,3] W1, float[16,3] W2> {
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1)
        f = Flatten (h)
        y = MatMul (f, W2)
    }""",
    "an image that is flattened as it comes": """float[128,4] W1, float[4,3] W2> {
        f = Flatten (x)
        h = Gemm (f, W1)
        r = Relu (h)
        y = Gemm (r, W2)
    }""",
}
LAWS = (
    laws.law_masked_equals_shrunk,
    laws.law_shrunk_is_valid,
    laws.law_masked_differs_only_in_zeros,
    laws.law_removed_units_cannot_be_seen,
    laws.law_shrunk_runs_optimised,
    laws.law_cost_is_counted_on_the_shrunk_graph,
    laws.law_record_says_what_was_removed,
)


def sample(way: str) -> onnx.ModelProto:
    return parse_sample(HEAD + WAYS[way])


def prepared(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, Model, Units]:
    """The network with its Gathers, as a message and as it is analysed, and its units."""
    model = with_columns(load(proto))
    return to_proto(model), model, find_units(model, features=True)


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


def test_a_channel_goes_with_the_last_of_its_columns_and_is_told_of() -> None:
    _, model, units = prepared(sample("a Flatten"))
    keep = np.ones(units.count, np.bool_)
    group = units.group("f_columns")
    assert group is not None
    keep[group.start + 16 : group.start + 47] = False  # all of channel 1, and all but the last column of channel 2
    assert units.followers.gone(keep) == {"W1": 1}
    small = to_proto(shrink(model, units, keep))
    shapes = {tensor.name: tuple(tensor.dims) for tensor in small.graph.initializer}
    assert shapes["W1"] == (5, 2, 3, 3)
    assert shapes["B1"] == (5,)
    (lock,) = (lock for lock in units.locked if lock.name == "W1")
    assert lock.reason == "Gather (f_columns) picks its columns, which are units of their own"


def test_each_column_costs_its_channel_where_it_is_the_last_one() -> None:
    _, _, units = prepared(sample("a Flatten"))
    group = units.group("f_columns")
    assert group is not None
    keep = np.ones(units.count, np.bool_)
    keep[group.start + 1 : group.start + 16] = False
    for kind in get_args(CountKind):
        cost = Cost(units, kind)
        for unit in (group.start, group.start + 3, group.start + 20):
            others = keep.copy()
            others[unit] = False
            alone = others.copy()
            alone[unit] = True
            added = cost.total(alone) - cost.total(others)
            assert cost.marginal(keep)[unit] == pytest.approx(added), (kind, unit)
        gone = np.ones(units.count, np.bool_)
        gone[group.start : group.start + group.count] = False
        assert cost.saved(group.start, group.count) == pytest.approx(cost.dense() - cost.total(gone))


@pytest.mark.parametrize("way", ["a Flatten", "channels that are joined in front of it"])
def test_the_first_column_of_channels_that_would_be_none_otherwise_costs_itself_alone(way: str) -> None:
    """One channel of each convolution stays whatever goes, as no axis may be empty."""
    _, _, units = prepared(sample(way))
    group = units.group("f_columns")
    assert group is not None
    for gone in (slice(0, 96), slice(96, None), slice(1, None), slice(0, 95)):
        keep = np.ones(units.count, np.bool_)
        keep[group.start : group.start + group.count][gone] = False
        if not keep[group.start : group.start + group.count].any():
            continue
        for kind in get_args(CountKind):
            cost = Cost(units, kind)
            marginal = cost.marginal(keep)
            for unit in range(group.start, group.start + group.count, 5):
                with_it, without = keep.copy(), keep.copy()
                with_it[unit], without[unit] = True, False
                if without[group.start : group.start + group.count].any():
                    added = cost.total(with_it) - cost.total(without)
                    assert marginal[unit] == pytest.approx(added), (kind, unit, gone)


def test_targets_of_columns_whose_channels_are_of_several_convolutions_are_refused() -> None:
    """What so many columns cost at most is not known: the budget could be missed when all is trained."""
    model, _, units = prepared(sample("channels that are joined in front of it"))
    given = load(model)
    with pytest.raises(OptionError, match=r"--target: expected columns of one flattening"):
        state_problem(given, units, None, Limits(), targets={"f_columns": 0.3})
    assert state_problem(given, units, None, Limits(), targets={"f_columns": 1.0}).keep_counts is not None
    model, _, units = prepared(sample("a Flatten"))
    assert state_problem(load(model), units, None, Limits(), targets={"f_columns": 0.3}).keep_counts is not None


@pytest.mark.parametrize(
    "way", ["a Flatten", "two flattenings that are added", "channels that are joined in front of it"]
)
def test_no_choice_of_as_many_columns_costs_more_than_the_spread_one(way: str) -> None:
    _, _, units = prepared(sample(way))
    cost, spread = Cost(units, "params"), units.followers.spread(units.count)
    (group,) = (group for group in units.groups if group.name.endswith("_columns"))
    for count in (1, 3, 7, 40):
        dearest = np.ones(units.count, np.bool_)
        inside = slice(group.start, group.start + group.count)
        dearest[inside] = False
        dearest[group.start + np.argsort(-spread[inside], kind="stable")[:count]] = True
        for seed in range(20):
            other = dearest.copy()
            other[inside] = np.random.default_rng(seed).permutation(group.count) < count
            assert cost.total(other) <= cost.total(dearest)
        together = dearest.copy()
        together[inside] = np.arange(group.count) < count
        assert count in (1, 40) or cost.total(together) < cost.total(dearest)


def test_what_is_ignored_does_not_follow() -> None:
    model = with_columns(load(sample("a Flatten")))
    units = find_units(model, features=True, ignore=["W1"])
    keep = random_keep(units, seed=0, kind="one stays")
    assert units.followers.count == 0
    shapes = {tensor.name: tuple(tensor.dims) for tensor in to_proto(shrink(model, units, keep)).graph.initializer}
    assert shapes["W1"] == (6, 2, 3, 3)


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


def test_a_channel_stays_with_a_column_that_must() -> None:
    """The user's own Gather, of which three columns are read by more than the product."""
    text = f"""{CONV}, float[96,3] W2, int64[1] one = {{1}}, int64[1] start = {{0}}, int64[1] stop = {{3}}> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        f = Flatten (h)
        p = Gather <axis: int = 1> (f, columns)
        t = MatMul (p, W2)
        q = Slice (p, start, stop, one)
        y = Add (t, q)
    }}"""
    proto = parse_sample(HEAD + text)
    proto.graph.initializer.append(numpy_helper.from_array(np.arange(96), "columns"))
    model = load(proto)
    assert with_columns(model) is model
    units = find_units(model, features=True)
    (group,) = (group for group in units.groups if group.name == "columns")
    assert group.count == 93
    assert sum(count for _, count in units.followers.groups) == 5
    for kind in KINDS:
        case = laws.prune(proto, model, units, random_keep(units, seed=0, kind=kind))
        for law in LAWS:
            law(case)


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


def test_channels_that_something_else_reads_stay_units() -> None:
    """They could not follow their columns, and would stay where they could go."""
    text = f"""{CONV}, float[96,3] W2, float[3,6] W3> {{
        h = Conv <strides: ints = [2, 2], pads: ints = [1, 1, 1, 1]> (x, W1, B1)
        f = Flatten (h)
        t = MatMul (f, W2)
        m = ReduceMean <axes: ints = [2, 3], keepdims: int = 0> (h)
        u = Gemm <transB: int = 1> (m, W3)
        y = Add (t, u)
    }}"""
    model = load(parse_sample(HEAD + text))
    assert with_columns(model) is model


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


def convolutions(seed: int) -> onnx.ModelProto:
    """A network of some convolutions, with what stands between them in practice, and a Flatten of some form."""
    random = np.random.default_rng(seed)
    weights, nodes, channels, size, value = list[str](), list[str](), 2, 8, "x"
    for number in range(int(random.integers(1, 4))):
        width, side = int(random.integers(2, 7)), int(random.choice([1, 3]))
        weights += [f"float[{width},{channels},{side},{side}] W{number}, float[{width}] B{number}"]
        nodes += [f"h{number} = Conv <pads: ints = [{','.join([str(side // 2)] * 4)}]> ({value}, W{number}, B{number})"]
        value, channels = f"h{number}", width
        for step in random.permutation(["Relu", "Sigmoid", "pool", "scale", "twice"])[:2]:
            before, value = value, f"{value}_{step}"
            if step == "pool" and size > 2:
                size //= 2
                nodes += [f"{value} = MaxPool <kernel_shape: ints = [2, 2], strides: ints = [2, 2]> ({before})"]
            elif step == "scale":
                weights += [f"float[{width},1,1] S{number}"]
                nodes += [f"{value} = Mul ({before}, S{number})"]
            elif step == "twice":
                weights += [f"float[{width},{width},1,1] T{number}"]
                nodes += [f"c{number} = Conv ({before}, T{number})", f"{value} = Add ({before}, c{number})"]
            else:
                nodes += [f"{value} = {step if step != 'pool' else 'Tanh'} ({before})"]
    columns = channels * size * size
    if random.random() < 0.5:
        weights += [f"int64[2] flat = {{-1, {columns}}}"]
        nodes += [f"l = Transpose <perm: ints = [0, 3, 2, 1]> ({value})", "f = Reshape (l, flat)"]
    else:
        nodes += [f"f = Flatten ({value})"]
    weights += [f"float[{columns},4] V, float[4,{columns}] U, float[4,3] Z"]
    nodes += ["r = Elu (f)" if random.random() < 0.5 else "r = Identity (f)"]
    nodes += ["t = MatMul (r, V)", "u = Gemm <transB: int = 1> (f, U)", "a = Add (t, u)", "y = MatMul (a, Z)"]
    return parse_sample(f"{HEAD}{', '.join(weights)}> {{ {' '.join(nodes)} }}", seed=seed)


def scattered(units: Units, *, seed: int) -> NDArray[np.bool_]:
    """Which units stay: few columns, so that channels follow, and some of everything else."""
    random = np.random.default_rng(seed)
    keep = np.ones(units.count, np.bool_)
    for group in units.groups:
        share = 0.1 if group.name.endswith("_columns") else 0.7
        stays = random.random(group.count) < share
        stays[random.integers(group.count)] = True
        keep[group.start : group.start + group.count] = stays
    return keep


@pytest.mark.slow
def test_random_convolutions_hold_all_laws_with_channels_that_follow(networks: int) -> None:
    followed = found = 0
    for seed in range(max(10, networks // 10)):
        proto, model, units = prepared(convolutions(seed))
        keep = scattered(units, seed=seed)
        found += bool(units.columns)  # not where a last sum of two reads its channels twice
        followed += bool(units.followers.gone(keep))
        case = laws.prune(proto, model, units, keep)
        for law in LAWS:
            law(case)
    assert found >= 6
    assert followed >= 2


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
