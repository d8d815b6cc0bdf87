"""Shapes, dynamic axes and small values, known without running; of shapes onnxruntime is the judge."""

import subprocess
import time

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.child_process import command, environment
from onnxadmm.graph.model import from_proto, load
from onnxadmm.graph.shapes import Shapes, infer
from tests.graph.models import random_weight, small_network
from tests.shared import need_shared


def _parse(text: str, **weights: np.ndarray) -> Shapes:
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return infer(from_proto(proto))


def _measured(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Shapes of all node outputs as onnxruntime computes them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.ClearField("output")
    names = [name for node in copy.graph.node for name in node.output if name]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {name: array.shape for name, array in zip(names, session.run(None, feeds), strict=True)}


def _compare(proto: onnx.ModelProto) -> Shapes:
    """Compare with what onnxruntime computes at both samples."""
    shapes = infer(from_proto(proto))
    assert shapes.contradictions == ()
    feeds: tuple[dict[str, np.ndarray], ...] = ({}, {})
    for number in (0, 1):
        for item in proto.graph.input:
            dims = [
                shapes.samples[dim.dim_param or f"?{axis}"][number] if not dim.dim_value else dim.dim_value
                for axis, dim in enumerate(item.type.tensor_type.shape.dim)
            ]
            feeds[number][item.name] = np.ones(dims, helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type))
    first, second = (_measured(proto, feed) for feed in feeds)
    assert {name: shapes.shape(name) for name in first} == first
    assert {name: shapes.dynamic(name) for name in first} == {
        name: tuple(a != b for a, b in zip(first[name], second[name], strict=True)) for name in first
    }
    return shapes


@pytest.mark.parametrize("name", ["lenet5_mnist", "resnet20_cifar10", "resnet20_cifar10_bn"])
def test_trained_models_have_a_dynamic_batch_and_nothing_else(name: str) -> None:
    model = load(need_shared(f"models/{name}.onnx"))
    started = time.perf_counter()
    shapes = infer(model)
    assert time.perf_counter() - started < 2
    logits = model.ir.graph.outputs[0].name or ""
    assert (shapes.shape(logits), shapes.dynamic(logits)) == ((2, 10), (True, False))
    for node in model.ir.graph:
        for value in node.outputs:
            shape, dynamic = shapes.shape(value.name or ""), shapes.dynamic(value.name or "")
            assert shape is not None
            assert dynamic is not None
            if node.op_type != "Identity":  # of a weight
                assert dynamic == (True, *[False] * (len(shape) - 1))


@pytest.mark.parametrize("name", ["lenet5_mnist", "resnet20_cifar10", "resnet20_cifar10_bn"])
def test_shapes_of_trained_models_are_those_of_onnxruntime(name: str) -> None:
    _compare(onnx.load(need_shared(f"models/{name}.onnx")))


def test_shapes_of_the_small_network_are_those_of_onnxruntime() -> None:
    _compare(small_network())


# A flatten as the TorchScript exporter writes it, with literal sizes and sizes taken from Shape.
VIEW = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N, 3, H, W] x) => (float[N, M] y) {
    zero = Constant<value = int64 {0}>()
    one = Constant<value = int64 {1}>()
    axis = Constant<value = int64[1] {0}>()
    minus = Constant<value = int64[1] {-1}>()
    twelve = Constant<value_ints = [12]>()
    a = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w)
    s = Shape(a)
    n = Gather(s, zero)
    c = Gather(s, one)
    nu = Unsqueeze(n, axis)
    cu = Unsqueeze(c, axis)
    target = Concat<axis = 0>(nu, cu, minus)
    mixed = Concat<axis = 0>(cu, nu, twelve)
    r = Reshape(a, target)
    flat = Concat<axis = 0>(nu, minus)
    y = Reshape(a, flat)
}
"""


def test_partial_values_go_through_shape_gather_and_concat() -> None:
    shapes = _parse(VIEW, w=random_weight(8, 3, 3, 3))
    assert shapes.partial("s") == (None, 8, None, None)
    assert shapes.value("s") is None
    assert shapes.value("n") is None
    eight = shapes.value("c")
    assert eight is not None
    assert (eight.shape, eight.dtype, eight.item()) == ((), np.int64, 8)
    assert shapes.partial("target") == (None, 8, -1)
    assert shapes.partial("mixed") == (8, None, 12)
    assert shapes.partial("twelve") == (12,)
    assert shapes.partial("c") is None
    assert shapes.partial("x") is None
    assert shapes.dynamic("r") == (True, False, True)
    assert shapes.dynamic("y") == (True, True)


def test_shapes_behind_shape_chains_are_those_of_onnxruntime() -> None:
    proto = onnx.parser.parse_model(VIEW)
    proto.graph.initializer.append(numpy_helper.from_array(random_weight(8, 3, 3, 3), "w"))
    _compare(proto)


def test_a_number_that_depends_on_a_free_dimension_is_unknown_even_where_both_samples_agree() -> None:
    shapes = _parse(
        """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 4] x) => (int64[3] y) {
            zero = Constant<value_ints = [0]>()
            s = Shape(x)
            nothing = Mul(s, zero)
            large = Constant<value_ints = [1000]>()
            quotient = Div(s, large)
            y = Concat<axis = 0>(nothing, large)
        }
        """
    )
    assert shapes.partial("nothing") == (None, 0)
    assert shapes.partial("quotient") == (None, 0)
    assert shapes.partial("y") == (None, 0, 1000)


def test_expand_written_with_where_and_equal_is_followed_element_by_element() -> None:
    shapes = _parse(
        """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 1, 4] x) => (float[N, 5, 4] y) {
            s = Shape(x)
            wanted = Constant<value_ints = [-1, 5, -1]>()
            minus = Constant<value_ints = [-1]>()
            keep = Equal(wanted, minus)
            target = Where(keep, s, wanted)
            y = Expand(x, target)
        }
        """
    )
    assert shapes.partial("target") == (None, 5, 4)
    assert (shapes.shape("y"), shapes.dynamic("y")) == ((2, 5, 4), (True, False, False))


# tf2onnx: the target of a Reshape through Shape, Cast, Slice and Concat, with the versions of opset 7 to 12.
FLATTEN_OLD = """
<ir_version: 4, opset_import: ["": 9]>
g (float[unk__1, 2, 4, 4] x) => (float[unk__2, 32] y) {
    s = Shape(x)
    f = Cast<to = 6>(s)
    first = Slice<starts = [0], ends = [1], axes = [0]>(f)
    squeezed = Squeeze<axes = [0]>(first)
    again = Unsqueeze<axes = [0]>(squeezed)
    rest = Constant<value = int32[1] {32}>()
    both = Concat<axis = 0>(again, rest)
    target = Cast<to = 7>(both)
    y = Reshape(x, target)
}
"""


@pytest.mark.parametrize("opset", [7, 9])
def test_old_opsets_keep_their_axes_in_attributes(opset: int) -> None:
    proto = onnx.parser.parse_model(FLATTEN_OLD)
    proto.opset_import[0].version = opset
    shapes = _compare(proto)
    assert shapes.partial("target") == (None, 32)
    assert (shapes.shape("y"), shapes.dynamic("y")) == ((2, 32), (True, False))


def test_equal_symbols_get_equal_lengths() -> None:
    shapes = _parse(
        """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[B, past, 4] x, float[B, later, 4] z, float[B, past, 4] u) => (float[B, T, 4] y, float[B, P, 4] v) {
            y = Concat<axis = 1>(x, z)
            v = Add(x, u)
        }
        """
    )
    assert shapes.shape("v") == shapes.shape("x") == shapes.shape("u")
    assert shapes.dynamic("y") == (True, True, False)


def test_symbols_that_are_formulas_of_others_follow_them() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[B, p, 4] x, float[B, q, 4] z) => (float[B, q, 4] y) '
        "{ one = Slice(z, b, e, a) y = Concat<axis = 1>(x, one) w = Add(y, z) }"
    )
    for name, number in (("b", 0), ("e", 1), ("a", 1)):
        proto.graph.initializer.append(numpy_helper.from_array(np.array([number]), name))
    proto.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "p + 1"
    shapes = infer(from_proto(proto))
    assert shapes.contradictions == ()
    assert shapes.samples["p + 1"] == tuple(length + 1 for length in shapes.samples["p"])


def test_lengths_that_do_not_fit_are_tried_again() -> None:
    # The positions allow 77 tokens at most, and the channels follow from the weight.
    shapes = _parse(
        """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[B, T, D] x) => (float[B, T, 6] y) {
            h = MatMul(x, w)
            s = Shape<start = 1, end = 2>(h)
            zero = Constant<value_ints = [0]>()
            p = Slice(positions, zero, s, zero)
            y = Add(h, p)
        }
        """,
        w=random_weight(5, 6),
        positions=random_weight(77, 6),
    )
    assert shapes.contradictions == ()
    assert shapes.shape("x") is not None
    assert shapes.samples["D"] == (5, 5)
    assert max(shapes.samples["T"]) <= 77
    assert (shapes.dynamic("x"), shapes.dynamic("y")) == ((True, True, False), (True, True, False))


def test_a_batch_that_the_graph_fixes_is_not_dynamic() -> None:
    shapes = _parse(
        """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 2, 3] x) => (float[1, 6] y) {
            target = Constant<value_ints = [1, 6]>()
            y = Reshape(x, target)
        }
        """
    )
    assert shapes.contradictions == ()
    assert (shapes.shape("x"), shapes.dynamic("x")) == ((1, 2, 3), (False, False, False))


def test_contradictions_are_named_and_do_not_stop_the_rest() -> None:
    shapes = _parse(
        """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 4] x) => (float[N, 4] y, float[N, 5] z) {
            y = Relu(x)
            z = Add(x, w)
        }
        """,
        w=random_weight(5),
    )
    assert shapes.shape("y") == (2, 4)
    assert len(shapes.contradictions) == 1
    assert "Add" in shapes.contradictions[0]


def test_unknown_operators_give_what_the_file_states_or_nothing() -> None:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "mine": 1]>
        g (float[N, 4] x) => (float[N, 7] y, float[K, 4] z) {
            a = com.microsoft.Frobnicate(x)
            b = Relu(a)
            y = mine.Op(b)
            z = mine.Other(x)
        }
        """
    )
    proto.graph.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, ["N", 6]))
    shapes = infer(from_proto(proto))
    assert (shapes.shape("a"), shapes.dynamic("a")) == ((2, 6), (True, False))
    assert shapes.shape("b") == (2, 6)
    assert shapes.shape("y") == (2, 7)
    assert shapes.shape("z") is None
    assert shapes.dynamic("z") is None
    assert shapes.dtype("z") is not None
    assert shapes.shape("nobody") is None


def test_control_flow_functions_and_sequences_do_not_stop_the_walk() -> None:
    shapes = _parse(
        """
        <ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[N, 4] x, bool c) => (float[N, 4] y, float[N, 8] z, float[N, 4] e) {
            t = local.twice(x)
            y = If(c) <
                then_branch = g1 () => (float[N, 4] a) { a = Add(t, x) },
                else_branch = g2 () => (float[N, 4] b) { b = Identity(t) }
            >
            z = Concat<axis = 1>(y, x)
            q = SequenceConstruct(x, t)
            zero = Constant<value_int = 0>()
            e = SequenceAt(q, zero)
        }
        <domain: "local", opset_import: ["": 17]> twice (v) => (w) { w = Add(v, v) }
        """
    )
    assert shapes.shape("t") == (2, 4)
    assert (shapes.shape("y"), shapes.dynamic("y")) == ((2, 4), (True, False))
    assert shapes.shape("z") == (2, 8)
    assert (shapes.shape("q"), shapes.dtype("q"), shapes.value("q")) == (None, None, None)


UNBEARABLE = """
import onnx
from onnx import helper
import onnxadmm.graph.check
from onnxadmm.graph.model import from_proto
from onnxadmm.graph.shapes import infer
from tests.samples_text import parse_sample

onnxadmm.graph.check._try_onnxruntime = lambda _: None
NODES = {
    "Conv": ("y = Conv (x, W)", helper.make_attribute("kernel_shape", helper.make_tensor("t", 1, [1], [1.0]))),
    "Split": ("y, u, v = Split <axis = 1> (x)", helper.make_attribute("num_outputs", 2)),
}
for text, wrong in NODES.values():
    for body in ("TEXT", "s, n = If (c) <then_branch = t () => (float[N] y, float[N] u) { TEXT },"
                 " else_branch = e () => (float[N] y, float[N] x) { y = Identity (x) }>"):
        model = parse_sample(
            '<ir_version: 9, opset_import: ["": 20]> g (float[N, 3, 8, 8] x, bool c) => (float[N, 8, 6, 6] z)'
            "<float[8, 3, 3, 3] W> {" + body.replace("TEXT", text) + " z = Relu (y) }"
        )
        node = model.graph.node[0]
        (node if node.op_type != "If" else node.attribute[0].g.node[0]).attribute.append(wrong)
        infer(from_proto(model))
"""


def test_no_node_on_which_inference_aborts_ends_the_process() -> None:
    """Attributes of other types than the operator's, a Split with more results than it says; in bodies too."""
    done = subprocess.run(command("-c", UNBEARABLE), capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr


def test_an_input_without_shape_is_unknown_and_its_successors_too() -> None:
    proto = small_network()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    shapes = infer(from_proto(proto))
    assert shapes.shape("x") is None
    assert shapes.shape("c") is None
    assert shapes.shape("conv.weight") == (16, 3, 3, 3)


def test_initializers_listed_as_inputs_are_constants() -> None:
    shapes = infer(from_proto(small_network(listed=True)))
    assert shapes.dynamic("conv.weight") == (False,) * 4
    assert shapes.value("conv.bias") is not None


def test_large_weights_are_not_read() -> None:
    model = from_proto(small_network())

    class Unreadable:
        def __init__(self, tensor: object) -> None:
            self._tensor = tensor

        def numpy(self) -> np.ndarray:
            raise AssertionError("a weight was read")

        def __getattr__(self, name: str) -> object:
            return getattr(self._tensor, name)

    for value in model.ir.graph.initializers.values():
        if str(value.name).endswith("weight"):
            value.const_value = Unreadable(value.const_value)  # type: ignore[assignment]  # stands in for a tensor
    shapes = infer(model)
    assert shapes.shape("y") == (2, 12)
    assert shapes.value("gemm.weight") is None


@pytest.mark.slow
def test_three_thousand_nodes_take_a_few_seconds() -> None:
    nodes, last = [], "x"
    for number in range(1000):
        nodes += [
            helper.make_node("Shape", [last], [f"s{number}"]),
            helper.make_node("Reshape", [last, f"s{number}"], [f"r{number}"]),
            helper.make_node("Relu", [f"r{number}"], [f"p{number}"]),
        ]
        last = f"p{number}"
    graph = helper.make_graph(
        nodes,
        "long",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
    )
    model = from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    started = time.perf_counter()
    shapes = infer(model)
    assert time.perf_counter() - started < 10
    assert (shapes.shape(last), shapes.dynamic(last)) == ((2, 8), (True, False))
