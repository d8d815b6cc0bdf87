"""Forms in which an engine, a runtime or the converter of operator sets differs from what it does with all others."""

import pytest

from tests.train.cases import Case, check, ints, op
from tests.train.lowering.test_table import PLANE

pytestmark = pytest.mark.usefixtures("engine")


def pooled_over_the_edge(kernel: int, stride: int, before: int, after: int, size: int = 6, opset: int = 17) -> Case:
    """Windows that count padding and reach beyond it."""
    window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [before, before, after, after]}
    node = op("AveragePool", **window, ceil_mode=1, count_include_pad=1)
    return Case([node], (2, size, size), opset=opset, exact=False)


def over_no_axes(operator: str) -> Case:
    """A reduction over no axes; runtimes and ONNX's reference do not agree on what that is."""
    node = op(operator, "axes", noop_with_empty_axes=1)
    return Case([node], PLANE, {"axes": ints()}, 18, exact=False)


CASES: dict[str, list[Case]] = {
    "AveragePool": [
        pooled_over_the_edge(3, 2, 1, 1),
        pooled_over_the_edge(3, 2, 1, 1, opset=19),
        pooled_over_the_edge(2, 2, 1, 0),
        pooled_over_the_edge(4, 3, 1, 1),
        pooled_over_the_edge(3, 3, 0, 1, size=7),
        pooled_over_the_edge(4, 3, 2, 1, size=8),
    ],
    "Reduce": [over_no_axes(operator) for operator in ("ReduceL1", "ReduceL2", "ReduceSumSquare")],
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{name}-{at}") for name, cases in CASES.items() for at, case in enumerate(cases)]
)
def test_form_has_the_values_of_the_installed_runtime_and_the_right_gradient(case: Case) -> None:
    check(case)
