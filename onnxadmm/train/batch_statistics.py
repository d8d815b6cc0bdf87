"""BatchNormalization that trains with the mean and variance of each batch, and measuring both over many batches.

The training engine has a gradient for its own BatchNormInternal, which is ONNX's training mode, and none for the
operator itself; so that is what stands in a copy while it is lowered. No running statistics are kept: they are
measured where they are needed, at the weights of that moment.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import onnx
import onnx.utils
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxadmm.train.data.batches import Batch
from onnxadmm.train.engine import IR_VERSION, inference_session
from onnxadmm.train.lowering.writer import Nodes, Writer, need_shape
from onnxadmm.train.prepare.batch import batch_length
from onnxadmm.train.prepare.nodes import as_proto, attribute, import_domain, reads
from onnxadmm.train.prepare.opset import convert_opset
from onnxadmm.train.prepare.workspace import Workspace

FloatArray = NDArray[np.float32]

#: The running outputs are ``running * momentum + batch * (1 - momentum)``: with 0 they are those of the batch.
_MOMENTUM = 0.0
#: The training engine's BatchNormalization in training mode.
_OPERATOR, _DOMAIN = "BatchNormInternal", "com.microsoft"
#: First operator set in which ONNX's own has one.
_OPSET = 15


@dataclass(frozen=True)
class Statistics:
    """Where the statistics of one normalisation belong, and where a batch's own are put out.

    Attributes:
        mean, variance: names of the constants, ``[C]``.
        mean_output, variance_output: names of the values of the training copy, ``[C]``.
        channels: C.
    """

    mean: str
    variance: str
    mean_output: str
    variance_output: str
    channels: int


def use_batch_statistics(space: Workspace, means: Collection[str]) -> tuple[Statistics, ...]:
    """Let some BatchNormalizations of a training copy normalise with the statistics of the batch.

    Args:
        means: names of the constants that hold their means.
    """
    found: list[Statistics] = []

    def rewrite(node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        if node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx") or node.input[3] not in means:
            return None
        output = node.output[0]
        outputs = [output, *(space.fresh(f"{output}/batch.{index}") for index in range(4))]
        epsilon = attribute(node, "epsilon", 1e-5)
        mean, variance = node.input[3:5]
        found.append(Statistics(mean, variance, outputs[1], outputs[2], channels=len(space.constants[mean])))
        kept = {"epsilon": epsilon, "momentum": _MOMENTUM, "training_mode": 1}
        return [helper.make_node(_OPERATOR, node.input[:5], outputs, node.name, domain=_DOMAIN, **kept)]

    if space.replace_nodes(rewrite):
        import_domain(space.model, _DOMAIN)
        space.infer()
    return tuple(found)


def write_out_statistics(space: Workspace) -> None:
    """Write what normalises with the statistics of a batch in ONNX's own operators, in place.

    Mean and variance are computed behind a stop: the gradient of a BatchNormalization is that by its statistics as
    well. ONNX's training mode would put both where its running statistics lie, whose memory onnxruntime gives to others
    while they are still to be read.
    """

    def rewrite(node: onnx.NodeProto) -> Nodes | None:
        if (node.op_type, node.domain) != (_OPERATOR, _DOMAIN):
            return None
        write = Writer(space, node)
        shape = need_shape(space, node, node.input[0])
        axes = [axis for axis in range(len(shape)) if axis != 1]
        share = shape[1] / prod(shape)
        stopped = write.stop(node.input[0])
        mean = write.scale(write.total(stopped, shape, axes), share)
        centred = write.add("Sub", stopped, mean)
        variance = write.scale(write.total(write.add("Mul", centred, centred), shape, axes), share)
        for value, output in ((mean, node.output[1]), (variance, node.output[2])):
            write.set_output(write.reshape(value, [shape[1]]), output)
        inputs = [*node.input[:3], *node.output[1:3]]
        epsilon = attribute(node, "epsilon", 1e-5)
        own = helper.make_node("BatchNormalization", inputs, node.output[:1], node.name, epsilon=epsilon)
        return [*write.nodes, own]

    if space.replace_nodes(rewrite):
        space.infer()


def statistics_outputs(statistics: Iterable[Statistics]) -> list[onnx.ValueInfoProto]:
    """Describe the values that hold the statistics of a batch."""
    return [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [item.channels])
        for item in statistics
        for name in (item.mean_output, item.variance_output)
    ]


class Moments:
    """Mean and variance over batches of equal size from the mean and variance of each: Var = E[var] + Var[mean]."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = np.zeros(0)
        self._square = np.zeros(0)
        self._inner = np.zeros(0)

    def add(self, mean: FloatArray, variance: FloatArray) -> None:
        """Take in one batch: ``[C]`` both."""
        new = mean.astype(np.float64)
        if not self._count:
            self._mean, self._square, self._inner = np.zeros_like(new), np.zeros_like(new), np.zeros_like(new)
        self._count += 1
        # Welford's update: squares of means would cancel.
        moved = new - self._mean
        self._mean += moved / self._count
        self._square += moved * (new - self._mean)
        self._inner += (variance.astype(np.float64) - self._inner) / self._count

    @property
    def mean(self) -> FloatArray:
        return self._mean.astype(np.float32)

    @property
    def variance(self) -> FloatArray:
        return (self._inner + self._square / self._count).astype(np.float32)


def measure_copy(
    forward: onnx.ModelProto,
    statistics: Collection[Statistics],
    weights: Mapping[str, FloatArray],
    batches: Iterable[Batch],
    *,
    threads: int,
) -> dict[str, FloatArray]:
    """Measure what the normalisations of a training copy read, over some batches.

    Args:
        forward: the copy without its backward pass, weights and data as inputs.
        batches: of the copy's batch size.

    Returns:
        Means and variances by the names of the constants they belong in.
    """
    outputs = [name for item in statistics for name in (item.mean_output, item.variance_output)]
    cut = onnx.utils.Extractor(forward).extract_model([value.name for value in forward.graph.input], outputs)
    read = {name for node in cut.graph.node for name in reads(node)}
    inputs = [value for value in cut.graph.input if value.name in read]
    del cut.graph.input[:]
    cut.graph.input.extend(inputs)
    held = {name: array for name, array in weights.items() if name in read}
    return _accumulate(cut, statistics, held, batches, threads=threads)


def measure_values(
    model: onnx.ModelProto, values: Mapping[str, int], batches: Iterable[Batch], *, threads: int
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Mean and variance per channel of some values of a model, over some batches of equal size.

    Args:
        model: left as it is; one that was exported for a fixed batch size is run as often as it takes.
        values: names of float32 values ``[N, C, ...]`` of the main graph, with their C.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(as_proto(model))
    copy.ir_version = min(max(copy.ir_version, 4), IR_VERSION)
    copy = convert_opset(copy, oldest=_OPSET)
    statistics = []
    taken = {name for node in copy.graph.node for name in (*node.input, *node.output)}
    for index, (value, channels) in enumerate(values.items()):
        prefix = f"probe.{index}"
        while any(name.startswith(prefix) for name in taken):
            prefix += "."
        names = [f"{prefix}/{part}" for part in ("one", "zero", "y", "mean", "variance")]
        one, zero = names[:2]
        for name, number in ((one, 1.0), (zero, 0.0)):
            copy.graph.initializer.append(onnx.numpy_helper.from_array(np.full(channels, number, np.float32), name))
        copy.graph.node.append(
            helper.make_node(
                "BatchNormalization",
                [value, one, zero, zero, one],
                names[2:],
                name=prefix,
                momentum=_MOMENTUM,
                training_mode=1,
            )
        )
        statistics.append(Statistics(f"{value}:mean", f"{value}:variance", names[3], names[4], channels))
    del copy.graph.output[:]
    copy.graph.output.extend(statistics_outputs(statistics))
    size = batch_length(copy.graph)
    given = batches if size is None else (piece for batch in batches for piece in _pieces(batch, size))
    found = _accumulate(copy, statistics, {}, given, threads=threads)
    return {value: (found[f"{value}:mean"], found[f"{value}:variance"]) for value in values}


def _pieces(batch: Batch, size: int) -> Iterator[Batch]:
    """Batches of ``size`` samples: as many as fit, or one that repeats the samples."""
    length = len(next(iter(batch.inputs.values())))
    for start in range(0, max(1, length - size + 1), size):
        chosen = (start + np.arange(size)) % length
        yield replace(batch, inputs={name: array[chosen] for name, array in batch.inputs.items()})


def _accumulate(
    model: onnx.ModelProto,
    statistics: Collection[Statistics],
    held: Mapping[str, FloatArray],
    batches: Iterable[Batch],
    *,
    threads: int,
) -> dict[str, FloatArray]:
    initial = {tensor.name for tensor in model.graph.initializer}
    fed = [value.name for value in model.graph.input if value.name not in initial and value.name not in held]
    names = [name for item in statistics for name in (item.mean_output, item.variance_output)]
    session = inference_session(model, threads=threads)
    moments = [Moments() for _ in statistics]
    for batch in batches:
        results = session.run(names, {**held, **{name: batch.inputs[name] for name in fed}})
        for place, kept in enumerate(moments):
            kept.add(results[2 * place], results[2 * place + 1])
    found: dict[str, FloatArray] = {}
    for item, kept in zip(statistics, moments, strict=True):
        found[item.mean], found[item.variance] = kept.mean, kept.variance
    return found
