"""Small networks in ONNX's text form, with weights drawn at random."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from onnxadmm.graph.model import Model, from_proto

Array = NDArray[Any]


def network(
    text: str,
    weights: Mapping[str, Sequence[int]],
    *,
    seed: int = 0,
    constants: Mapping[str, Array] = MappingProxyType({}),
) -> Model:
    """Return a model of opset 17 with weights of some shapes, scaled so that outputs keep the size of the inputs.

    Args:
        text: nodes and signature, as ``g (float[N,3] x) => (float[N,2] y) { y = MatMul(x, w) }``.
        weights: shape of each weight.
        constants: other constants.
    """
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    generator = np.random.default_rng(seed)
    for name, shape in weights.items():
        fan_in = max(1, int(np.prod(shape[1:])) if len(shape) > 2 else shape[0])
        array = generator.standard_normal(shape).astype(np.float32) / np.sqrt(fan_in)
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    onnx.checker.check_model(model)
    return from_proto(model)


def convolutional(*, seed: int = 0) -> Model:
    """Two convolutions with a residual sum, a ReLU between them, and a dense layer on the mean: classes of 5."""
    return network(
        """g (float[N,3,8,8] x) => (float[N,5] y) {
            a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
            r = Relu (a)
            c = Conv <pads = [1, 1, 1, 1]> (r, w1, b1)
            s = Relu (c)
            d = Conv <pads = [1, 1, 1, 1]> (s, w2, b2)
            t = Add (r, d)
            u = Relu (t)
            m = GlobalAveragePool (u)
            f = Flatten (m)
            y = Gemm (f, w3, b3)
        }""",
        {"w0": [12, 3, 3, 3], "b0": [12], "w1": [16, 12, 3, 3], "b1": [16], "w2": [12, 16, 3, 3], "b2": [12],
         "w3": [12, 5], "b3": [5]},
        seed=seed,
    )  # fmt: skip


def squares(found: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> float:
    """Return squares of the differences of all outputs of floats, relative to those of the outputs."""
    total = 0.0
    for name in wanted[0]:
        ours, theirs = ([np.asarray(each[name]) for each in results] for results in (found, wanted))
        if theirs[0].dtype.kind == "f":
            pairs = zip(ours, theirs, strict=True)
            off = sum(float(np.square(one - two, dtype=np.float64).sum()) for one, two in pairs)
            total += off / max(sum(float(np.square(each, dtype=np.float64).sum()) for each in theirs), 1e-30)
    return total


def batches(model: Model, *, count: int = 4, size: int = 16, seed: int = 1) -> list[dict[str, Array]]:
    """Return inputs with some structure: a few patterns mixed at random, so that channels resemble each other."""
    generator = np.random.default_rng(seed)
    value = model.ir.graph.inputs[0]
    assert value.shape is not None
    lengths = [length for length in value.shape[1:] if isinstance(length, int)]
    patterns = generator.standard_normal((6, *lengths))
    made = []
    for _ in range(count):
        mixed = np.tensordot(generator.standard_normal((size, 6)), patterns, 1)
        noisy = mixed + 0.1 * generator.standard_normal(mixed.shape)
        made.append({value.name or "": noisy.astype(np.float32)})
    return made
