"""What benchmarks/data_pipeline.py compares with: PyTorch's DataLoader, with Pillow as torchvision calls it.

Run by it: ``python data_pipeline_torch.py FOLDER PROCESSES BATCH``. Prints images per second as JSON.
"""

import json
import math
import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


class Folder(Dataset):
    """JPEGs of class folders: for training RandomResizedCrop(224) and a flip, else Resize(256) and CenterCrop(224)."""

    def __init__(self, root: str, *, training: bool) -> None:
        self._files = sorted(Path(root).glob("*/*.jpg"))
        self._training = training

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        path = self._files[place]
        with path.open("rb") as file:
            image = Image.open(file).convert("RGB")
        image = part(image) if self._training else middle(image)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return (pixels.to(torch.float32).div(255) - MEAN) / STD, int(path.parent.name)


def part(image: Image.Image) -> Image.Image:
    """A random part of 8 to 100 % of the area, resized, mirrored in half of the cases."""
    width, height = image.size
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            break
    else:
        w = h = min(width, height)
    left, top = random.randint(0, width - w), random.randint(0, height - h)
    image = image.crop((left, top, left + w, top + h)).resize((224, 224), Image.Resampling.BILINEAR)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else image


def middle(image: Image.Image) -> Image.Image:
    """The shorter side at 256 pixels, and the middle 224."""
    factor = 256 / min(image.size)
    size = (round(image.width * factor), round(image.height * factor))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
    return image.crop((left, top, left + 224, top + 224))


def main() -> None:
    """Measure and print."""
    root, processes, batch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    found = {}
    for name in ("training", "evaluation"):
        data = Folder(root, training=name == "training")
        loader = DataLoader(data, batch, shuffle=True, num_workers=processes, persistent_workers=True)
        for _ in loader:  # processes begin
            pass
        begin = time.perf_counter()
        for _ in loader:
            pass
        found[name] = len(data) / (time.perf_counter() - begin)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
