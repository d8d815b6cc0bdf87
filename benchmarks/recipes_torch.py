"""A PyTorch network for 8x8 digits, trained on ``train.npz`` of the folder: what the README's recipe exports."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

with np.load("train.npz") as archive:
    images, labels = torch.from_numpy(archive["x"]), torch.from_numpy(archive["labels"]).long()


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten()),
        )
        self.tail = nn.Sequential(nn.Linear(64 * 16, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.features(x))


torch.manual_seed(0)
torch.set_num_threads(1)
model = Network()
optimiser = torch.optim.Adam(model.parameters())
for _epoch in range(20):
    for part in torch.randperm(len(images)).split(64):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images[part]), labels[part]).backward()
        optimiser.step()
example = images[:2]
Path("versions.txt").write_text(f"torch {torch.__version__}")
