"""Exports the networks of benchmarks/base_models.py to ONNX as users do, and measures the file on the test part.

Needs PyTorch, onnx, onnxscript and onnxruntime, and nothing of this project.
"""

import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from benchmarks.base_data import HELD_OUT, Pictures, normalise, read
from benchmarks.base_networks import CifarNet, multiplications, parameters

OPSET = 20


def write(network: nn.Module, path: Path) -> None:
    """The network in eval mode as one ONNX file with a batch of any size, weights inside."""
    network = network.eval().to(memory_format=torch.contiguous_format)
    if isinstance(network, CifarNet):
        network.fold()
    write_for(network, torch.zeros(2, 3, 32, 32), "pictures", path)


def write_for(network: nn.Module, example: Tensor, name: str, path: Path) -> None:
    """The same, of a network in eval mode that reads what looks like the example, under a name."""
    torch.onnx.export(
        network,
        (example,),
        str(path),
        dynamo=True,
        input_names=[name],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        external_data=False,
    )
    model = onnx.load(path)
    for part in (model.graph, *model.graph.node, *model.graph.value_info):
        # Where each node stands in the source, with the folders of the machine it was exported on.
        del part.metadata_props[:]
    onnx.save(model, path)


def accuracy_of(path: Path, pictures: Pictures, batch: int = 500) -> float:
    """Share of right answers of the file in onnxruntime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    right = 0
    for pixels, labels in zip(pictures.pixels.split(batch), pictures.labels.split(batch), strict=True):
        (logits,) = session.run(None, {"pictures": normalise(pixels).contiguous().numpy()})
        right += int((logits.argmax(1) == labels.numpy()).sum())
    return right / len(pictures.labels)


def export(name: str, network: nn.Module, state: dict[str, Any], data: Path, folder: Path) -> None:
    """Write FOLDER/NAME.onnx, and what is known about it into FOLDER/NAME.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path, options = folder / f"{name}.onnx", state["options"]
    counts = {"parameters": parameters(network), "multiply_accumulates": multiplications(network)}
    write(network, path)
    onnx.checker.check_model(str(path), full_check=True)
    command = f"python -m benchmarks.base_models train {name} --data DATA --out RUNS"
    command += f" --epochs {options['epochs']} --seed {options['seed']} --device DEVICE"
    record = {
        "network": name,
        "file": path.name,
        "bytes": path.stat().st_size,
        "opset": OPSET,
        "test_accuracy": accuracy_of(path, read(data, "test")),
        "held_out_accuracy": state["held_out"],
        "held_out_pictures": HELD_OUT,
        **counts,
        "recipe": options,
        "command": command,
        "machine": state["machine"],
        "minutes": round(state["seconds"] / 60, 1),
        "made_with": {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))
