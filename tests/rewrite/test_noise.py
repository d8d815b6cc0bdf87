"""A difference within rounding passes, also where an output is saturated; a fault never does, there neither."""

from collections.abc import Callable
from functools import cache
from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.graph.model import Model, clone, load, to_proto
from onnxadmm.graph.runtime import open_session
from onnxadmm.rewrite.noise import GRACE_DB, MULTIPLE, noise_floors, without_saturation
from onnxadmm.rewrite.verify import Verification, verify
from tests.rewrite.test_verify import set_weight

Array = NDArray[np.float32]
#: So wide that the sums of the original and of its half are added up in different orders.
HIDDEN = 1500
INPUTS = 20
CLASSES = 10


@cache
def weights(seed: int, bias: float) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {
        "W1": (random.standard_normal((HIDDEN, INPUTS)) / 4).astype(np.float32),
        "W2": (random.standard_normal((CLASSES, HIDDEN)) / 100).astype(np.float32),
        "B2": (bias + random.standard_normal(CLASSES) / 4).astype(np.float32),
        "S": random.uniform(0.5, 2.0, CLASSES).astype(np.float32),
    }


def network(arrays: dict[str, Array]) -> Model:
    """Two layers, a function that saturates, and a factor for each class."""
    nodes = [
        helper.make_node("Gemm", ["x", "W1"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "W2", "B2"], ["l"], transB=1),
        helper.make_node("Sigmoid", ["l"], ["p"]),
        helper.make_node("Mul", ["p", "S"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "saturated",
        [value("x", TensorProto.FLOAT, ["N", INPUTS])],
        [value("y", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def pair(seed: int, bias: float) -> tuple[Model, Model]:
    """A masked network and the same without every second hidden unit."""
    arrays = weights(seed, bias)
    masked, shrunk = dict(arrays), dict(arrays)
    masked["W2"] = arrays["W2"].copy()
    masked["W2"][:, 1::2] = 0
    shrunk["W1"], shrunk["W2"] = arrays["W1"][::2], arrays["W2"][:, ::2]
    return network(masked), network(shrunk)


def inputs(batch: int = 3) -> list[dict[str, Array]]:
    random = np.random.default_rng(1)
    return [{"x": random.standard_normal((batch, INPUTS)).astype(np.float32)} for _ in range(2)]


def weight(model: Model, name: str) -> Array:
    value = model.ir.graph.initializers[name].const_value
    assert value is not None
    return value.numpy().copy()


@pytest.mark.parametrize("bias", [-10.0, -15.0])
def test_a_saturated_output_passes_within_rounding_and_the_figures_are_stated(bias: float) -> None:
    found = verify(*pair(0, bias), inputs())
    assert found.passed
    assert found.snr_db < 80
    (line,) = found.within_noise
    assert line.output == "y"
    assert line.snr_db == found.snr_db
    assert 0 < line.difference <= MULTIPLE * line.floor
    assert (line.unsaturated_db is not None) == (line.snr_db < 80 - GRACE_DB)
    assert "times what rounding alone changes in the masked original" in str(line)


def test_an_output_that_reaches_the_ratio_needs_no_floor() -> None:
    found = verify(*pair(0, 0.0), inputs())
    assert found.passed
    assert found.snr_db > 100
    assert found.within_noise == ()


def test_the_floor_is_of_the_size_of_rounding_and_zero_weights_stay_zero() -> None:
    masked, _ = pair(0, 0.0)
    with open_session(masked, as_written=True) as session:
        expected = [session.run(feed) for feed in inputs()]
    for floor in noise_floors(masked, inputs(), expected, threads=1):
        assert 1e-9 < floor["y"] < 1e-5
    assert not weight(masked, "W2")[:, 1::2].any()


def test_functions_that_saturate_are_taken_off_up_to_the_layer_before_them() -> None:
    masked, _ = pair(0, 0.0)
    plain, replaced = without_saturation(masked, "y")
    assert replaced == ("p",)
    assert [node.op_type for node in plain.ir.graph] == ["Gemm", "Relu", "Gemm", "Identity", "Mul"]
    assert [node.op_type for node in masked.ir.graph][3] == "Sigmoid"


def another_unit(model: Model, amount: float) -> None:
    """Some units' columns come from their neighbours."""
    array = weight(model, "W2")
    array[:, :8] += np.float32(amount) * (array[:, 8:16] - array[:, :8])
    set_weight(model, "W2", array)


def another_class(model: Model, amount: float) -> None:
    """The factors behind the function that saturates stand at other classes."""
    array = weight(model, "S")
    set_weight(model, "S", array + np.float32(amount) * (np.roll(array, 1) - array))


def another_bias(model: Model, amount: float) -> None:
    array = weight(model, "B2")
    set_weight(model, "B2", array + np.float32(amount) * np.float32(0.1))


Fault = Callable[[Model, float], None]
FAULTS: tuple[Fault, ...] = (another_unit, another_class, another_bias)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 5),
    bias=st.sampled_from([0.0, -5.0, -10.0, -14.0, -16.0, -17.0, -18.5, -30.0]),
    amount=st.sampled_from([1.0, 0.5, 0.3]),
    fault=st.sampled_from(FAULTS),
)
def test_no_fault_passes_behind_a_saturated_output(seed: int, bias: float, amount: float, fault: Fault) -> None:
    masked, shrunk = pair(seed, bias)
    assert verify(masked, shrunk, inputs()).passed
    faulty = clone(shrunk)
    fault(faulty, amount)
    assert not verify(masked, faulty, inputs()).passed


@pytest.mark.parametrize(("fault", "bias"), [*product(FAULTS, [-10.0, -16.0, -30.0])])
def test_a_fault_behind_a_saturated_output_fails(fault: Fault, bias: float) -> None:
    masked, shrunk = pair(0, bias)
    fault(shrunk, 1.0)
    assert not verify(masked, shrunk, inputs()).passed


def worst_agreement(found: Verification) -> float:
    """The ratio that stands behind a verdict: of the worst output, or of what is before it where it is saturated."""
    lines = [line.snr_db if line.unsaturated_db is None else line.unsaturated_db for line in found.within_noise]
    return min(lines) if lines else found.snr_db


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 5),
    bias=st.sampled_from([0.0, -10.0, -15.0, -17.0]),
    exponent=st.floats(-8.0, 0.0),
    fault=st.sampled_from(FAULTS),
)
def test_whatever_passes_agreed_to_what_is_asked_less_the_grace(
    seed: int, bias: float, exponent: float, fault: Fault
) -> None:
    """Faults of any size: the criterion of noise never accepts one above a thousandth of what the network computes."""
    masked, shrunk = pair(seed, bias)
    fault(shrunk, 10.0**exponent)
    found = verify(masked, shrunk, inputs())
    if found.passed:
        assert worst_agreement(found) >= 80 - GRACE_DB


def test_noise_never_excuses_another_shape_or_a_network_that_does_not_run() -> None:
    masked, _ = pair(0, -16.0)
    arrays = weights(0, -16.0) | {"S": np.ones((2, 1, CLASSES), np.float32)}
    assert not verify(masked, network(arrays), inputs()).passed


def test_the_original_is_not_changed_by_measuring_its_noise() -> None:
    masked, shrunk = pair(0, -16.0)
    before = to_proto(masked).SerializeToString(deterministic=True)
    verify(masked, shrunk, inputs())
    assert to_proto(masked).SerializeToString(deterministic=True) == before
