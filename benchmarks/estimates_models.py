"""The networks of docs/scale.md: shapes of the papers at 224 pixels, weights as they are before any training.

Needs PyTorch and onnxscript. Run from the root of the repository, with a folder outside of it:
``python -m benchmarks.estimates_models FOLDER``.
"""

import sys
from pathlib import Path

import torch
from torch import nn

from benchmarks.calibration_large_models import widened
from benchmarks.coverage_models import IMAGE, MODELS, export
from benchmarks.coverage_transformers import VisionTransformer

NAMES = ("resnet50", "mobilenet_v2", "alexnet", "vit_small_16")


def alexnet() -> nn.Module:
    """Five convolutions and three dense layers, in one column, as they are usually built."""
    layers: list[nn.Module] = []
    inputs = 3
    for width, kernel, stride, padding, pools in (
        (64, 11, 4, 2, True),
        (192, 5, 1, 2, True),
        (384, 3, 1, 1, False),
        (256, 3, 1, 1, False),
        (256, 3, 1, 1, True),
    ):
        layers += [nn.Conv2d(inputs, width, kernel, stride, padding), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] if pools else []
        inputs = width
    dense = [nn.Flatten(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
    return nn.Sequential(*layers, *dense, nn.Linear(4096, 1000))


def main() -> None:
    """Write the files."""
    MODELS["alexnet"] = (alexnet, lambda: (torch.randn(2, *IMAGE),))
    MODELS["vit_small_16"] = (lambda: widened(VisionTransformer(), 384), MODELS["vit_small"][1])
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in NAMES:
        print(export(name, "dynamo", folder).name, flush=True)


if __name__ == "__main__":
    main()
