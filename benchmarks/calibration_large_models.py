"""The models of benchmarks/calibration_large.py: sizes of the papers, weights as they are before any training.

Needs PyTorch and onnxscript. Run from the root of the repository, with a folder outside of it:
``python -m benchmarks.calibration_large_models FOLDER``.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from benchmarks.coverage_models import MODELS, export, text
from benchmarks.coverage_transformers import Bert, VisionTransformer

LENGTH = 128


def widened(model: nn.Module, width: int) -> nn.Module:
    """Return a transformer with feed-forward layers four times as wide as its stream, as in the papers."""
    for block in model.blocks:
        block.up, block.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
    return model


def main() -> None:
    """Write the files."""
    MODELS["bert_base_128"] = (
        lambda: widened(Bert(), 768),
        lambda: (*text(LENGTH), torch.ones(2, LENGTH, dtype=torch.int64)),
    )
    MODELS["vit_small_16"] = (lambda: widened(VisionTransformer(), 384), MODELS["vit_small"][1])
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in ("bert_base_128", "vit_small_16", "resnet50"):
        print(export(name, "dynamo", folder).name, flush=True)


if __name__ == "__main__":
    main()
