"""Lengths of -1 and of 0, which exporters write for what is free."""

import numpy as np
import onnx
import pytest

from onnxadmm.graph.model import load, to_proto
from onnxadmm.graph.shapes import infer
from onnxadmm.planning import rank
from onnxadmm.surgery import shrink, verify
from tests.graph.models import small_network
from tests.samples_text import parse_sample


def _with_batch(length: int) -> onnx.ModelProto:
    """The small network with that number as the batch, everywhere it is stated."""
    proto = small_network()
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = length
    return proto


@pytest.mark.parametrize("length", [-1, 0, -7])
def test_a_length_that_is_none_is_free(length: int) -> None:
    model = load(_with_batch(length))
    assert infer(model).dynamic("y") == (True, False)
    assert infer(model).batch > 1
    written = to_proto(model).graph
    assert [value.type.tensor_type.shape.dim[0].WhichOneof("value") for value in (*written.input, *written.output)] == [
        None,
        None,
    ]


def test_a_network_whose_lengths_are_all_minus_one_is_pruned_and_proven() -> None:
    proto = _with_batch(-1)
    plan = rank(proto, ratio=0.5)
    assert [(group.name, group.units) for group in plan.groups] == [("conv.weight", 16), ("gemm.weight", 20)]
    assert verify(proto, shrink(proto, plan), plan).passed


def test_an_empty_cache_stays_empty() -> None:
    """What is concatenated to it has a length of its own: nothing says that the cache is free."""
    original = parse_sample(
        """<ir_version: 8, opset_import: ["" : 17]>
        cache (float[N,5,4] x, float[N,0,4] past) => (float[N,5,4] y)
        { y = Concat <axis: int = 1> (past, x) }"""
    )
    shape = load(original).ir.graph.inputs[1].shape
    assert shape is not None
    assert shape[1] == 0
    assert np.array_equal(infer(load(original)).shape("y") or (), (2, 5, 4))
