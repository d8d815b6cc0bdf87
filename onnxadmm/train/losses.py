"""The loss, as ordinary ONNX nodes appended to the training copy of a model.

With logits s, labels y, teacher logits t, weight of the teacher a and temperature T::

    total = (1 - a) * label_loss(s, y) + a * teacher_loss(s, t)

    task             label_loss                        teacher_loss
    cross-entropy    -log softmax(s)[y]                T^2 KL(softmax(t/T) || softmax(s/T))
    mse              (s - y)^2                         (s - t)^2
    bce              -log sigmoid(s) at y              T^2 KL(sigmoid(t/T) || sigmoid(s/T))

Each is a mean: over samples and positions for cross-entropy (class axis 1), over all elements otherwise. A position
whose label is ``IGNORED`` adds nothing to the label loss and counts in the mean, so that the loss of a batch is that of
its parts. With weights each summand of both terms is multiplied by that of its sample, or of its position, and the mean
stays one over all of them.
The teacher term is Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network" (2015), section 2;
T^2 keeps the size of its gradient independent of T. The KL is written out with the teacher's entropy, so a
student that equals its teacher has a loss of exactly 0.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxadmm.errors import NotTrainableError, OptionError

LOSS = "onnxadmm.loss"
LABELS = "onnxadmm.labels"
TEACHER = "onnxadmm.teacher"
WEIGHTS = "onnxadmm.weights"
#: The class of samples and positions without a label.
IGNORED = -100


class Task(Enum):
    """What the logits mean, and with it both loss terms."""

    CROSS_ENTROPY = "cross-entropy"
    MSE = "mse"
    BCE = "bce"


@dataclass(frozen=True)
class Loss:
    """A label loss, a teacher, or both.

    Attributes:
        task: what the logits mean.
        distillation: weight a of the teacher in [0, 1]; 0 needs no teacher, 1 needs no labels.
        temperature: T > 0 of the teacher term (without effect for ``Task.MSE``).
        gaps: whether some class labels are ``IGNORED``.
        weighted: whether samples, or for cross-entropy positions, have weights.
    """

    task: Task = Task.CROSS_ENTROPY
    distillation: float = 0.0
    temperature: float = 1.0
    gaps: bool = False
    weighted: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.distillation <= 1.0:
            raise OptionError(
                "--distillation",
                expected="a weight from 0 to 1",
                found=str(self.distillation),
                way_out="use 0 for labels only, 1 for the teacher only",
            )
        if not 0.0 < self.temperature < float("inf"):
            raise OptionError(
                "--temperature", expected="a number above 0", found=str(self.temperature), way_out="1 to 8 are usual"
            )

    @property
    def needs_labels(self) -> bool:
        return self.distillation < 1.0

    @property
    def needs_teacher(self) -> bool:
        return self.distillation > 0.0

    def label_dtype(self) -> type[np.int64] | type[np.float32]:
        """dtype labels must have when they reach the engine."""
        return np.int64 if self.task is Task.CROSS_ENTROPY else np.float32

    def label_shape(self, logits: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the labels of a batch whose logits have the shape ``[N, C, ...]``: ``[N, ...]`` or the same."""
        return (logits[0], *logits[2:]) if self.task is Task.CROSS_ENTROPY else logits

    def weight_shape(self, logits: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the weights of such a batch: one of a label for cross-entropy, else ``[N, 1, ...]``."""
        return self.label_shape(logits) if self.task is Task.CROSS_ENTROPY else (logits[0], *[1] * (len(logits) - 1))


class _Nodes:
    """Appends nodes and constants to a graph under names of one prefix."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"{LOSS}.{self._count}"

    def scalar(self, value: float) -> str:
        name = self.name()
        self._graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def shape(self, sizes: tuple[int, ...]) -> str:
        name = self.name()
        self._graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
        return name

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output if output is not None else self.name()
        self._graph.node.append(helper.make_node(operator, inputs, [name], name=f"{name}/{operator}", **attributes))
        return name

    def cross_entropy(self, logits: str, **attributes: Any) -> str:
        # The log-probabilities are an optional output that the engine's gradient reads.
        term = self.name()
        names = [term, self.name()]
        self._graph.node.append(
            helper.make_node("SoftmaxCrossEntropyLoss", [logits, LABELS], names, name=f"{term}/loss", **attributes)
        )
        return term

    def mean(self, value: str, divisor: int, weights: str | None = None) -> str:
        if weights is not None:
            value = self.add("Mul", value, weights)
        total = self.add("ReduceSum", value, keepdims=0)
        return self.add("Mul", total, self.scalar(1.0 / divisor))


def append_loss(
    model: onnx.ModelProto, *, logits: str, shape: tuple[int, ...], loss: Loss, written_out: bool = False
) -> tuple[str, ...]:
    """Append ``loss`` to a float32 graph of opset 13 or newer, as output ``LOSS``.

    Args:
        model: changed in place; inputs ``LABELS``, ``TEACHER`` and ``WEIGHTS`` are added as the loss needs them.
        logits: name of the float32 tensor the loss is taken of.
        shape: its shape, all known, ``[N, C, ...]`` for cross-entropy.
        written_out: in operators that every onnxruntime has a kernel for.

    Returns:
        Names of the inputs added.

    Raises:
        NotTrainableError: cross-entropy on logits without a class axis.
    """
    if loss.task is Task.CROSS_ENTROPY and (len(shape) < 2 or shape[1] < 2):
        raise NotTrainableError(
            f"output {logits}",
            expected="logits [N, C, ...] with at least 2 classes on axis 1 for cross-entropy",
            found=f"shape {list(shape)}",
            way_out="use --loss bce or mse",
        )
    nodes = _Nodes(model.graph)
    added: list[str] = []
    terms: list[tuple[float, str]] = []
    if loss.weighted:
        model.graph.input.append(helper.make_tensor_value_info(WEIGHTS, TensorProto.FLOAT, loss.weight_shape(shape)))
        added.append(WEIGHTS)
    if loss.needs_labels:
        kind = TensorProto.INT64 if loss.task is Task.CROSS_ENTROPY else TensorProto.FLOAT
        model.graph.input.append(helper.make_tensor_value_info(LABELS, kind, loss.label_shape(shape)))
        added.append(LABELS)
        terms.append((1.0 - loss.distillation, _label_term(nodes, logits, shape, loss, written_out)))
    if loss.needs_teacher:
        model.graph.input.append(helper.make_tensor_value_info(TEACHER, TensorProto.FLOAT, shape))
        added.append(TEACHER)
        terms.append((loss.distillation, _teacher_term(nodes, logits, shape, loss)))
    scaled = [nodes.add("Mul", term, nodes.scalar(weight)) for weight, term in terms]
    if len(scaled) == 2:
        nodes.add("Add", *scaled, output=LOSS)
    else:
        nodes.add("Identity", scaled[0], output=LOSS)
    model.graph.output.append(helper.make_tensor_value_info(LOSS, TensorProto.FLOAT, []))
    return tuple(added)


def _label_term(nodes: _Nodes, logits: str, shape: tuple[int, ...], loss: Loss, written_out: bool) -> str:
    size, weights = int(np.prod(shape)), WEIGHTS if loss.weighted else None
    if loss.task is Task.CROSS_ENTROPY and written_out:
        likely = _likelihoods(nodes, logits, gaps=loss.gaps or loss.weighted)
        return nodes.add("Neg", nodes.mean(likely, size // shape[1], weights))
    if loss.task is Task.CROSS_ENTROPY:
        if weights is not None:
            each = nodes.cross_entropy(logits, reduction="none", ignore_index=IGNORED)
            return nodes.mean(each, size // shape[1], weights)
        if not loss.gaps:
            return nodes.cross_entropy(logits, reduction="mean")
        total = nodes.cross_entropy(logits, reduction="sum", ignore_index=IGNORED)
        return nodes.add("Mul", total, nodes.scalar(shape[1] / size))
    if loss.task is Task.MSE:
        return _mean_square(nodes, logits, LABELS, size, weights)
    return nodes.mean(_binary_cross_entropy(nodes, logits, LABELS), size, weights)


def _likelihoods(nodes: _Nodes, logits: str, *, gaps: bool) -> str:
    """log softmax(s)[y], ``[N, ...]``, and 0 where there is no label."""
    labels, axis = LABELS, nodes.shape((1,))
    missing = nodes.add("Equal", LABELS, nodes.shape((IGNORED,))) if gaps else ""
    if missing:
        labels = nodes.add("Where", missing, nodes.shape((0,)), LABELS)
    places = nodes.add("Unsqueeze", labels, axis)
    likely = nodes.add("GatherElements", nodes.add("LogSoftmax", logits, axis=1), places, axis=1)
    likely = nodes.add("Squeeze", likely, axis)
    return nodes.add("Where", missing, nodes.scalar(0.0), likely) if missing else likely


def _teacher_term(nodes: _Nodes, logits: str, shape: tuple[int, ...], loss: Loss) -> str:
    size, weights = int(np.prod(shape)), WEIGHTS if loss.weighted else None
    if loss.task is Task.MSE:
        return _mean_square(nodes, logits, TEACHER, size, weights)
    inverse = nodes.scalar(1.0 / loss.temperature)
    student = nodes.add("Mul", logits, inverse)
    teacher = nodes.add("Mul", TEACHER, inverse)
    if loss.task is Task.CROSS_ENTROPY:
        log_student = nodes.add("LogSoftmax", student, axis=1)
        log_teacher = nodes.add("LogSoftmax", teacher, axis=1)
        share = nodes.add("Softmax", teacher, axis=1)
        divergence = nodes.add("Mul", share, nodes.add("Sub", log_teacher, log_student))
        if weights is not None:  # [N, ...] -> [N, 1, ...]
            weights = nodes.add("Reshape", weights, nodes.shape((shape[0], 1, *shape[2:])))
        mean = nodes.mean(divergence, size // shape[1], weights)
    else:
        share = nodes.add("Sigmoid", teacher)
        cross = _binary_cross_entropy(nodes, student, share)
        entropy = _binary_cross_entropy(nodes, teacher, share)
        mean = nodes.mean(nodes.add("Sub", cross, entropy), size, weights)
    return nodes.add("Mul", mean, nodes.scalar(loss.temperature**2))


def _mean_square(nodes: _Nodes, logits: str, target: str, size: int, weights: str | None) -> str:
    difference = nodes.add("Sub", logits, target)
    return nodes.mean(nodes.add("Mul", difference, difference), size, weights)


def _binary_cross_entropy(nodes: _Nodes, logits: str, target: str) -> str:
    """max(s, 0) - s y + log(1 + exp(-|s|)), which neither overflows nor loses digits."""
    positive = nodes.add("Relu", logits)
    size = nodes.add("Abs", logits)
    tail = nodes.add("Log", nodes.add("Add", nodes.add("Exp", nodes.add("Neg", size)), nodes.scalar(1.0)))
    return nodes.add("Add", nodes.add("Sub", positive, nodes.add("Mul", logits, target)), tail)
