"""Verification passes on equal models, fails on every kind of difference, and names the first tensor that differs."""

import math
from dataclasses import replace

import numpy as np
import onnx_ir
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxadmm.errors import ModelFileError, OptionError, VerificationError
from onnxadmm.graph.model import Model, load
from onnxadmm.rewrite.locate import locate
from onnxadmm.rewrite.verify import Verification, as_deployed, require, verify
from tests.samples_text import parse_sample

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[N,3,4,4] x) => (float[N,2] y)
<float[4,3,3,3] W1, float[4] B1, float[2,4] W2, float[2] B2>
{
   c = Conv (x, W1, B1)
   r = Relu (c)
   p = GlobalAveragePool (r)
   f = Flatten (p)
   y = Gemm <transB: int = 1> (f, W2, B2)
}
"""


def network(text: str = TEXT, *, edits: dict[str, float] | None = None) -> Model:
    """The network of a text with seeded weights; ``edits`` adds a number to the first element of a weight."""
    proto = parse_sample(text)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        array.reshape(-1)[:1] += np.asarray((edits or {}).get(tensor.name, 0), array.dtype)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return load(proto)


def inputs(shape: tuple[int, ...] = (3, 3, 4, 4), count: int = 2) -> list[dict[str, NDArray[np.float32]]]:
    random = np.random.default_rng(1)
    return [{"x": random.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def whole(name: str, shape: tuple[int, ...]) -> None:
    """Every tensor stays whole."""


def failure(found: Verification) -> str:
    assert not found.passed
    assert found.first_difference is not None
    return found.first_difference


def test_equal_models_pass_with_an_infinite_ratio() -> None:
    found = verify(network(), network(), inputs())
    assert found == Verification(True, math.inf, 0.0, ("y",), 2, 80.0, 0.0, None)
    assert require(found) is found


def test_a_changed_weight_fails_and_the_ratio_is_stated() -> None:
    found = verify(network(), network(edits={"W2": 0.01}), inputs())
    assert failure(found).startswith("output y: ")
    assert 0 < found.snr_db < 80
    assert f"{found.snr_db:.1f} dB" in failure(found) or "dB" in failure(found)
    assert found.max_abs_error > 0


def test_rounding_passes() -> None:
    found = verify(network(), network(edits={"W2": 1e-6}), inputs())
    assert found.passed
    assert 100 < found.snr_db < math.inf


def test_the_threshold_decides() -> None:
    ratio = verify(network(), network(edits={"W2": 1e-3}), inputs()).snr_db
    assert verify(network(), network(edits={"W2": 1e-3}), inputs(), threshold_db=ratio - 1).passed
    assert not verify(network(), network(edits={"W2": 1e-3}), inputs(), threshold_db=ratio + 1).passed


def test_the_worst_input_counts() -> None:
    silent = [{"x": np.zeros((1, 3, 4, 4), np.float32)}]
    assert verify(network(), network(edits={"W1": 1.0}), silent).passed
    assert not verify(network(), network(edits={"W1": 1.0}), [*silent, *inputs()]).passed
    assert not verify(network(), network(edits={"W1": 1.0}), [*inputs(), *silent]).passed


def test_another_output_shape_fails_with_the_numbers() -> None:
    wider = TEXT.replace("float[2,4] W2, float[2] B2", "float[3,4] W2, float[3] B2").replace("[N,2] y", "[N,3] y")
    found = verify(network(), network(wider), inputs())
    assert failure(found) == "output y: shape should be [3, 2] and is [3, 3]"
    assert found.snr_db == -math.inf


def test_renamed_outputs_fail() -> None:
    renamed = TEXT.replace("[N,2] y", "[N,2] z").replace("y = Gemm", "z = Gemm")
    assert "outputs should be ['y'] and are ['z']" in failure(verify(network(), network(renamed), inputs()))


def test_an_additional_output_fails() -> None:
    more = TEXT.replace("(float[N,2] y)", "(float[N,2] y, float[N,4] f)")
    assert "['y', 'f']" in failure(verify(network(), network(more), inputs()))


def test_a_shrunk_model_that_does_not_load_or_run_fails_and_names_the_node() -> None:
    torn = network(TEXT.replace("float[2,4] W2", "float[2,3] W2"))
    found = verify(network(), torn, inputs(), kept=whole)
    assert "does not run" in failure(found)
    assert "tensor y, computed by Gemm (y), is the first to differ" in failure(found)
    assert found.snr_db == -math.inf


def test_a_masked_model_that_does_not_run_is_the_callers_error() -> None:
    with pytest.raises(ModelFileError, match="runs with x"):
        verify(network(), network(), inputs((3, 2, 4, 4)))


def test_no_inputs_are_refused() -> None:
    with pytest.raises(OptionError, match="at least one input"):
        verify(network(), network(), [])
    with pytest.raises(OptionError, match="threads"):
        verify(network(), network(), inputs(), threads=0)
    with pytest.raises(OptionError, match="share"):
        verify(network(), network(), inputs(), exact_may_differ=2.0)


def test_a_failed_verification_raises_with_the_tensor_and_its_operator() -> None:
    found = verify(network(), network(edits={"W1": 0.5}), inputs(), kept=whole)
    with pytest.raises(VerificationError, match=r"tensor c, computed by Conv \(c\)") as caught:
        require(found)
    assert caught.value.exit_status == 4


def test_a_verification_cannot_contradict_itself() -> None:
    with pytest.raises(ValueError, match="names a difference"):
        replace(verify(network(), network(), inputs()), passed=False)


@pytest.mark.parametrize(("weight", "tensor", "operator"), [("W1", "c", "Conv"), ("W2", "y", "Gemm")])
def test_locate_names_the_first_tensor_that_differs(weight: str, tensor: str, operator: str) -> None:
    found = locate(network(), network(edits={weight: 0.5}), inputs(), whole, threshold_db=80)
    assert found is not None
    assert (found.tensor, found.operator, found.node) == (tensor, operator, tensor)
    assert "dB" in found.found


def test_locate_finds_nothing_between_equal_models() -> None:
    assert locate(network(), network(), inputs(), whole, threshold_db=80) is None


def test_locate_compares_surviving_positions_only() -> None:
    masked, shrunk = (
        network(),
        network(TEXT.replace("[4,3,3,3] W1, float[4] B1, float[2,4] W2", "[2,3,3,3] W1, float[2] B1, float[2,2] W2")),
    )
    stays = np.array([1, 3])
    for weight, axis in (("W1", 0), ("B1", 0), ("W2", 1)):
        full = masked.ir.graph.initializers[weight]
        array = full.const_value.numpy().copy() if full.const_value is not None else np.zeros(0)
        set_weight(shrunk, weight, np.take(array, stays, axis=axis))
        if weight == "W2":
            array[:, [0, 2]] = 0
            set_weight(masked, weight, array)
    for name in ("B2",):
        value = masked.ir.graph.initializers[name].const_value
        assert value is not None
        set_weight(shrunk, name, value.numpy())

    def kept(name: str, shape: tuple[int, ...]) -> tuple[NDArray[np.int64] | None, ...] | None:
        axes = {"c": 4, "r": 4, "p": 4, "f": 2}.get(name)
        return None if axes is None else (None, stays, *[None] * (axes - 2))

    assert verify(masked, shrunk, inputs(), kept=kept).passed
    assert locate(masked, shrunk, inputs(), kept, threshold_db=80) is None
    others = (None, np.array([0, 3]), None, None)
    wrong = locate(masked, shrunk, inputs(), lambda name, _: others if name == "c" else None, threshold_db=80)
    assert wrong is not None
    assert wrong.tensor == "c"


def set_weight(model: Model, name: str, array: NDArray[np.generic]) -> None:
    value = model.ir.graph.initializers[name]
    value.const_value = onnx_ir.Tensor(np.ascontiguousarray(array), name=name)
    value.shape = onnx_ir.Shape(array.shape)


def test_locate_passes_over_shapes_that_differ_by_right() -> None:
    chain = """
    <ir_version: 8, opset_import: ["" : 17]>
    network (float[N,3] x) => (float[N,2] y)
    <float[3,{n}] W1, float[{n},2] W2, int64[1] tail = {{-1}}, int64[1] start = {{0}}, int64[1] stop = {{1}}>
    {{
       h = MatMul (x, W1)
       s = Shape (h)
       n = Slice (s, start, stop)
       t = Concat <axis: int = 0> (n, tail)
       w = Cast <to: int = 1> (s)
       r = Reshape (h, t)
       y = MatMul (r, W2)
    }}
    """
    masked, shrunk = network(chain.format(n=4)), network(chain.format(n=2))
    stays = np.array([0, 2])
    first, second = (masked.ir.graph.initializers[name].const_value for name in ("W1", "W2"))
    assert first is not None
    assert second is not None
    reader = second.numpy().copy()
    reader[[1, 3]] = 0
    set_weight(masked, "W2", reader)
    set_weight(shrunk, "W1", first.numpy()[:, stays])
    set_weight(shrunk, "W2", reader[stays])
    assert verify(masked, shrunk, inputs((3, 3))).passed

    def kept(name: str, shape: tuple[int, ...]) -> tuple[NDArray[np.int64] | None, ...] | None:
        return (None, stays) if name in ("h", "r") else None

    assert locate(masked, shrunk, inputs((3, 3)), kept, threshold_db=80) is None


def test_class_ids_are_compared_exactly() -> None:
    text = TEXT.replace("(float[N,2] y)", "(int64[N,1] k)").replace(
        "(f, W2, B2)", "(f, W2, B2)\n   k = ArgMax <axis: int = 1> (y)"
    )
    assert verify(network(text), network(text), inputs()).passed
    found = verify(network(text), network(text, edits={"B2": 100.0}), inputs())
    assert "must be equal differ" in failure(found)
    assert found.exact_mismatch > 0
    assert verify(network(text), network(text, edits={"B2": 100.0}), inputs(), exact_may_differ=1.0).passed


def test_maps_of_a_scikit_learn_tail_are_compared() -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17, "ai.onnx.ml" : 1]>
    network (float[N,3] x) => (seq(map(string, float)) z)
    <float[3,2] W1>
    {
       h = MatMul (x, W1)
       p = Softmax (h)
       z = ai.onnx.ml.ZipMap <classlabels_strings: strings = ["cat", "dog"]> (p)
    }
    """
    assert verify(network(text), network(text), inputs((3, 3))).passed
    assert "dB" in failure(verify(network(text), network(text, edits={"W1": 0.1}), inputs((3, 3))))
    renamed = text.replace('"dog"', '"cow"')
    assert "on one side only" in failure(verify(network(text), network(renamed), inputs((3, 3))))


def test_half_precision_lowers_what_is_demanded_and_says_so() -> None:
    half = TEXT.replace("r = Relu (c)", "d = Cast <to: int = 10> (c)\n   e = Cast <to: int = 1> (d)\n   r = Relu (e)")
    found = verify(network(half), network(half), inputs())
    assert found.threshold_db == 40.0
    assert verify(network(half), network(half, edits={"W2": 1e-3}), inputs()).passed
    assert not verify(network(half), network(half, edits={"W2": 0.5}), inputs()).passed
    assert verify(network(half), network(half), inputs(), threshold_db=30.0).threshold_db == 30.0


def test_a_newer_ir_version_than_the_engine_reads_is_restamped() -> None:
    newer = network(TEXT.replace("ir_version: 8", "ir_version: 13"))
    assert verify(newer, network(), inputs()).passed
    assert newer.ir.ir_version == 13


def test_a_model_that_runs_but_is_not_valid_onnx_fails() -> None:
    stale = network(TEXT)
    for node in stale.ir.graph:
        if node.op_type == "Relu":
            node.outputs[0].shape = onnx_ir.Shape([3, 5, 4, 4])  # recorded wrongly; the runtime only warns
            node.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    assert "is not valid ONNX although the original is" in failure(verify(network(), stale, inputs()))


def test_an_output_that_hardly_depends_on_the_input_is_named() -> None:
    dead = network(edits={"B2": 1e6})
    assert verify(dead, dead, inputs()).blind == ("y",)
    assert verify(network(), network(), inputs()).blind == ()


def test_what_only_the_reference_evaluator_runs_is_no_proof_where_onnxruntime_runs_the_original() -> None:
    twice = network()
    for node in twice.ir.graph:
        node.name = "same"  # valid ONNX, which onnxruntime refuses
    assert "two nodes with same node name" in failure(verify(network(), twice, inputs()))
    assert verify(twice, twice, inputs()).passed


FUSED = """
<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
network (float[N,3,4,4] x) => (float[N,4,4,4] y)
<float[{width},3,1,1] W1, float[{width},{width},1,1] W2, float[{width}] B2, float[4,{width},1,1] W3>
{{
   q = Conv (x, W1)
   z = com.microsoft.FusedConv <activation: string = "LeakyRelu", activation_params: floats = [0.1]> (q, W2, B2, q)
   y = Conv (z, W3)
}}
"""


def test_what_runs_node_by_node_and_not_as_it_is_deployed_is_no_proof() -> None:
    # onnxruntime's blocked convolutions refuse to add to a number of channels that is no multiple of a block.
    whole, narrow = network(FUSED.format(width=16)), network(FUSED.format(width=6))
    feed = inputs()[0]
    proof = verify(narrow, narrow, inputs())
    assert proof.passed
    found = as_deployed(proof, whole, narrow, feed)
    assert "with its graph optimisations" in failure(found)
    assert found.snr_db == -math.inf
    assert as_deployed(proof, whole, whole, feed) is proof
    assert as_deployed(proof, narrow, narrow, feed) is proof  # the original does not run like that either
    assert as_deployed(found, whole, whole, feed) is found
