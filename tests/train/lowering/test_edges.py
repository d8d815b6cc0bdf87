"""Forms in which an engine, a runtime or the converter of operator sets differs from what it does with all others."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.train.cases import Case, check, ints, op
from tests.train.graphs import Array, random
from tests.train.lowering.test_table import ONES, PLANE, recurrent

pytestmark = pytest.mark.usefixtures("engine")

TURNS = np.array([[True], [False], [True]])


def pooled_over_the_edge(kernel: int, stride: int, before: int, after: int, size: int = 6, opset: int = 17) -> Case:
    """Windows that count padding and reach beyond it."""
    window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [before, before, after, after]}
    node = op("AveragePool", **window, ceil_mode=1, count_include_pad=1)
    return Case([node], (2, size, size), opset=opset, exact=False)


def over_no_axes(operator: str) -> Case:
    """A reduction over no axes; runtimes and ONNX's reference do not agree on what that is."""
    node = op(operator, "axes", noop_with_empty_axes=1)
    return Case([node], PLANE, {"axes": ints()}, 18, exact=False)


def resized_before_11(operator: str, *scales: float, opset: int = 10, mode: str = "linear") -> Case:
    """Resized by an operator that could not say which places it reads."""
    return Case([op(operator, "s", mode=mode)], PLANE, {"s": np.array([1, 1, *scales], np.float32)}, opset, exact=False)


def memory_of(layer: Case) -> Case:
    """The same LSTM, of which only the last memory is read."""
    transposed, node = layer.nodes[:2]
    del node.output[:]
    node.output.extend(["", "", "Yc"])
    return replace(layer, nodes=[transposed, node, helper.make_node("Transpose", ["Yc"], ["y"], perm=[1, 0, 2])])


def chosen(condition: Array, first: str, second: str, *more: onnx.NodeProto, **constants: Array) -> Case:
    """A Where that repeats a branch along axes of its condition, or of the other branch."""
    return Case([*more, helper.make_node("Where", ["c", first, second], ["y"])], (1, 4), {"c": condition, **constants})


def split(*further: onnx.NodeProto, outputs: str = "a b c", opset: int = 17, **attributes: Any) -> Case:
    """Three pieces, from some of which no gradient comes back."""
    more = {} if attributes else {"sizes": ints(2, 3, 2)}
    return Case([op("Split", *more, outputs=outputs.split(), axis=-1, **attributes), *further], (4, 7), more, opset)


CASES: dict[str, list[Case]] = {
    "AveragePool": [
        pooled_over_the_edge(3, 2, 1, 1),
        pooled_over_the_edge(3, 2, 1, 1, opset=19),
        pooled_over_the_edge(2, 2, 1, 0),
        pooled_over_the_edge(4, 3, 1, 1),
        pooled_over_the_edge(3, 3, 0, 1, size=7),
        pooled_over_the_edge(4, 3, 2, 1, size=8),
    ],
    "GRU": [recurrent("GRU", direction="reverse", initial=True, lengths=[0, 2, 5])],
    "LSTM": [
        recurrent("LSTM", direction="bidirectional", initial=True, lengths=[5, 0, 3]),
        recurrent("LSTM", input_forget=1, peepholes=True),
        memory_of(recurrent("LSTM")),
        memory_of(recurrent("LSTM", direction="bidirectional", lengths=[5, 1, 3])),
    ],
    "Pow": [
        Case([op("Pow", "k")], (1, 4), {"k": ints(1, 3, 2).reshape(3, 1)}),
        Case([op("Exp", outputs=["e"]), helper.make_node("Pow", ["e", "k"], ["y"])], (1, 4), {"k": random([3, 4])}),
    ],
    "Reduce": [over_no_axes(operator) for operator in ("ReduceL1", "ReduceL2", "ReduceSumSquare")],
    "Resize": [
        resized_before_11("Resize", 2, 0.6),
        resized_before_11("Resize", 1.7, 1.3, mode="nearest"),
        resized_before_11("Resize", 0.6, 0.8, mode="nearest"),
    ],
    "Split": [
        split(outputs="y b c"),
        split(helper.make_node("Mul", ["a", "c"], ["y"])),
        split(helper.make_node("Sign", ["c"], ["s"]), helper.make_node("Mul", ["a", "s"], ["y"])),
        split(helper.make_node("Mul", ["a", "b"], ["y"]), num_outputs=3, opset=18),
    ],
    "Upsample": [
        resized_before_11("Upsample", 2, 3, opset=9),
        resized_before_11("Upsample", 1.7, 1.3, opset=9, mode="nearest"),
        Case([op("Upsample", scales=[1.0, 1.0, 2.0, 2.5], mode="linear")], PLANE, opset=7, exact=False),
    ],
    "Where": [
        chosen(TURNS, "h", "k", k=ONES[:1]),
        chosen(TURNS, "k", "h", k=ONES[:1]),
        chosen(TURNS, "t", "h", op("ReduceMean", axes=[2], outputs=["t"])),
        chosen(np.tile(TURNS, 4), "h", "k", k=random([3, 4])),
    ],
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{name}-{at}") for name, cases in CASES.items() for at, case in enumerate(cases)]
)
def test_form_has_the_values_of_the_installed_runtime_and_the_right_gradient(case: Case) -> None:
    check(case)
