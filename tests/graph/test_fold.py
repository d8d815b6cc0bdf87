"""Folding gives what ONNX's reference implementation gives, and tells dependence truthfully."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from onnxadmm.graph.fold import Known, fold

I = np.array  # noqa: E741  # keeps the table readable

CASES: list[tuple[str, dict[str, Any], list[np.ndarray], int]] = [
    ("Add", {}, [I([1, 2, 3]), I([10])], 17),
    ("Sub", {}, [I([[1], [2]]), I([1, 2, 3])], 17),
    ("Mul", {}, [I([1, 2]), I([3, 4])], 7),
    ("Div", {}, [I([-7, 7, -7, 7, 6]), I([2, 2, -2, -2, 3])], 17),
    ("Div", {}, [I([-7.0, 7.0]), I([2.0, 4.0])], 17),
    ("Neg", {}, [I([1, -2])], 17),
    ("Abs", {}, [I([1, -2])], 17),
    ("Equal", {}, [I([1, 2]), I([1, 3])], 17),
    ("Greater", {}, [I([1, 2]), I([1, 1])], 17),
    ("LessOrEqual", {}, [I([1, 2]), I([1, 1])], 17),
    ("And", {}, [I([True, False]), I([True, True])], 17),
    ("Not", {}, [I([True, False])], 17),
    ("Cast", {"to": 1}, [I([1, 2])], 17),
    ("Cast", {"to": 6}, [I([1.7, -2.7])], 17),
    ("Cast", {"to": 9}, [I([0, 2])], 17),
    ("Concat", {"axis": 0}, [I([1]), I([2, 3]), I([4])], 17),
    ("Concat", {"axis": -1}, [I([[1], [2]]), I([[3, 4], [5, 6]])], 17),
    ("ConstantOfShape", {}, [I([2, 3])], 17),
    ("ConstantOfShape", {"value": helper.make_tensor("v", 7, [1], [5])}, [I([2])], 17),
    ("ConstantOfShape", {"value": helper.make_tensor("v", 7, [1], [5])}, [I([0])], 17),
    ("Expand", {}, [I([[1], [2]]), I([3, 1, 4])], 17),
    ("Gather", {}, [I([4, 5, 6]), I(1)], 17),
    ("Gather", {}, [I([4, 5, 6]), I([-1, 0])], 17),
    ("Gather", {"axis": 1}, [I([[4, 5, 6], [7, 8, 9]]), I([[0, 2]])], 17),
    ("Identity", {}, [I([4, 5, 6])], 17),
    ("Range", {}, [I(0), I(10), I(3)], 17),
    ("Range", {}, [I(10), I(0), I(-4)], 17),
    ("Range", {}, [I(1), I(0), I(1)], 17),
    ("Reshape", {}, [I([1, 2, 3, 4]), I([2, -1])], 17),
    ("Reshape", {}, [I([[1, 2], [3, 4]]), I([0, 2, 1])], 17),
    ("Slice", {}, [I([1, 2, 3, 4]), I([1]), I([3])], 17),
    ("Slice", {}, [I([1, 2, 3, 4]), I([-2]), I([2**63 - 1]), I([0])], 17),
    ("Slice", {}, [I([1, 2, 3, 4]), I([-1]), I([-(2**63)]), I([0]), I([-2])], 17),
    ("Slice", {}, [I([1, 2, 3, 4]), I([3]), I([0]), I([0]), I([-1])], 17),
    ("Slice", {}, [I([[1, 2], [3, 4]]), I([0, 1]), I([1, 2]), I([1, 0]), I([1, 1])], 17),
    ("Slice", {"starts": [1], "ends": [9]}, [I([1, 2, 3, 4])], 9),
    ("Squeeze", {}, [I([[[5]]])], 17),
    ("Squeeze", {}, [I([[[5, 6]]]), I([0])], 17),
    ("Squeeze", {"axes": [1]}, [I([[[5, 6]]])], 11),
    ("Transpose", {}, [I([[1, 2], [3, 4]])], 17),
    ("Transpose", {"perm": [1, 0, 2]}, [I([[[1, 2]], [[3, 4]]])], 17),
    ("Unsqueeze", {}, [I([5, 6]), I([0, 2])], 17),
    ("Unsqueeze", {}, [I([5, 6]), I(-1)], 17),
    ("Where", {}, [I([True, False]), I([1, 2]), I([3, 4])], 17),
    ("ReduceProd", {"keepdims": 0}, [I([2, 3, 4])], 17),
    ("ReduceSum", {}, [I([2, 3, 4]), I([0])], 17),
    ("Max", {}, [I([2, 3, 4]), I([3])], 17),
    ("Mod", {}, [I([-7, 7]), I([3, -3])], 17),
    ("Pow", {}, [I([2, 3]), I([3, 2])], 17),
    ("Floor", {}, [I([2.5, -2.5])], 17),
    ("Tile", {}, [I([1, 2]), I([2])], 17),
    ("NonZero", {}, [I([0, 1, 1])], 17),
    ("CumSum", {}, [I([1, 2, 3]), I(0)], 17),
]


def _node(op: str, attributes: dict[str, Any], count: int) -> onnx.NodeProto:
    return helper.make_node(op, [f"i{number}" for number in range(count)], ["y"], **attributes)


def _reference(node: onnx.NodeProto, arrays: list[np.ndarray], opset: int) -> np.ndarray:
    types = [helper.np_dtype_to_tensor_dtype(array.dtype) for array in arrays]
    inputs = [
        helper.make_tensor_value_info(name, kind, array.shape)
        for name, kind, array in zip(node.input, types, arrays, strict=True)
    ]
    graph = helper.make_graph([node], "one", inputs, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    return np.asarray(ReferenceEvaluator(model).run(None, dict(zip(node.input, arrays, strict=True)))[0])


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: f"{CASES[number][0]}-{number}")
def test_folding_gives_what_the_reference_gives(number: int) -> None:
    op, attributes, arrays, opset = CASES[number]
    node = _node(op, attributes, len(arrays))
    results = fold(node, [Known.constant(array) for array in arrays], opset)
    assert results is not None
    expected = _reference(node, arrays, opset)
    assert (results[0].first.dtype, results[0].first.shape) == (expected.dtype, expected.shape)
    assert np.array_equal(results[0].first, expected)
    assert not results[0].free.any()


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: f"{CASES[number][0]}-{number}")
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_elements_said_to_be_fixed_do_not_move_when_free_ones_do(number: int, data: st.DataObject) -> None:
    op, attributes, arrays, opset = CASES[number]
    node = _node(op, attributes, len(arrays))
    which = data.draw(st.integers(0, len(arrays) - 1))
    free = np.array(data.draw(st.lists(st.booleans(), min_size=arrays[which].size, max_size=arrays[which].size)))
    free = free.reshape(arrays[which].shape).astype(np.bool_)
    other = arrays[which].copy()
    other[free] = ~other[free] if other.dtype == np.bool_ else other[free] + 1
    inputs = [Known.constant(array) for array in arrays]
    inputs[which] = Known(arrays[which], arrays[which], free)  # free, though both samples happen to agree
    results = fold(node, inputs, opset)
    if results is None:
        return
    try:
        moved = _reference(node, [other if place == which else array for place, array in enumerate(arrays)], opset)
    except Exception:  # the changed input does not fit the operator any more
        return
    known = results[0]
    if moved.shape != known.first.shape:
        assert known.free.all()
        return
    assert np.array_equal(known.first[~known.free], moved[~known.free])


def test_a_wrong_mask_would_be_seen() -> None:
    # The comparison above can fail: without its mask, the moved element is not equal.
    node = _node("Add", {}, 2)
    known = fold(node, [Known(I([1, 2]), I([1, 2]), I([True, False])), Known.constant(I([1, 1]))], 17)
    assert known is not None
    assert known[0].free.tolist() == [True, False]
    assert not np.array_equal(known[0].first, _reference(node, [I([2, 2]), I([1, 1])], 17))


def test_random_operators_and_failures_are_not_folded() -> None:
    assert fold(_node("RandomNormalLike", {}, 1), [Known.constant(I([1.0]))], 17) is None
    assert fold(_node("Gather", {}, 2), [Known.constant(I([1])), Known.constant(I(5))], 17) is None
    assert fold(_node("Div", {}, 2), [Known.constant(I([1])), Known.constant(I([0]))], 17) is None
    assert fold(_node("Frobnicate", {}, 1), [Known.constant(I([1]))], 17) is None
