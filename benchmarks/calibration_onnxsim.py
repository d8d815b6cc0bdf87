"""onnxsim's structured pruning with its own recovery, for benchmarks/calibration.py: the other side of the table.

Needs numpy, onnx, onnxsim and onnxruntime, and nothing of this project. Run:
``python benchmarks/calibration_onnxsim.py MODEL SAMPLES.npy macs|params MOST FOLDER``, the samples as the model reads
them. It looks for the smallest sparsity that leaves at most so many multiply-accumulates (or parameters), prunes by
both of its criteria (L2 norm of the weights, and that times the norm of the activations), repairs with
``apply_pruning_finetune`` and, of convolutional networks, with ``recover_batch_norm`` as well. Every result is a file
in FOLDER; what was done is printed as JSON.
"""

import json
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnxsim import apply_pruning_finetune, apply_structured_pruning, apply_structured_wanda_pruning
from onnxsim.bn_recovery import recover_batch_norm

BATCH = 32
#: Sparsities that are tried: steps finer than these change no count of channels here.
STEPS = 128


def count(model: onnx.ModelProto, kind: str) -> int:
    """Parameters, or multiply-accumulates of one sample."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    if kind == "params":
        return sum(prod(shape) for shape in shapes.values() if shape)
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]  # onnxsim leaves the shapes that the tensors had before
    inferred = onnx.shape_inference.infer_shapes(bare)
    places = {
        value.name: [item.dim_value for item in value.type.tensor_type.shape.dim][2:]
        for value in [*inferred.graph.value_info, *inferred.graph.output]
    }
    readers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    return sum(prod(shapes[node.input[1]]) * prod(places[node.output[0]]) for node in readers)


def sparsity_for(model: onnx.ModelProto, kind: str, most: int) -> tuple[float, bool]:
    """Return the smallest sparsity that leaves so much, or the largest there is, and whether it does.

    Both criteria take equally many channels of each layer, so it holds for both.
    """
    low, high = 0, STEPS - 1
    while low < high:
        middle = (low + high) // 2
        met = count(apply_structured_pruning(model, sparsity=middle / STEPS), kind) <= most
        low, high = (low, middle) if met else (middle + 1, high)
    return low / STEPS, count(apply_structured_pruning(model, sparsity=low / STEPS), kind) <= most


def repaired(
    model: onnx.ModelProto, pruned: onnx.ModelProto, batches: list[dict[str, Any]]
) -> Iterator[tuple[str, onnx.ModelProto, list[str]]]:
    """Yield what its ways to repair make, with the weights that each of them changed."""
    yield "cut", pruned, []
    fitted = apply_pruning_finetune(model, pruned, calibration_data=batches)
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in pruned.graph.initializer}
    changed = [
        tensor.name
        for tensor in fitted.graph.initializer
        if tensor.name in before and not np.array_equal(before[tensor.name], numpy_helper.to_array(tensor))
    ]
    yield "finetune", fitted, changed
    if any(node.op_type == "Conv" for node in model.graph.node):
        yield (
            "finetune and batch norm",
            recover_batch_norm(fitted, calibration_data=batches, target_model=model),
            [*changed, "BatchNormalization behind every Conv"],
        )


def main() -> None:
    """Prune, repair, write, print."""
    path, samples, kind, most, folder = sys.argv[1:]
    model = onnx.load(path)
    name = model.graph.input[0].name
    inputs = np.load(samples)
    batches = [{name: inputs[start : start + BATCH]} for start in range(0, len(inputs), BATCH)]
    sparsity, met = sparsity_for(model, kind, int(most))
    made = []
    for criterion in ("l2", "wanda"):
        start = time.perf_counter()
        pruned = (
            apply_structured_pruning(model, sparsity=sparsity)
            if criterion == "l2"
            else apply_structured_wanda_pruning(model, calibration_data=batches, sparsity=sparsity)
        )
        for recovery, result, changed in repaired(model, pruned, batches):
            file = f"{criterion} {recovery}.onnx"
            onnx.save(result, Path(folder) / file)
            seconds = time.perf_counter() - start
            made.append(
                {"file": file, "criterion": criterion, "recovery": recovery, "changed": changed, "seconds": seconds}
            )
    print(json.dumps({"onnxsim": version("onnxsim"), "sparsity": sparsity, "met": met, "made": made}))


if __name__ == "__main__":
    main()
