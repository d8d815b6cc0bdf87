"""Small networks with convolutions and normalisations, and batches for them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxadmm.graph.constants import constant, constants_by_name
from onnxadmm.graph.model import Model, from_proto, to_proto
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.norm_restore import Network
from onnxadmm.train.trainer import OrtTrainer
from tests.train.graphs import Array, model_of, random

MSE = Loss(Task.MSE)
SIZE = 8


def conv(source: str, output: str, weight: str, bias: str | None = None, **attributes: Any) -> onnx.NodeProto:
    inputs = [source, weight] if bias is None else [source, weight, bias]
    return helper.make_node("Conv", inputs, [output], name=f"make_{output}", pads=[1, 1, 1, 1], **attributes)


def norm(source: str, output: str, prefix: str = "n") -> onnx.NodeProto:
    inputs = [source, *(f"{prefix}.{part}" for part in ("scale", "shift", "mean", "var"))]
    return helper.make_node("BatchNormalization", inputs, [output], name=f"make_{output}", epsilon=1e-3)


def op(operator: str, *inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [output], name=f"make_{output}", **attributes)


def statistics(channels: int, prefix: str = "n") -> dict[str, Array]:
    return {
        f"{prefix}.scale": 1 + random([channels], seed=21, scale=0.2),
        f"{prefix}.shift": random([channels], seed=22),
        f"{prefix}.mean": random([channels], seed=23),
        f"{prefix}.var": np.abs(random([channels], seed=24)) + np.float32(0.5),
    }


def network(*nodes: onnx.NodeProto, weights: Mapping[str, Array], width: int = 4) -> Model:
    """Nodes from ``x`` [N, 3, 6, 6] to ``y`` [N, width, ...], then pooling and a linear layer."""
    tail = [
        op("GlobalAveragePool", "y", output="pooled"),
        op("Flatten", "pooled", output="flat"),
        op("Gemm", "flat", "v", output="out"),
    ]
    whole = {**weights, "v": random([width, 3], seed=3)}
    return from_proto(model_of([*nodes, *tail], inputs={"x": ["N", 3, 6, 6]}, outputs=["out"], weights=whole, opset=17))


def kernel(out: int, into: int, seed: int, size: int = 3) -> Array:
    return random([out, into, size, size], seed=seed, scale=0.3)


def residual() -> Model:
    """A convolution, a depthwise one, and one whose result is added to the first's."""
    return network(
        conv("x", "c1", "w1", "b1"),
        op("Relu", "c1", output="r1"),
        conv("r1", "c2", "w2", "b2", group=4),
        op("Relu", "c2", output="r2"),
        conv("r2", "c3", "w3", "b3", group=2),
        op("Add", "c3", "r1", output="s"),
        op("Relu", "s", output="y"),
        weights={
            "w1": kernel(4, 3, 1),
            "w2": kernel(4, 1, 2),
            "w3": kernel(4, 2, 4),
            **{f"b{index}": random([4], seed=10 + index) for index in (1, 2, 3)},
        },
    )


def batches(count: int = 3, seed: int = 0, size: int = SIZE) -> list[Batch]:
    shift = np.linspace(-1, 1, 3, dtype=np.float32)[:, None, None]
    return [
        Batch({"x": random([size, 3, 6, 6], seed=seed + index) + shift}, None, None, size) for index in range(count)
    ]


def logits(model: Model, batch: Batch) -> NDArray[np.float32]:
    return Predictor(model, task=Task.MSE).logits(dict(batch.inputs))


def arrays(model: Model) -> dict[str, Array]:
    found = {name: constant(value) for name, value in constants_by_name(model).items()}
    return {name: array for name, array in found.items() if array is not None}


def operators(model: Model) -> list[str]:
    return [node.op_type for node in model.ir.graph]


def trainer_of(made: Network, size: int = SIZE) -> OrtTrainer:
    return OrtTrainer(made.model, loss=MSE, batch_size=size, batch_statistics=made.batch_statistics)


# -- the rewrite ---------------------------------------------------------------------------------------------


def values_of(model: Model, name: str, given: list[Batch]) -> NDArray[np.float64]:
    """A value of all batches, computed by ONNX's reference implementation."""
    proto = to_proto(model)
    proto.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    evaluator = onnx.reference.ReferenceEvaluator(proto)
    parts = [evaluator.run([name], dict(batch.inputs))[0] for batch in given]
    return np.concatenate(parts).astype(np.float64)


FIRST = {"w1": kernel(4, 3, 1), "b1": random([4], seed=11)}
SECOND = {"w2": kernel(4, 4, 2), "b2": random([4], seed=12)}
