"""What is written out computes the same, and only what has to be is written out."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxadmm.graph import computed
from onnxadmm.graph.inline import inline
from onnxadmm.graph.model import load, to_proto
from onnxadmm.graph.shapes import infer
from onnxadmm.rewrite.shrink import shrink
from tests.rewrite import laws
from tests.rewrite.plans import KINDS
from tests.samples_text import load_sample, parse_sample

#: How W is computed, what it is computed from, and the group that it writes or reads besides V.
COMPUTED: dict[str, tuple[str, str]] = {
    "filled": ("W = ConstantOfShape <value = float[1] {0.5}> (size)", "int64[2] size = {5, 4}"),
    "filled and moved": (
        "f = ConstantOfShape <value = float[1] {0.5}> (size) W = Transpose (f)",
        "int64[2] size = {4, 5}",
    ),
    "counted": (
        "f = Range (zero, twenty, one) c = Reshape (f, size) W = Sin (c)",
        "float zero = {0}, float one = {1}, float twenty = {20}, int64[2] size = {5, 4}",
    ),
    "a diagonal": ("W = EyeLike <k: int = 1> (other)", "float[5,4] other"),
    "scaled by its norm": (
        "n = ReduceL2 <axes: ints = [0]> (other) d = Div (other, n) W = Mul (d, scale)",
        "float[5,4] other, float[1,4] scale",
    ),
    "shifted": ("W = Add (other, shift)", "float[5,4] other, float shift = {0.25}"),
    "a product": ("W = MatMul (narrow, wide)", "float[5,2] narrow, float[2,4] wide"),
    "halves of which one is computed": (
        "n = Exp (upper) W = Concat <axis: int = 0> (n, lower)",
        "float[2,4] upper, float[3,4] lower",
    ),
}


def network(body: str, weights: str) -> onnx.ModelProto:
    return parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        computed (float[N,6] x) => (float[N,2] y) <{weights}, float[6,5] W1, float[5] B1, float[4,2] W2> {{
        {body}
        m = MatMul (x, W1)
        h = Add (m, B1)
        g = MatMul (h, W)
        r = Sigmoid (g)
        y = MatMul (r, W2)
        }}"""
    )


#: A weight that is bytes times scales, written without DequantizeLinear.
IN_BYTES = {
    "a scale per column": ("f = Cast <to: int = 1> (q) W = Mul (f, scale)", "float[1,4] scale"),
    "a scale for all, the other way round": ("f = Cast <to: int = 1> (q) W = Mul (scale, f)", "float scale = {0.25}"),
    "a scale per row": ("f = Cast <to: int = 1> (q) W = Mul (f, scale)", "float[5,1] scale"),
    "divided by a scale": ("f = Cast <to: int = 1> (q) W = Div (f, scale)", "float[1,4] scale"),
    "a zero point": (
        "f = Cast <to: int = 1> (q) o = Sub (f, point) W = Mul (o, scale)",
        "float[1,4] scale, float point = {3}",
    ),
    "a zero point per column, in bytes": (
        "f = Cast <to: int = 1> (q) p = Cast <to: int = 1> (point) o = Sub (f, p) W = Mul (scale, o)",
        "float scale = {0.25}, int8[4] point = {3, 0, -7, 100}",
    ),
    "a zero point per row, taken off whole numbers": (
        "i = Cast <to: int = 6> (q) o = Sub (i, point) f = Cast <to: int = 1> (o) W = Div (f, scale)",
        "float[5,1] scale, int32[5,1] point = {3, 1, -7, 100, 0}",
    ),
    "turned afterwards": (
        "f = Cast <to: int = 1> (q) o = Mul (f, scale) t = Transpose (o) W = Transpose (t)",
        "float[1,4] scale",
    ),
}
BYTES = "int8[5,4] q = {3, -7, 12, -1, 9, 25, -31, 8, 6, -5, 4, -3, 2, 1, -9, 17, -20, 22, 13, -14}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", IN_BYTES)
def test_bytes_times_scales_are_cut_in_their_bytes(name: str, kind: str) -> None:
    body, weights = IN_BYTES[name]
    original = network(body, f"{BYTES}, {weights}")
    model = load(original)
    assert inline(model) is model
    held = (laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk, laws.law_removed_units_cannot_be_seen)
    for case in laws.hold(original, *held, kinds=[kind], seeds=range(2)):
        assert sorted(group.count for group in case.units.groups) == [4, 5], case.units.locked
    units = laws.units_of(original)[1]
    keep = np.ones(units.count, np.bool_)
    keep[[group.start for group in units.groups]] = False
    small = shrink(model, units, keep).ir.graph.initializers
    assert small["q"].shape == (4, 3)
    assert small["q"].dtype is not None
    assert small["q"].dtype.name == "INT8"
    assert "W" not in small


@pytest.mark.parametrize("point", ["float point = {3.5}", "float point = {200}", "float[5,4] point"])
def test_bytes_none_of_which_stands_for_zero_are_computed(point: str) -> None:
    """No mask could be written at the origin."""
    body = "f = Cast <to: int = 1> (q) o = Sub (f, point) W = Mul (o, scale)"
    original = network(body, f"{BYTES}, float[1,4] scale, {point}")
    assert "W" in inline(load(original)).ir.graph.initializers
    laws.hold(original, laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk, seeds=range(2))


#: What meets an activation as one, with what it is computed from, and how many units two more weights then have.
MET = {
    "a product with a state of zeros": ("c = MatMul (state, W)", "float[1,5] state = {0, 0, 0, 0, 0}, float[5,4] W"),
    "a Gemm with a bias, and moves behind it": (
        "t = Gemm <transB: int = 1> (state, W, B) u = Unsqueeze (t, front) c = Squeeze (u, front)",
        "float[1,5] state, float[4,5] W, float[4] B, int64[1] front = {0}",
    ),
    "a vector a part of which is set": (
        "c = ScatterND (V, where, nothing)",
        "float[4] V, int64[2,1] where = {1, 3}, float[2] nothing = {0, 0}",
    ),
    "a mixture": ("c = Softmax <axis: int = -1> (V)", "float[1,4] V"),
    "a vector that is normalised": (
        "c = LayerNormalization (V, scale, shift)",
        "float[1,4] V, float[4] scale, float[4] shift",
    ),
}


def meeting(body: str, weights: str) -> onnx.ModelProto:
    return parse_sample(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        meeting (float[N,6] x) => (float[N,2] y) <{weights}, float[6,4] W1, float[4,2] W2> {{
        {body}
        m = MatMul (x, W1)
        h = Add (m, c)
        r = Sigmoid (h)
        y = MatMul (r, W2)
        }}"""
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MET)
def test_what_only_constants_go_into_locks_nothing_that_it_meets(name: str, kind: str) -> None:
    original = meeting(*MET[name])
    units = laws.units_of(original)[1]
    assert [group.count for group in units.groups] == [4], units.locked
    assert [group.reason for group in units.locked] == ["reaches graph output y"]
    held = (laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk, laws.law_removed_units_cannot_be_seen)
    for case in laws.hold(original, *held, kinds=[kind], seeds=range(2)):
        left = {node.op_type for node in case.shrunk_message.graph.node}
        assert not case.removed or left <= {"MatMul", "Add", "Sigmoid", "Unsqueeze", "Squeeze"}


def test_a_cell_that_starts_from_zeros_loses_units_and_what_it_started_with() -> None:
    """The weight is read a second time, by the next step."""
    original = parse_sample(
        """<ir_version: 8, opset_import: ["" : 17]>
        cell (float[1,5] x, float[1,5] z) => (float[1,3] y)
        <float[1,6] state = {0, 0, 0, 0, 0, 0}, float[6,6] W, float[5,6] W1, float[6,3] W2>
        { a = MatMul (state, W)
          b = MatMul (x, W1)
          c = Add (a, b)
          d = Tanh (c)
          e = MatMul (d, W)
          f = MatMul (z, W1)
          g = Add (e, f)
          h = Tanh (g)
          y = MatMul (h, W2) }"""
    )
    model, units = laws.units_of(original)
    assert [group.count for group in units.groups] == [6], units.locked
    small = shrink(model, units, np.array([True, False, True, True, False, False]))
    sizes = {name: tuple(value.shape or ()) for name, value in small.ir.graph.initializers.items()}
    assert sizes == {"W": (3, 3), "W1": (5, 3), "W2": (3, 3), "a": (1, 3)}
    laws.hold(original, laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk, seeds=range(3))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMPUTED)
def test_a_layer_whose_weight_is_computed_loses_units_on_both_sides(name: str, kind: str) -> None:
    original = network(*COMPUTED[name])
    model, units = laws.units_of(original)
    assert sorted(group.count for group in units.groups) == [4, 5], units.locked
    laws.hold(original, laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk, kinds=[kind], seeds=[2])
    written = to_proto(inline(model))
    feed = laws.feeds(original, seed=1)
    (before,), (after,) = laws.run(original, feed), laws.run(written, feed)
    assert laws.snr_db(before, after) > 100
    assert "W" in {tensor.name for tensor in written.graph.initializer}
    kept = {name for node in written.graph.node for name in node.input}
    assert {tensor.name for tensor in written.graph.initializer} <= kept, "what W was computed from is left over"


def test_a_computed_weight_that_something_else_reads_is_computed_for_it_as_before() -> None:
    original = network("e = Exp (other) W = Neg (e) s = ReduceSum <keepdims: int = 0> (e)", "float[5,4] other")
    original.graph.node[-1].output[0] = "z"
    original.graph.node.append(onnx.helper.make_node("Add", ["z", "s"], ["y"]))
    written = to_proto(inline(load(original)))
    assert {"W", "other"} <= {tensor.name for tensor in written.graph.initializer}
    assert [node.op_type for node in written.graph.node][:2] == ["Exp", "ReduceSum"]


UNTOUCHED = {
    "moves, through which a weight is cut where it is stored": ("W = Transpose (other)", "float[4,5] other"),
    "a scale behind which zeros stay zeros": (
        "W = DequantizeLinear (other, scale)",
        "int8[5,4] other, float scale = {0.01}",
    ),
    "sizes that are computed": (
        "n = Shape (other) s = Gather (n, backwards) W = Reshape (other, s)",
        "float[4,5] other, int64[2] backwards = {1, 0}",
    ),
    "random numbers": ("W = RandomNormal <shape: ints = [5, 4], seed: float = 3.0> ()", "float spare = {1}"),
}


@pytest.mark.parametrize("name", UNTOUCHED)
def test_what_need_not_be_computed_is_left_to_the_graph(name: str) -> None:
    model = load(network(*UNTOUCHED[name]))
    assert inline(model) is model


def test_a_weight_that_is_too_large_is_left_to_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(network(*COMPUTED["a product"]))
    monkeypatch.setattr(computed, "LARGEST_COMPUTED", 20)
    assert inline(model) is not model
    monkeypatch.setattr(computed, "LARGEST_COMPUTED", 19)
    assert inline(model) is model


def test_below_the_first_free_initializers_a_computed_weight_is_listed_as_an_input() -> None:
    original = network(*COMPUTED["filled"])
    original.ir_version = 3
    original.opset_import[0].version = 9
    listed = [
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in original.graph.initializer
    ]
    original.graph.input.extend(listed)
    written = to_proto(inline(load(original)))
    onnx.checker.check_model(written, full_check=True)
    (stored,) = (tensor for tensor in written.graph.initializer if tensor.name == "W")
    assert "W" in [each.name for each in written.graph.input]
    assert (numpy_helper.to_array(stored) == 0.5).all()


def test_the_shape_behind_a_loop_is_known_where_its_body_keeps_it() -> None:
    shapes = infer(load(load_sample("Loop")))
    before, after = shapes.shape("h"), shapes.shape("s")
    assert before == after
    assert before is not None


def test_the_shape_behind_a_loop_that_grows_is_not_known() -> None:
    original = load_sample("Loop")
    (loop,) = (node for node in original.graph.node if node.op_type == "Loop")
    body = loop.attribute[0].g
    body.node[-1].op_type = "Concat"
    body.node[-1].attribute.append(onnx.helper.make_attribute("axis", 1))
    body.output[1].type.tensor_type.ClearField("shape")
    assert infer(load(original)).shape("s") is None


def test_a_model_without_anything_to_write_out_is_handed_back() -> None:
    model = load(load_sample("Conv"))
    assert inline(model) is model


def test_writing_out_leaves_the_model_itself_as_it_was() -> None:
    model = load(network(*COMPUTED["scaled by its norm"]))
    before = to_proto(model).SerializeToString(deterministic=True)
    once = inline(model)
    assert to_proto(model).SerializeToString(deterministic=True) == before
    assert inline(once) is once
    for tensor in to_proto(once).graph.initializer:
        assert np.isfinite(numpy_helper.to_array(tensor)).all()


SHARED = """<ir_version: 8, opset_import: ["" : 17]>
shared (float[N,6] x) => (float[N,2] y)
<float[6,4] W1, float[4,4] W3, float[4,2] W2, float[4] B = {0, 0, 0, 0}> {
   m = MatMul (x, W1)
   h = Add (m, B)
   r = Sigmoid (h)
   n = MatMul (r, W3)
   g = Add (n, B)
   s = Sigmoid (g)
   y = MatMul (s, W2)
}"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_bias_of_zeros_that_two_layers_share_ties_neither_to_the_other(kind: str) -> None:
    original = parse_sample(SHARED)
    held = (laws.law_shrunk_is_valid, laws.law_masked_equals_shrunk)
    (case,) = laws.hold(original, *held, kinds=[kind], seeds=[3])
    assert [group.name for group in case.units.groups] == ["W1", "W3"]


@pytest.mark.parametrize(
    ("old", "new"), [("{0, 0, 0, 0}", "{0, 0, 0, 1}"), ("(r, W3)", "(r, W1)"), ("g = Add (n, B)", "g = Max (n, B)")]
)
def test_a_vector_of_different_elements_or_of_one_layer_or_of_unknown_use_stays_shared(old: str, new: str) -> None:
    text = SHARED.replace(old, new)
    if "W1)" in new:
        text = text.replace("float[6,4] W1", "float[4,4] W1").replace("float[N,6] x", "float[N,4] x")
        text = text.replace("float[4,4] W3, ", "")
    model = load(parse_sample(text))
    assert inline(model) is model


def test_a_layer_that_is_called_twice_shares_its_zeros_beside_an_unrelated_one() -> None:
    text = SHARED.replace("(s, W2)", "(u, W2)").replace(
        "s = Sigmoid (g)", "s = Sigmoid (g)\n o = MatMul (s, W3)\n t = Add (o, B)\n u = Sigmoid (t)"
    )
    written = to_proto(inline(load(parse_sample(text))))
    biases = [node.input[1] for node in written.graph.node if node.op_type == "Add"]
    assert biases == ["B", "B_1", "B_1"]


@pytest.mark.parametrize(
    ("opset", "results", "attribute"),
    [
        (17, "n, m, v", "training_mode: int = 1"),
        (17, "n", "training_mode: int = 1"),
        (13, "n, m, v, s, t", "momentum: float = 1.0"),
    ],
)
def test_weights_that_are_standardised_by_batch_normalization_are_constants(
    opset: int, results: str, attribute: str
) -> None:
    """What exporters make of weight standardisation: a normalisation in training mode, over a weight."""
    original = parse_sample(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        standardised (float[N,3,5,5] x) => (float[N,2,5,5] y)
        <float[4,3,3,3] W1, float[4] B1, float[2,4,1,1] W2, float[4] gain, float[4] shift, float[4] mean,
        float[4] positive, int64[3] flat = {{1, 4, 27}}, int64[4] back = {{4, 3, 3, 3}}>
        {{ f = Reshape (W1, flat)
          {results} = BatchNormalization <{attribute}> (f, gain, shift, mean, positive)
          w = Reshape (n, back)
          h = Conv <pads: ints = [1, 1, 1, 1]> (x, w, B1)
          y = Conv (h, W2) }}"""
    )
    assert [group.count for group in laws.units_of(original)[1].groups] == [4]
    given = laws.constants(original.graph)
    rows = given["W1"].reshape(4, 27).astype(np.float64)
    standard = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-5)
    wanted = standard * given["gain"][:, None] + given["shift"][:, None]
    written = inline(load(original)).ir.graph.initializers["w"].const_value
    assert written is not None
    np.testing.assert_allclose(written.numpy().reshape(4, 27), wanted, rtol=1e-5, atol=1e-6)


def test_only_weights_that_are_cut_are_written_out() -> None:
    """What is left to the graph needs no room of its own."""
    model = load(network(*COMPUTED["a product"]))
    assert inline(model, cut=()) is model
    assert "W" in inline(model, cut={"W"}).ir.graph.initializers
    assert "W" in inline(model, cut={"narrow"}).ir.graph.initializers, "it is computed from what is cut"


def test_a_weight_that_would_make_the_model_much_larger_is_left_to_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(network(*COMPUTED["filled"]))
    assert inline(model) is not model
    monkeypatch.setattr(computed, "_ALWAYS_PAYS", 0)
    monkeypatch.setattr(computed, "_LARGEST_SHARE", 0.1)
    assert inline(model) is model
