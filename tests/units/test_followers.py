"""Channels that nobody chooses: they go with the last of their columns, and cost what is written."""

from typing import get_args

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxadmm.errors import OptionError
from onnxadmm.graph.model import load, to_proto
from onnxadmm.plan.problem import Limits, state_problem
from onnxadmm.rewrite.shrink import shrink
from onnxadmm.units.columns import with_columns
from onnxadmm.units.cost import Cost, CountKind
from onnxadmm.units.units import Units, find_units
from tests.rewrite import laws
from tests.rewrite.plans import KINDS, random_keep
from tests.samples_text import parse_sample
from tests.units.flattened import CONV, HEAD, LAWS, prepared, sample


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
