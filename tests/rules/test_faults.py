"""A wrong rule is found: for each operator a fault is planted and the comparison must see it."""

import onnx
import pytest

from onnxadmm.graph.model import load
from onnxadmm.operators.table import find
from onnxadmm.rules.analyse import analyse
from tests.rewrite import laws
from tests.rules.faults import Fault, caught, not_rewritten, plant, shifted, unlocked, untied
from tests.rules.locking import LOCKING
from tests.rules.variants import PASSING
from tests.samples_text import load_sample, sample_names

NEWEST_RUN_OPSET = 21
#: The result meets its own operand again right behind the operator, which ties what the fault has untied.
RETIED = {
    *("And", "ArgMax", "ArgMin", "ConstantOfShape", "Equal", "Expand", "Greater", "GreaterOrEqual", "IsInf", "IsNaN"),
    *("Less", "LessOrEqual", "Not", "Or", "QuantizeLinear", "Xor"),
}
#: Their results have positions that are all alike: any of them may go.
ALIKE = {"ConstantOfShape", "Expand"}
#: What follows them locks as well.
LOCKED_AGAIN = {"EyeLike", "NonZero"}
#: Cases in which an operator names a size; the samples of these operators have none.
NAMES_SIZES = {
    "ConvTranspose": "depthwise transposed convolution",
    "Resize": "resize to computed sizes",
    "Slice": "slice in the middle",
    "Squeeze": "squeeze of all axes of size one",
    "Tile": "tile of an axis of size one",
    "Expand": "expand of a bias",
    "Shape": "size used as a number",
}


def can_run(operator: str) -> bool:
    return find("", operator).label is not None and load_sample(operator).opset_import[0].version <= NEWEST_RUN_OPSET


def passes(operator: str) -> bool:
    """Tell whether some labels of a result may shrink in the operator's sample."""
    model = load(load_sample(operator))
    facts = analyse(model)
    return any(
        axis is not None and not facts.labels.locked(axis).all()
        for node in model.ir.graph
        if node.op_type == operator
        for output in node.outputs
        for axis in facts.axes.get(output.name or "", ())
    )


OPERATORS = [name for name in sample_names() if can_run(name)]
PASS_ON = [name for name in OPERATORS if passes(name)]
REWRITTEN = [name for name in PASS_ON if find("", name).rewrite is not None]


def count(original: onnx.ModelProto) -> int:
    return laws.units_of(original)[1].count


def test_most_operators_pass_units_on_in_their_sample() -> None:
    assert len(PASS_ON) >= 0.85 * len(OPERATORS)
    assert len(REWRITTEN) >= 10


@pytest.mark.parametrize("operator", PASS_ON)
@pytest.mark.parametrize("fault", [shifted, untied], ids=lambda fault: fault.__name__)
def test_a_wrong_label_is_found(operator: str, fault: Fault) -> None:
    if (fault is untied and operator in RETIED) or operator in ALIKE:
        return
    original = load_sample(operator)
    expected = count(original)
    plant(fault, operator)
    assert caught(original, expected=expected)


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("fault", [shifted, untied], ids=lambda fault: fault.__name__)
def test_a_wrong_label_is_found_beyond_samples(name: str, fault: Fault) -> None:
    original = PASSING[name].model()
    expected = count(original)
    operator = PASSING[name].operator
    plant(fault, operator)
    joined = any(f"z = {join} (h" in PASSING[name].body for join in ("Add", "Mul"))
    retied = operator in ALIKE | {"Tile", "Shape"} or joined
    assert caught(original, expected=expected) or retied


# A mean is rewritten over channels only: see test_summing.
@pytest.mark.parametrize(
    "operator", [name for name in REWRITTEN if name not in ("ReduceMean", "GlobalAveragePool", "Unsqueeze")]
)
def test_a_missing_rewrite_is_found(operator: str) -> None:
    original = PASSING[NAMES_SIZES[operator]].model() if operator in NAMES_SIZES else load_sample(operator)
    plant(not_rewritten, operator)
    assert caught(original)


@pytest.mark.parametrize("name", [name for name in LOCKING if name not in LOCKED_AGAIN])
def test_a_missing_lock_is_found(name: str) -> None:
    original = LOCKING[name].model()
    assert not caught(original, seeds=range(1))
    plant(unlocked, LOCKING[name].operator)
    assert caught(original)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_right_rule_is_not_accused(operator: str) -> None:
    assert not caught(load_sample(operator), seeds=range(1))
