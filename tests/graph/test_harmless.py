"""What is called harmless is: small networks of such operators at all kinds of odd sizes, each in another process."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.printer
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.graph.harmless import _CHECKING, _CHECKS, is_harmless
from onnxadmm.graph.model import from_proto
from onnxadmm.graph.runtime import open_session
from onnxadmm.runtime.apart import ApartSession, CrashError, RefusedError
from onnxadmm.runtime.session import AS_WRITTEN, SessionOptions
from tests.samples_text import load_sample, sample_names

Draw = Callable[[np.random.Generator], onnx.ModelProto]
SIZES = (0, 1, 1, 2, 3, 4, 7)


def _model(node: onnx.NodeProto, shape: list[int], **weights: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [node],
        "odd",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"d{axis}" for axis in range(len(shape))])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _lengths(random: np.random.Generator, count: int) -> list[int]:
    return [int(length) for length in random.choice(SIZES, count)]


def _window(random: np.random.Generator, axes: int) -> dict[str, Any]:
    return {
        "strides": [int(number) for number in random.integers(1, 4, axes)],
        "pads": [int(number) for number in random.integers(0, 5, 2 * axes)],
        "dilations": [int(number) for number in random.integers(1, 4, axes)],
    }


def convolution(random: np.random.Generator, operator: str = "Conv") -> onnx.ModelProto:
    axes, group = int(random.integers(1, 4)), int(random.integers(1, 4))
    weight = np.ones([max(length, 1) for length in _lengths(random, 2 + axes)], np.float32)
    node = helper.make_node(operator, ["x", "W"], ["y"], group=group, **_window(random, axes))
    channels = weight.shape[1] * group if operator == "Conv" else weight.shape[0]
    shape = [*_lengths(random, 1), channels if random.random() < 0.8 else 5, *_lengths(random, axes)]
    return _model(node, shape, W=weight)


def transposed(random: np.random.Generator) -> onnx.ModelProto:
    return convolution(random, "ConvTranspose")


def pool(random: np.random.Generator) -> onnx.ModelProto:
    axes = int(random.integers(1, 4))
    settings = _window(random, axes)
    operator = "MaxPool" if random.random() < 0.5 else "AveragePool"
    if operator == "AveragePool":
        del settings["dilations"]
    kernel = [int(number) for number in random.integers(1, 6, axes)]
    node = helper.make_node(operator, ["x"], ["y"], kernel_shape=kernel, **settings)
    return _model(node, _lengths(random, 2 + axes))


def normalisation(random: np.random.Generator) -> onnx.ModelProto:
    shape = _lengths(random, int(random.integers(1, 5)))
    kind = random.choice(["LayerNormalization", "InstanceNormalization", "ReduceMean", "ReduceL2", "Softmax"])
    axis = int(random.integers(-4, 4))
    some = np.ones(max(int(random.choice(SIZES)), 1), np.float32)
    if kind == "LayerNormalization":
        return _model(helper.make_node(kind, ["x", "s"], ["y"], axis=axis), shape, s=some)
    if kind == "InstanceNormalization":
        return _model(helper.make_node(kind, ["x", "s", "s"], ["y"]), shape, s=some)
    if kind == "Softmax":
        return _model(helper.make_node(kind, ["x"], ["y"], axis=axis), shape)
    return _model(helper.make_node(kind, ["x"], ["y"], axes=[axis]), shape)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [convolution, transposed, pool, normalisation])
@pytest.mark.parametrize("optimised", [False, True], ids=["as written", "optimised"])
def test_no_operator_that_is_called_harmless_crashes_at_odd_sizes(draw: Draw, optimised: bool) -> None:
    random = np.random.default_rng(int(optimised))
    options = SessionOptions() if optimised else AS_WRITTEN
    ran = 0
    for number in range(150):
        model = draw(random)
        if not is_harmless(from_proto(model)):
            continue
        shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
        try:
            session = ApartSession(
                model.SerializeToString(), {**vars(options), "spinning": options.spinning.name}, libraries=[]
            )
            session.run(["y"], {"x": np.ones(shape, np.float32)})
            ran += 1
        except RefusedError:
            continue
        except CrashError as error:
            pytest.fail(f"{error}: number {number}, {onnx.printer.to_text(model)}")
    assert ran > 10


def test_every_operator_of_the_list_exists() -> None:
    assert {name for name in (*_CHECKING, *_CHECKS) if not onnx.defs.has(name)} == set()


@pytest.mark.parametrize("name", [name for name in sample_names() if name in _CHECKING])
def test_samples_of_harmless_operators_open_in_this_process(name: str) -> None:
    model = from_proto(load_sample(name))
    if is_harmless(model):
        assert not isinstance(open_session(model)._loaded, ApartSession)
