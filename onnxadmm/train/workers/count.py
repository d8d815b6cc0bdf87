"""How many processes pay for a training: a rule without measurement, so that equal runs choose equally."""

import numpy as np
import onnx

from onnxadmm.runtime.cores import usable_cores
from onnxadmm.train.artifacts import Artifacts

#: Multiply-accumulates a second of one core in training; rough on purpose.
_MACS_A_SECOND = 6e10
#: A step is a forward pass and two of the same size backward.
_PASSES = 3
#: Below this much work, starting processes takes a share of the run that is not worth it.
_LEAST_SECONDS = 30.0
#: Below this much, handing a step over does.
_LEAST_STEP_SECONDS = 0.004
#: Fewer samples in a part make poor use of the kernels, and poor statistics for a normalisation that takes them there.
_LEAST_SAMPLES = 8
_LEAST_SAMPLES_OF_STATISTICS = 32


def worthwhile_workers(
    artifacts: Artifacts, *, steps: int, threads: int, accumulate: int, cores: int | None = None
) -> int:
    """Processes to share each batch between, at least 1.

    Args:
        artifacts: of the whole batch.
        steps: of the training.
        threads: intra-op threads of each process; 0 means all cores.
        accumulate: parts each process computes one after the other.
        cores: of the machine; None: those of this one that may be used.
    """
    seconds = expected_seconds(artifacts)
    if threads == 0 or seconds < _LEAST_STEP_SECONDS or seconds * steps < _LEAST_SECONDS:
        return 1
    samples = _LEAST_SAMPLES_OF_STATISTICS if artifacts.statistics else _LEAST_SAMPLES
    return max(1, min((cores or usable_cores()) // threads, artifacts.batch_size // (accumulate * samples)))


def expected_seconds(artifacts: Artifacts) -> float:
    """Return about how long one core takes for a training step: a rule without measurement."""
    return _PASSES * multiplications(artifacts.forward) / _MACS_A_SECOND


def multiplications(model: onnx.ModelProto) -> int:
    """Multiply-accumulates of one run of a graph, of convolutions and matrix products."""
    values = (*model.graph.input, *model.graph.value_info, *model.graph.output)
    shapes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in values}
    shapes.update((tensor.name, list(tensor.dims)) for tensor in model.graph.initializer)
    total = 0
    for node in model.graph.node:
        if len(node.input) < 2:
            continue
        first, second, result = (shapes.get(name) for name in (node.input[0], node.input[1], node.output[0]))
        if not first or not second or not result:
            continue
        if node.op_type in ("Conv", "ConvTranspose"):
            read = result if node.op_type == "Conv" else first
            total += int(np.prod(read)) * int(np.prod(second[1:]))
        elif node.op_type in ("Gemm", "MatMul"):
            transposed = any(item.name == "transA" and item.i for item in node.attribute)
            total += int(np.prod(result)) * first[-2 if transposed else -1]
    return total
