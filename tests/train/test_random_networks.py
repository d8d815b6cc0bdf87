"""Random networks of every supported operator: the training copy is the same function, with the right gradient."""

import numpy as np
import onnx
import pytest

from onnxadmm.errors import NotTrainableError
from onnxadmm.train.artifacts import prepare
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.losses import Loss, Task
from onnxadmm.train.prepare.tail import cut_tail
from onnxadmm.train.trainer import OrtTrainer
from tests.graphs import feeds, random_graph
from tests.train.graphs import Array, DoubleGraph, random
from tests.train.oracle import gradient_error, mean_square_to

pytestmark = pytest.mark.usefixtures("engine")

MSE = Loss(Task.MSE)
SEEDS = range(80)
#: Operators the reference implementation computes with single numbers only, or not at all.
INEXACT_REFERENCE = {"Erf", "Mish", "Gelu", "QuickGelu"}


def network(seed: int) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A random network up to the logits of its first output, and inputs."""
    model = random_graph(seed)
    copy, _ = cut_tail(model, output=model.graph.output[0].name, keep_sigmoid=True)
    return copy, dict(feeds(model, seed=seed))


def refusal(model: onnx.ModelProto, batch_size: int) -> str | None:
    """Why the network cannot be trained, None when it can."""
    try:
        prepare(model, loss=MSE, batch_size=batch_size)
    except NotTrainableError as error:
        return str(error)
    return None


@pytest.mark.slow
def test_training_copy_computes_what_the_model_computes_and_has_its_gradient() -> None:
    trained = compared = 0
    for seed in SEEDS:
        model, inputs = network(seed)
        count = len(next(iter(inputs.values())))
        reason = refusal(model, count)
        if reason is not None:
            assert "operator with a gradient" in reason, f"seed {seed}: {reason}"
            continue
        trained += 1
        plain = Predictor(model, task=Task.MSE).logits(inputs)
        target = random(plain.shape, seed=seed)
        with OrtTrainer(model, loss=MSE, batch_size=count) as trainer:
            kept = {spec.name: inputs[spec.name] for spec in trainer.artifacts.inputs}
            trainer.backward(Batch(kept, target, None, count))
            scale = max(1.0, float(np.abs(plain).max()))
            np.testing.assert_allclose(trainer.logits, plain, atol=1e-4 * scale, err_msg=f"seed {seed}")
        if _reference_agrees(model, inputs, plain):
            compared += 1
            error = gradient_error(
                model, loss=MSE, inputs=kept, labels=target, oracle=mean_square_to(target), entries=2
            )
            assert error < 1e-3, f"seed {seed}"
    assert trained >= len(SEEDS) // 2
    assert compared >= len(SEEDS) // 3


def _reference_agrees(model: onnx.ModelProto, inputs: dict[str, Array], plain: Array) -> bool:
    """Whether ONNX's reference implementation computes this network at all; it has bugs of its own."""
    if INEXACT_REFERENCE & {node.op_type for node in model.graph.node}:
        return False
    try:
        result = DoubleGraph(model).run(inputs)
    except (NotImplementedError, ValueError):  # it does not have operators of other domains
        return False
    return result.shape == plain.shape and bool(np.allclose(result, plain, atol=1e-4))
