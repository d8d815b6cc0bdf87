"""Random networks, random plans: the masked original and the shrunk model are the same function, and more laws."""

from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import count, islice

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxadmm.rewrite.verify import verify
from onnxadmm.units.units import Group
from tests.graphs import features, feeds, graphs, random_graph
from tests.rewrite import laws
from tests.rewrite.laws import Case
from tests.rewrite.plans import KINDS, random_keep
from tests.samples_text import load_sample, sample_names
from tests.shared import need_shared

GRAPHS = 200
#: Operators of an opset that the oldest supported onnxruntime does not run.
TOO_NEW = {name for name in sample_names() if load_sample(name).opset_import[0].version > 21}

#: Operators through which at least one random graph must really lose units.
SHRUNK_THROUGH = {
    *("Conv", "Gemm", "MatMul", "BatchNormalization", "Add", "Sub", "Mul", "Div", "Clip", "PRelu"),
    *("Relu", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Selu", "Softplus", "HardSigmoid", "HardSwish", "Erf", "Abs"),
    *("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "ReduceMean"),
    *("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Concat", "Identity", "Dropout", "Cast", "Pad"),
    *("Slice", "Split"),
}
#: Combinations that at least one random graph that loses units must contain.
SHRUNK_WITH = {
    *("grouped Conv", "depthwise Conv with multiplier 1", "depthwise Conv with multiplier 2", "Conv 1-D", "Conv 3-D"),
    *("residual", "padded shortcut", "inverted bottleneck", "squeeze and excite", "concatenated branches"),
    *("flatten by channels last", "flatten by two steps", "features folded back into an image", "channel shuffle"),
    *("tokens", "gated halves by Split", "gated halves by Slice", "shared weight", "shared shape constant"),
    *("weight behind Identity", "weight behind Transpose", "constant node", "initializers listed as inputs"),
    *("com.microsoft.QuickGelu", "second output", "two inputs", "channels-last input", "spatial gate", "auto_pad"),
}


@cache
def case_of(seed: int) -> Case | None:
    """A random network under a random plan; None where all of it is locked."""
    original = random_graph(seed)
    model, units = laws.units_of(original)
    if not units.count:
        return None
    keep = random_keep(units, seed=seed, kind=KINDS[seed % len(KINDS)])
    return laws.prune(original, model, units, keep)


def cases() -> list[tuple[int, Case]]:
    found = ((seed, case_of(seed)) for seed in range(GRAPHS))
    return [(seed, case) for seed, case in found if case is not None]


@pytest.mark.slow
def test_most_random_networks_can_shrink_and_most_of_those_do() -> None:
    assert len(cases()) >= 0.75 * GRAPHS
    assert sum(case.removed > 0 for _, case in cases()) >= 0.65 * GRAPHS


@pytest.mark.slow
def test_units_are_removed_through_every_operator_of_convolutional_networks() -> None:
    crossed: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for seed in count():
        case = case_of(seed)
        if case is not None and case.removed:
            seen.update(features(case.original))
            crossed.update(shrinking_operators(case))
        missing = (SHRUNK_THROUGH - set(crossed)) | (SHRUNK_WITH - set(seen))
        if seed >= GRAPHS or not missing:
            break
    assert sorted(missing) == []


def shrinking_operators(case: Case) -> set[str]:
    """Types of the nodes that have an operand and a result with fewer positions than before."""
    found = set()
    for node in case.original.graph.node:
        sides = [
            any(axes is not None for name in names for axes in case.units.positions(name, case.keep) or ())
            for names in (node.input, node.output)
        ]
        if all(sides):
            found.add(node.op_type)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "law",
    [
        laws.law_masked_equals_shrunk,
        laws.law_shrunk_is_valid,
        laws.law_face_is_unchanged,
        laws.law_record_says_what_was_removed,
        laws.law_masked_differs_only_in_zeros,
        laws.law_removed_units_cannot_be_seen,
        laws.law_shrunk_runs_optimised,
        laws.law_cost_is_counted_on_the_shrunk_graph,
    ],
    ids=lambda law: law.__name__.removeprefix("law_"),
)
def test_law(law: Callable[[Case], object]) -> None:
    broken: dict[int, str] = {}
    for seed, case in cases():
        try:
            law(case)
        except (AssertionError, onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
            broken[seed] = str(error)
    assert broken == {}


@pytest.mark.slow
def test_an_independent_evaluator_sees_the_same_function() -> None:
    witnessed = sum(laws.law_reference_agrees(case) for _, case in cases())
    assert witnessed >= 0.6 * len(cases())


@pytest.mark.slow
def test_the_ratio_is_far_above_the_threshold() -> None:
    ratios = sorted(laws.law_masked_equals_shrunk(case).snr_db for _, case in cases())
    assert ratios[len(ratios) // 20] > 110


@pytest.mark.slow
def test_keeping_everything_changes_nothing_byte_for_byte() -> None:
    for seed in range(60):
        original = random_graph(seed)
        laws.law_nothing_removed_changes_nothing(original, *laws.units_of(original))


@pytest.mark.slow
def test_the_law_of_invisible_units_fails_without_the_mask() -> None:
    caught = 0
    for _, case in islice(((seed, case) for seed, case in cases() if case.removed), 20):
        unmasked = Case(case.original, case.model, case.units, case.keep, case.model, case.shrunk)
        try:
            laws.law_removed_units_cannot_be_seen(unmasked)
        except AssertionError:
            caught += 1
    assert caught >= 15


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operator", [name for name in sample_names() if name not in TOO_NEW])
def test_sample_shrinks_exactly(operator: str, kind: str) -> None:
    original = load_sample(operator)
    held = (
        laws.law_shrunk_is_valid,
        laws.law_face_is_unchanged,
        laws.law_masked_equals_shrunk,
        laws.law_masked_differs_only_in_zeros,
    )
    (case,) = laws.hold(original, *held, kinds=[kind], seeds=[1])
    assert case.units.count, f"nothing in the sample of {operator} may go: {case.units.locked}"


@pytest.mark.parametrize("kind", ["random", "one stays"])
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("lenet5_mnist", [20, 50, 500]),
        # Three residual streams, and one group inside each of the nine blocks.
        ("resnet20_cifar10", [16] * 4 + [32] * 4 + [64] * 4),
        ("resnet20_cifar10_bn", [16] * 4 + [32] * 4 + [64] * 4),
    ],
)
def test_trained_network_shrinks_exactly(name: str, sizes: list[int], kind: str) -> None:
    original = onnx.load(need_shared(f"models/{name}.onnx"))
    held = (
        laws.law_masked_equals_shrunk,
        laws.law_shrunk_is_valid,
        laws.law_face_is_unchanged,
        laws.law_removed_units_cannot_be_seen,
        laws.law_cost_is_counted_on_the_shrunk_graph,
    )
    (case,) = laws.hold(original, *held, kinds=[kind], seeds=[3])
    assert sorted(group.count for group in case.units.groups) == sizes


@pytest.mark.slow
@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(original=graphs(), seed=st.integers(0, 2**16), kind=st.sampled_from(KINDS))
def test_masked_equals_shrunk_for_drawn_networks(original: onnx.ModelProto, seed: int, kind: str) -> None:
    laws.hold(original, laws.law_masked_equals_shrunk, laws.law_shrunk_is_valid, kinds=[kind], seeds=[seed])


@pytest.mark.slow
def test_the_comparison_fails_when_two_units_swap_places() -> None:
    """The shrunk model of another plan of the same size is another function, and the comparison sees it."""
    caught = tried = 0
    for _, case in islice(((seed, case) for seed, case in cases() if case.removed), 30):
        other = case.keep.copy()
        group = next((g for g in case.units.groups if g.blocks is None and 0 < kept_in(case, g) < g.count), None)
        if group is None:
            continue
        span = slice(group.start, group.start + group.count)
        other[span] = np.roll(other[span], 1)
        if (other == case.keep).all():
            continue
        tried += 1
        swapped = laws.prune(case.original, case.model, case.units, other)
        caught += not verify(case.masked, swapped.shrunk, [feeds(case.original)]).passed
    assert tried >= 10
    # A unit that a dead activation hides may be swapped unnoticed.
    assert caught >= 0.85 * tried


def kept_in(case: Case, group: Group) -> int:
    return int(case.keep[group.start : group.start + group.count].sum())
