"""Trains the small BERT and the small ViT that benchmarks/converged.py prunes, and exports them as users do.

Needs the environment of ``benchmarks.base_models`` (dependency group ``train-speed``) and nothing of this project.
Run from the root of the repository, a minute or two for each:

    python -m benchmarks.made_models bert
    python -m benchmarks.made_models vit

Writes benchmarks/models/NAME_made.onnx and what is known about it beside it (``.json``).
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.base_export import OPSET, write_for
from benchmarks.base_networks import parameters
from benchmarks.made_data import KINDS, LENGTH, SHAPES, SIDE, TEST, TOPICS, TRAINING, WORDS

MODELS: Final = Path(__file__).resolve().parent / "models"
WIDTH, HEADS, LAYERS, HIDDEN, PATCH = 64, 4, 2, 128, 4
BATCH, RATE, DECAY = 128, 1e-3, 0.05


class Block(nn.Module):
    """A layer of a transformer, with its norms behind (BERT) or in front (ViT)."""

    def __init__(self, *, norm_first: bool) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.inputs, self.output = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.one, self.two = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])

    def attend(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        parts = self.inputs(x).reshape(batch, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        y: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return y

    def forward(self, x: Tensor) -> Tensor:
        layers: tuple[Callable[[Tensor], Tensor], ...] = (
            self.attend,
            lambda y: self.two(functional.gelu(self.one(y))),
        )
        for layer, norm in zip(layers, self.norms, strict=True):
            x = x + layer(norm(x)) if self.norm_first else norm(x + layer(x))
        return x


class Bert(nn.Module):
    """Words and places are embedded and normalised; the first place answers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.blocks = nn.Sequential(*(Block(norm_first=False) for _ in range(LAYERS)))
        self.pooler, self.classifier = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, TOPICS)

    def forward(self, words: Tensor) -> Tensor:
        x = self.blocks(self.norm(self.words(words) + self.places.weight))
        y: Tensor = self.classifier(torch.tanh(self.pooler(x[:, 0])))
        return y


class Vit(nn.Module):
    """Patches and places are embedded; the mean of all places answers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, PATCH, PATCH)
        self.places = nn.Parameter(0.02 * torch.randn((SIDE // PATCH) ** 2, WIDTH))
        self.blocks = nn.Sequential(*(Block(norm_first=True) for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(SHAPES))

    def forward(self, pictures: Tensor) -> Tensor:
        x = self.blocks(self.patches(pictures).flatten(2).transpose(1, 2) + self.places)
        y: Tensor = self.head(self.norm(x).mean(1))
        return y


#: What their inputs are called, and the epochs after which they have learnt what there is.
NETWORKS: Final[dict[str, tuple[type[nn.Module], str, int]]] = {
    "bert": (Bert, "words", 4),
    "vit": (Vit, "pictures", 8),
}


def train(network: nn.Module, inputs: Tensor, labels: Tensor, epochs: int) -> None:
    """AdamW on a rate that rises for a tenth of the steps and falls as a cosine."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    steps = epochs * (len(labels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    for _ in range(epochs):
        order = torch.randperm(len(labels))
        for places in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(inputs[places]), labels[places])
            loss.backward()
            optimizer.step()
            schedule.step()


def accuracy_of(path: Path, inputs: NDArray[Any], labels: NDArray[np.int64]) -> float:
    """Share of right answers of the file in onnxruntime."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = np.array_split(np.arange(len(labels)), 20)
    logits = np.concatenate([session.run(None, {session.get_inputs()[0].name: inputs[part]})[0] for part in parts])
    return float((logits.argmax(1) == labels).mean())


def main() -> None:
    """Train one and write it."""
    parser = argparse.ArgumentParser(description="Train a small transformer on drawn data and export it.")
    parser.add_argument("network", choices=NETWORKS)
    name = parser.parse_args().network
    torch.manual_seed(0)
    (kind, read_as, epochs), draw = NETWORKS[name], KINDS[name]
    inputs, labels = draw(*TRAINING)
    network, begin = kind(), time.perf_counter()
    train(network, torch.from_numpy(inputs), torch.from_numpy(labels), epochs)
    seconds = time.perf_counter() - begin
    path = MODELS / f"{name}_made.onnx"
    write_for(network.eval(), torch.from_numpy(inputs[:2]), read_as, path)
    onnx.checker.check_model(str(path), full_check=True)
    record = {
        "network": name,
        "file": path.name,
        "bytes": path.stat().st_size,
        "opset": OPSET,
        "test_accuracy": accuracy_of(path, *draw(*TEST)),
        "training_accuracy": accuracy_of(path, inputs, labels),
        "parameters": parameters(network),
        "epochs": epochs,
        "command": f"python -m benchmarks.made_models {name}",
        "seconds": round(seconds),
        "made_with": {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
