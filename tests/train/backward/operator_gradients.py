"""What training makes of every operator of the rule table, found by running it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxadmm.errors import NotTrainableError
from onnxadmm.operators.table import Operator
from onnxadmm.train.data.batches import Batch
from onnxadmm.train.engine import EngineChoice
from onnxadmm.train.evaluate import Predictor
from onnxadmm.train.prepare.nodes import label
from onnxadmm.train.trainer import OrtTrainer
from tests.graphs import feeds
from tests.samples_text import load_sample
from tests.train.cases import MSE, Case, errors_of
from tests.train.graphs import Array, DoubleGraph, random
from tests.train.lowering.test_foreign import CASES as EXPANDED
from tests.train.lowering.test_table import CASES as LOWERED
from tests.train.lowering.test_table import OWN

BATCH = 3
#: Weights of a sample that are moved one direction each.
_DIRECTIONS = 3
#: Relative difference of outputs up to which ONNX's reference implementation computes what the runtime computes.
_SAME_VALUE = 1e-3
#: Samples that cannot be asked, so that other forms speak for the operator: two write one position several times, which
#: has no gradient, and onnxruntime 1.19 fails to run the third, fused with an addition, in its own layout.
_MUTE = frozenset({"Scatter", "ScatterElements", "FusedConv"})

LossAt = Callable[[str, NDArray[np.float64]], float]


@dataclass(frozen=True)
class Outcome:
    """What happened to an operator.

    Attributes:
        training: ``"yes"`` where gradients pass it, ``"none"`` where its results carry none by their nature,
            ``"refused"`` where the model is refused by the operator's name.
        forms: graphs whose gradients were compared with differences.
        error: largest difference of a directional derivative, relative to the largest gradient's norm.
    """

    training: str
    forms: int = 0
    error: float = 0.0


def outcome_of(rule: Operator, engine: EngineChoice = "auto") -> Outcome:
    """Train through the sample of an operator, and through every further form the tests know of it."""
    forms = forms_of(rule)
    model = load_sample(rule.name, domain=rule.domain)
    node = next(node for node in model.graph.node if node.op_type == rule.name)
    try:
        trained, errors = (True, []) if rule.name in _MUTE else _sample_error(model, node, engine)
    except NotTrainableError as error:
        if not any(label(refused) in str(error) for refused in _with_neighbours(model, node)):
            raise
        return Outcome("refused")
    errors += [errors_of(case, engine=engine)[1] for case in forms]
    if rule.gradient == "zero" or not (trained or forms):
        return Outcome("none")
    return Outcome("yes", len(errors), max(errors))


def forms_of(rule: Operator) -> list[Case]:
    """Graphs of the lowering and expansion tests that are about this operator."""
    expanded = EXPANDED.get((rule.domain, rule.name), [])
    return expanded if rule.domain else [*LOWERED.get(rule.name, []), *OWN.get(rule.name, []), *expanded]


def _with_neighbours(model: onnx.ModelProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The node and what reads and writes its values: of a chain of integers the first on the path is named."""
    values = {*node.input, *node.output}
    return [other for other in model.graph.node if values & {*other.input, *other.output}]


def _sample_error(model: onnx.ModelProto, node: onnx.NodeProto, engine: EngineChoice) -> tuple[bool, list[float]]:
    """Whether gradients pass the node, and the largest relative error of the slopes along some directions."""
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or BATCH
    inputs: dict[str, Array] = {**feeds(model, batch=BATCH, seed=1)}
    shapes = {name: array.shape[1:] for name, array in inputs.items()}
    with OrtTrainer(model, loss=MSE, batch_size=batch, input_shapes=shapes, engine=engine) as trainer:
        if not _above(model, node) & set(trainer.weights):
            return False, []
        plain = Predictor(model, task=MSE.task).logits(dict(inputs)).astype(np.float64)
        target = (plain + max(1.0, float(plain.std())) * random(plain.shape, seed=2)).astype(np.float32)
        trainer.backward(Batch(inputs, target, None, batch))
        gradients = {name: array.astype(np.float64) for name, array in trainer.gradients.items()}
    loss, steps = _loss_of(model, inputs, plain, target)
    generator = np.random.default_rng(3)
    worst, largest = 0.0, 1e-3
    for name, gradient in list(gradients.items())[:_DIRECTIONS]:
        # Of a bias that a normalisation takes out again the gradient is 0 but for rounding: the largest is the measure.
        largest = max(largest, float(np.linalg.norm(gradient)))
        for along in (gradient, generator.standard_normal(gradient.shape)):
            direction = along / (float(np.linalg.norm(along)) or 1.0)
            promised = float((gradient * direction).sum())
            slopes = [(loss(name, step * direction) - loss(name, -step * direction)) / (2 * step) for step in steps]
            worst = max(worst, min(abs(slope - promised) for slope in slopes))
    return True, [worst / largest]


def _above(model: onnx.ModelProto, node: onnx.NodeProto) -> set[str]:
    """Everything the inputs of a node are computed from."""
    producers = {name: other for other in model.graph.node for name in other.output}
    found: set[str] = set()
    pending = list(node.input)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending.extend(producers[name].input if name in producers else ())
    return found


def _loss_of(
    model: onnx.ModelProto, inputs: Mapping[str, Array], plain: NDArray[np.float64], target: Array
) -> tuple[LossAt, tuple[float, ...]]:
    """The loss with one weight moved, in float64 where ONNX's reference implementation agrees with the runtime.

    Returns:
        The loss, and the lengths of steps to try: differences of float32 are noisy for short ones and bent for long.
    """
    try:
        graph = DoubleGraph(model)
        agrees = np.abs(graph.run(inputs) - plain).max() <= _SAME_VALUE * max(1.0, np.abs(plain).max())
    except Exception:
        # The reference implementation refuses some types and operators in a class of its own for each.
        agrees = False
    if agrees:

        def in_double(name: str, step: NDArray[np.float64]) -> float:
            graph.weights[name] = graph.weights[name] + step
            result = float(((graph.run(inputs) - target) ** 2).mean())
            graph.weights[name] = graph.weights[name] - step
            return result

        return in_double, (1e-6, 1e-4, 1e-3)  # some of its operators compute in float32 all the same
    predictor = Predictor(model, task=MSE.task, replaceable=[tensor.name for tensor in model.graph.initializer])
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    def in_single(name: str, step: NDArray[np.float64]) -> float:
        moved = (stored[name] + step).astype(np.float32)
        logits = predictor.logits(dict(inputs), constants={name: moved}).astype(np.float64)
        return float(((logits - target) ** 2).mean())

    return in_single, (2e-3, 1e-2, 5e-4)
