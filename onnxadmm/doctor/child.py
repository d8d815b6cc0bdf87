"""A product of bytes and a few training steps on a tiny network, for the doctor to run in a child process."""

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.bench.byte_products import byte_products_are_exact
from onnxadmm.child_process import end_with_parent
from onnxadmm.errors import OnnxAdmmError, TrainingUnavailableError
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.engine import Engine, choose_engine
from onnxadmm.train.losses import Loss
from onnxadmm.train.trainer import OrtTrainer

_BATCH: Final = 8
_CLASSES: Final = 3
_STEPS: Final = 10
_LEARNING_RATE: Final = 0.01
# Central differences of a float32 loss with this step agree with a right gradient to about one percent.
_STEP: Final = 1e-2
_TOLERANCE: Final = 0.05


def main() -> None:
    """Import onnxruntime, multiply and train; one JSON object per line tells stdout how far it came."""
    end_with_parent()
    _tell({"runtime": str(import_module("onnxruntime").__version__)})
    with suppress(OnnxAdmmError):
        _tell({"exact_bytes": byte_products_are_exact()})
    try:
        engines: tuple[Engine, ...] = ("plain",) if choose_engine() == "plain" else ("training", "plain")
        found = "; ".join(f"{engine} engine: {take_training_steps(engine)}" for engine in engines)
        _tell({"training": True, "found": found})
    except TrainingUnavailableError as error:
        _tell({"training": False, "found": error.found})
    except (OnnxAdmmError, ArithmeticError) as error:
        _tell({"training": False, "found": str(error)})


def take_training_steps(engine: Engine) -> str:
    """Train a convolution and a dense layer on random data and check a gradient of each.

    Args:
        engine: who computes them.

    Returns:
        What happened, in words.

    Raises:
        TrainingUnavailableError: the engine does not work here.
        ArithmeticError: it computes a wrong gradient, or the loss does not fall.
    """
    generator = np.random.default_rng(0)
    images = generator.standard_normal((_BATCH, 1, 6, 6)).astype(np.float32)
    labels = generator.integers(0, _CLASSES, _BATCH)
    batch = Batch({"x": images}, labels, None, count=_BATCH)
    with OrtTrainer(_network(generator), loss=Loss(), batch_size=_BATCH, engine=engine) as trainer:
        first = trainer.backward(batch)
        for name in trainer.weights:
            _check_gradient(trainer, batch, name)
        for _ in range(_STEPS):
            trainer.backward(batch)
            trainer.update(_LEARNING_RATE)
        last = trainer.backward(batch)
    if not last < first:
        raise ArithmeticError(f"{_STEPS} training steps took the loss from {first:.4g} to {last:.4g}")
    return f"{_STEPS} steps took the loss from {first:.3f} to {last:.3f}, gradients are right"


def _check_gradient(trainer: OrtTrainer, batch: Batch, name: str) -> None:
    """Compare the largest entry of a gradient with the central difference of the loss."""
    trainer.backward(batch)
    weight, gradient = trainer.weights[name].reshape(-1), trainer.gradients[name].reshape(-1).copy()
    index = int(np.argmax(np.abs(gradient)))
    kept = weight[index]
    weight[index] = kept + _STEP
    above = trainer.backward(batch)
    weight[index] = kept - _STEP
    below = trainer.backward(batch)
    weight[index] = kept
    measured = (above - below) / (2 * _STEP)
    if not abs(measured - gradient[index]) <= _TOLERANCE * abs(measured):
        raise ArithmeticError(f"the gradient of {name} is {gradient[index]:.4g}, the loss says {measured:.4g}")


def _network(generator: np.random.Generator) -> onnx.ModelProto:
    """Conv, Relu, Flatten, Gemm: ``[N, 1, 6, 6] -> [N, 3]``."""

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        return numpy_helper.from_array((scale * generator.standard_normal(shape)).astype(np.float32), name)

    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "conv"], ["h"], kernel_shape=[3, 3]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Flatten", ["r"], ["f"]),
            helper.make_node("Gemm", ["f", "dense"], ["y"], transB=1),
        ],
        "trial",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", _CLASSES])],
        [weight("conv", 4, 1, 3, 3), weight("dense", _CLASSES, 4 * 4 * 4)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _tell(document: Mapping[str, object]) -> None:
    # A crash in the next step must not take this line along.
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
