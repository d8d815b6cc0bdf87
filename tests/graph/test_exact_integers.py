"""Products of bytes come out exact: held against integers of 64 bits, here and on a processor that cuts sums off.

Every operand is chosen so that pairs of products leave 16 bits: 255 by 127 and by -128.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from onnxadmm.graph import runtime
from onnxadmm.graph.exact_integers import with_exact_integers
from onnxadmm.graph.model import Model, from_proto, load, to_proto
from onnxadmm.graph.runtime import open_session
from onnxadmm.operators.table import operators
from tests.bench.models import relu
from tests.graph.saturating import PRODUCTS, Array, byte_product, processor_without_vnni
from tests.samples_text import load_sample, microsoft_names, sample_names

Integers = NDArray[np.int64]

#: ``[3, 7]``: an odd number of columns, so that the last has no partner.
LEFT = np.array([[255] * 7, [255, 255, 0, 255, 3, 254, 255], [128, 255, 255, 0, 0, 255, 255]], np.uint8)
#: ``[7, 5]``: columns that saturate above, below, by turns, and in one pair alone.
RIGHT = np.array(
    [[127, -128, 127, 127, 5], [127, -128, -128, 127, 6], [127, -128, 127, 0, 7], [127, -128, -128, 1, -8],
     [127, -128, 127, -2, 9], [127, -128, -128, -128, 1], [127, -128, 127, -128, -128]], np.int8,
)  # fmt: skip
ZERO_A = np.array(3, np.uint8)
ZERO_B = np.array(-7, np.int8)
ZEROS_B = np.array([0, -128, 127, 5, -1], np.int8)
#: ``[2, 3, 4, 4]`` and filters ``[4, 3, 2, 2]``, or ``[6, 1, 2, 2]`` for three groups.
IMAGE = np.where(np.arange(96) % 5, 255, 17).astype(np.uint8).reshape(2, 3, 4, 4)
FILTERS = np.where(np.arange(48) % 7, 127, -128).astype(np.int8).reshape(4, 3, 2, 2)
FILTERS[1] = -128
GROUPED = np.where(np.arange(24) % 11, -128, 127).astype(np.int8).reshape(6, 1, 2, 2)
BIAS = np.array([4096, -8192, 0, 1024, 77], np.int32)
ONE = np.array(1, np.float32)
#: One step of the result in sums of products: a power of two, so that float32 divides without rounding.
STEP = np.array(2048, np.float32)
MIDDLE = np.array(128, np.uint8)


def dot(left: Array, right: Array, left_zero: Array | int, right_zero: Array | int) -> Integers:
    """``(left - left_zero) @ (right - right_zero)`` in integers of 64 bits, which nothing here can leave."""
    a, b = left.astype(np.int64) - left_zero, right.astype(np.int64) - right_zero
    return np.asarray((a[..., None] * b).sum(axis=-2))


def slide(image: Array, filters: Array, image_zero: int, filter_zero: int, groups: int) -> Integers:
    """The convolution of the same, position by position."""
    (count, _, height, width), (out, depth, tall, wide) = image.shape, filters.shape
    a, b = image.astype(np.int64) - image_zero, filters.astype(np.int64) - filter_zero
    found = np.zeros((count, out, height - tall + 1, width - wide + 1), np.int64)
    for channel in range(out):
        first = channel // (out // groups) * depth
        for y, x in np.ndindex(found.shape[2:]):
            window = a[:, first : first + depth, y : y + tall, x : x + wide]
            found[:, channel, y, x] = (window * b[channel]).sum(axis=(1, 2, 3))
    return found


def rounded(total: Integers) -> Array:
    """In steps of ``STEP`` around ``MIDDLE``, halves to even, as unsigned bytes."""
    return np.asarray((np.rint(total / 2048) + 128).clip(0, 255).astype(np.uint8))


@dataclass(frozen=True)
class Case:
    """A graph of one product.

    Attributes:
        operator: whose product it is.
        text: the graph in ONNX text, without header.
        feed: its input.
        constants: its initializers.
        expected: what comes out, from integers of 64 bits.
    """

    operator: str
    text: str
    feed: Array
    constants: dict[str, Array]
    expected: Array

    def model(self) -> Model:
        text = f'<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g {self.text}'
        proto = parser.parse_model(text)
        proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in self.constants.items())
        return from_proto(proto)


INTEGERS = "(uint8[M,7] x) => (int32[M,5] y)"
BYTES = "(uint8[M,7] x) => (uint8[M,5] y)"
IMAGES = "(uint8[N,3,4,4] x) => (int32[N,C,3,3] y)"
IMAGE_BYTES = "(uint8[N,3,4,4] x) => (uint8[N,C,3,3] y)"
COMPUTED = np.ascontiguousarray(RIGHT.T)

CASES = {
    "integers": Case(
        "MatMulInteger", INTEGERS + "{ y = MatMulInteger (x, w) }", LEFT, {"w": RIGHT}, dot(LEFT, RIGHT, 0, 0)
    ),
    "integers, zero points": Case(
        "MatMulInteger",
        INTEGERS + "{ y = MatMulInteger (x, w, a, b) }",
        LEFT,
        {"w": RIGHT, "a": ZERO_A, "b": ZERO_B},
        dot(LEFT, RIGHT, 3, -7),
    ),
    "integers, zero points per column": Case(
        "MatMulInteger",
        INTEGERS + "{ y = MatMulInteger (x, w, a, b) }",
        LEFT,
        {"w": RIGHT, "a": ZERO_A, "b": ZEROS_B},
        dot(LEFT, RIGHT, 3, ZEROS_B),
    ),
    "integers, only the first zero point": Case(
        "MatMulInteger",
        INTEGERS + "{ y = MatMulInteger (x, w, a) }",
        LEFT,
        {"w": RIGHT, "a": ZERO_A},
        dot(LEFT, RIGHT, 3, 0),
    ),
    "integers, computed": Case(
        "MatMulInteger",
        INTEGERS + "{ w = Transpose (v) y = MatMulInteger (x, w) }",
        LEFT,
        {"v": COMPUTED},
        dot(LEFT, RIGHT, 0, 0),
    ),
    "integers, computed with a zero point": Case(
        "MatMulInteger",
        INTEGERS + "{ w = Transpose (v) b = Identity (c) y = MatMulInteger (x, w, , b) }",
        LEFT,
        {"v": COMPUTED, "c": ZEROS_B},
        dot(LEFT, RIGHT, 0, ZEROS_B),
    ),
    "integers, inside a branch": Case(
        "MatMulInteger",
        INTEGERS + "{ n = Size (x) c = Greater (n, zero) y = If (c) <"
        "then_branch = t () => (int32[M,5] p) { w = Transpose (v) p = MatMulInteger (x, w) }, "
        "else_branch = e () => (int32[M,5] q) { q = MatMulInteger (x, u) } > }",
        LEFT,
        {"v": COMPUTED, "u": RIGHT, "zero": np.array(0, np.int64)},
        dot(LEFT, RIGHT, 0, 0),
    ),
    "matrices": Case(
        "QLinearMatMul",
        BYTES + "{ y = QLinearMatMul (x, one, a, w, one, b, step, middle) }",
        LEFT,
        {"w": RIGHT, "a": ZERO_A, "b": ZERO_B, "one": ONE, "step": STEP, "middle": MIDDLE},
        rounded(dot(LEFT, RIGHT, 3, -7)),
    ),
    "matrices, computed": Case(
        "QLinearMatMul",
        BYTES + "{ w = Transpose (v) y = QLinearMatMul (x, one, a, w, one, b, step, middle) }",
        LEFT,
        {"v": COMPUTED, "a": ZERO_A, "b": ZERO_B, "one": ONE, "step": STEP, "middle": MIDDLE},
        rounded(dot(LEFT, RIGHT, 3, -7)),
    ),
    "filters of integers": Case(
        "ConvInteger",
        IMAGES + "{ y = ConvInteger (x, w, a, b) }",
        IMAGE,
        {"w": FILTERS, "a": ZERO_A, "b": ZERO_B},
        slide(IMAGE, FILTERS, 3, -7, 1),
    ),
    "filters of integers, in groups": Case(
        "ConvInteger", IMAGES + "{ y = ConvInteger <group = 3> (x, w) }", IMAGE, {"w": GROUPED},
        slide(IMAGE, GROUPED, 0, 0, 3),
    ),
    "filters": Case(
        "QLinearConv",
        IMAGE_BYTES + "{ y = QLinearConv (x, one, a, w, scales, b, step, middle, bias) }",
        IMAGE,
        {"w": FILTERS, "a": ZERO_A, "b": np.zeros(4, np.int8), "one": ONE, "scales": np.ones(4, np.float32),
         "step": STEP, "middle": MIDDLE, "bias": BIAS[:4]},
        rounded(slide(IMAGE, FILTERS, 3, 0, 1) + BIAS[:4].reshape(4, 1, 1)),
    ),
    "filters, in groups": Case(
        "QLinearConv",
        IMAGE_BYTES + "{ y = QLinearConv <group = 3> (x, one, a, w, one, b, step, middle) }",
        IMAGE,
        {"w": GROUPED, "a": ZERO_A, "b": ZERO_B, "one": ONE, "step": STEP, "middle": MIDDLE},
        rounded(slide(IMAGE, GROUPED, 3, -7, 3)),
    ),
    "to floats": Case(
        "MatMulIntegerToFloat",
        "(uint8[M,7] x) => (float[M,5] y) { y = com.microsoft.MatMulIntegerToFloat (x, w, one, one, a, b) }",
        LEFT,
        {"w": RIGHT, "a": ZERO_A, "b": ZEROS_B, "one": ONE},
        dot(LEFT, RIGHT, 3, ZEROS_B).astype(np.float32),
    ),
    "from floats": Case(
        "DynamicQuantizeMatMul",
        "(float[M,7] x) => (float[M,5] y) { y = com.microsoft.DynamicQuantizeMatMul (x, w, one) }",
        LEFT.astype(np.float32),
        {"w": RIGHT, "one": ONE},
        dot(LEFT, RIGHT, 0, 0).astype(np.float32),
    ),
    "gemm": Case(
        "QGemm",
        BYTES + "{ y = com.microsoft.QGemm <transB = 1> (x, one, a, w, one, b, bias, step, middle) }",
        LEFT,
        {"w": COMPUTED, "a": ZERO_A, "b": ZERO_B, "one": ONE, "bias": BIAS, "step": STEP, "middle": MIDDLE},
        rounded(dot(LEFT, RIGHT, 3, -7) + BIAS),
    ),
    "gemm to floats": Case(
        "QGemm",
        "(uint8[M,7] x) => (float[M,5] y) { y = com.microsoft.QGemm (x, one, a, w, one, b, bias) }",
        LEFT,
        {"w": RIGHT, "a": ZERO_A, "b": ZERO_B, "one": ONE, "bias": BIAS},
        (dot(LEFT, RIGHT, 3, -7) + BIAS).astype(np.float32),
    ),
}  # fmt: skip

#: Never cut: both sides of a proof add up the same bytes.
STAYING = {"DynamicQuantizeLSTM"}
#: Operators that read matrices of bytes and add up no products of them.
BYTE_BY_BYTE = {"DequantizeLinear", "QLinearAdd", "QLinearMul", "QLinearConcat"}


@pytest.mark.parametrize("name", CASES)
def test_a_session_for_proofs_multiplies_exactly_on_this_processor(name: str) -> None:
    case = CASES[name]
    with open_session(case.model(), as_written=True) as session:
        found = session.run({"x": case.feed})["y"]
    np.testing.assert_array_equal(found, case.expected)


@pytest.mark.parametrize("name", CASES)
def test_a_processor_that_cuts_sums_off_multiplies_the_copy_exactly_and_the_model_wrongly(name: str) -> None:
    case = CASES[name]
    model = case.model()
    (right,) = processor_without_vnni(to_proto(with_exact_integers(model))).run(None, {"x": case.feed})
    np.testing.assert_array_equal(right, case.expected)
    (wrong,) = processor_without_vnni(to_proto(model)).run(None, {"x": case.feed})
    assert (wrong != case.expected).any()


def test_the_imitated_processor_cuts_off_what_the_real_one_does() -> None:
    row, column = np.array([[255, 255, 255]], np.uint8), np.array([[127], [127], [127]], np.int8)
    assert byte_product(row, column) == 32_767 + 255 * 127
    assert byte_product(row, np.full((3, 1), -128, np.int8)) == -32_768 - 255 * 128
    assert byte_product(row, np.full((3, 1), 255, np.uint8)) == 3 * 255 * 255
    assert byte_product(np.full((1, 3), -128, np.int8), column) == -3 * 128 * 127


def test_every_operator_that_adds_up_products_of_bytes_has_its_case() -> None:
    known = {(entry.domain, entry.name) for entry in operators() if entry.multiplies_bytes}
    assert len(known) >= 7
    assert {case.operator for case in CASES.values()} == {name for _, name in known}
    assert {(product.op_domain, product.__name__) for product in PRODUCTS} == known


def test_every_operator_with_a_rule_that_reads_a_matrix_of_bytes_is_known() -> None:
    """A new quantised operator has a sample, and is here or byte by byte."""
    samples = [("", name) for name in sample_names()] + [("com.microsoft", name) for name in microsoft_names()]
    seen = set()
    for domain, name in samples:
        proto = load_sample(name, domain=domain)
        bytes_ = {
            tensor.name
            for tensor in proto.graph.initializer
            if tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8) and len(tensor.dims) > 1
        }
        seen |= {
            (node.domain, node.op_type, index)
            for node in proto.graph.node
            for index, operand in enumerate(node.input)
            if operand in bytes_ and node.op_type not in BYTE_BY_BYTE | STAYING
        }
    known = [(entry.domain, entry.name, entry.multiplies_bytes) for entry in operators() if entry.multiplies_bytes]
    assert seen == {(domain, name, factor) for domain, name, (factor, _) in known}


def test_a_model_without_products_of_bytes_is_handed_back() -> None:
    model = relu()
    assert with_exact_integers(model) is model
    scaled = load(load_sample("DequantizeLinear"))
    assert with_exact_integers(scaled) is scaled


def test_unsigned_operands_stay_as_they_are() -> None:
    model = load(load_sample("ConvInteger"))
    assert to_proto(with_exact_integers(model)) == to_proto(model)


def test_the_model_is_not_changed_and_its_copy_has_the_same_face() -> None:
    model = CASES["integers, inside a branch"].model()
    before = to_proto(model).SerializeToString(deterministic=True)
    copy = with_exact_integers(model)
    assert to_proto(model).SerializeToString(deterministic=True) == before
    assert [str(value) for value in copy.ir.graph.inputs] == [str(value) for value in model.ir.graph.inputs]
    assert [str(value) for value in copy.ir.graph.outputs] == [str(value) for value in model.ir.graph.outputs]
    onnx.checker.check_model(to_proto(copy), full_check=True)


def test_a_weight_of_two_products_is_written_once_and_only_when_it_is_asked_for() -> None:
    text = INTEGERS + "{ l = MatMulInteger (x, w) r = MatMulInteger (x, w, a) y = Add (l, r) }"
    case = Case("MatMulInteger", text, LEFT, {"w": RIGHT, "a": ZERO_A}, dot(LEFT, RIGHT, 0, 0) + dot(LEFT, RIGHT, 3, 0))
    copy = with_exact_integers(case.model())
    weights = [value.const_value for value in copy.ir.graph.initializers.values() if len(value.shape or ()) == 2]
    assert [type(weight) for weight in weights] == [onnx_ir.LazyTensor]
    with open_session(copy, as_written=True) as session:
        np.testing.assert_array_equal(session.run({"x": LEFT})["y"], case.expected)


def test_a_weight_that_something_else_reads_too_stays_for_it() -> None:
    text = "(uint8[M,7] x) => (int32[M,5] y, int8[5,7] z) { y = MatMulInteger (x, w) z = Transpose (w) }"
    case = Case("MatMulInteger", text, LEFT, {"w": RIGHT}, dot(LEFT, RIGHT, 0, 0))
    with open_session(case.model(), as_written=True) as session:
        found = session.run({"x": LEFT})
    np.testing.assert_array_equal(found["y"], case.expected)
    np.testing.assert_array_equal(found["z"], RIGHT.T)


def test_products_inside_of_a_function_are_exact_too() -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "own": 1]> g (uint8[M,7] x) => (int32[M,5] y) '
        "{ w = Transpose (v) y = own.twice (x, w) }"
        '<domain: "own", opset_import: ["": 17]> twice (a, b) => (c) { p = MatMulInteger (a, b) c = Add (p, p) }'
    )
    proto.graph.initializer.append(numpy_helper.from_array(COMPUTED, "v"))
    copy = to_proto(with_exact_integers(from_proto(proto)))
    (found,) = processor_without_vnni(copy).run(None, {"x": LEFT})
    np.testing.assert_array_equal(found, 2 * dot(LEFT, RIGHT, 0, 0))


def test_sessions_that_are_measured_run_the_model_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "with_exact_integers", lambda model: pytest.fail("asked for"))
    with open_session(CASES["integers"].model()) as session:
        assert session.run({"x": LEFT})["y"].shape == (3, 5)


def test_a_layer_between_dequantise_and_quantise_is_exact_too() -> None:
    """Without optimisations it computes with floats; with them onnxruntime makes a product of bytes of it."""
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[M,7] x) => (float[M,5] y) { q = QuantizeLinear (x, one, a) '
        "f = DequantizeLinear (q, one, a) g = DequantizeLinear (w, one, b) p = MatMul (f, g) "
        "r = QuantizeLinear (p, step, middle) y = DequantizeLinear (r, step, middle) }"
    )
    constants = {"w": RIGHT, "one": ONE, "a": ZERO_A, "b": np.array(0, np.int8), "step": STEP, "middle": MIDDLE}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    with open_session(from_proto(proto), as_written=True) as session:
        found = session.run({"x": LEFT.astype(np.float32) - np.float32(3)})["y"]
    np.testing.assert_array_equal(found / 2048 + 128, rounded(dot(LEFT, RIGHT, 3, 0)))
