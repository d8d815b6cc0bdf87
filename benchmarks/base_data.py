"""CIFAR-10 for benchmarks/base_models.py: read from folders of pictures, split, cropped and mirrored.

Needs PyTorch, numpy and Pillow, and nothing of this project.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
import torch.nn.functional as functional
from PIL import Image
from torch import Tensor

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
#: Pictures of the training part that no network trains on, and the seed of the shuffle whose end they are.
HELD_OUT, SPLIT_SEED = 2000, 0
SIDE = 32


@dataclass(frozen=True)
class Pictures:
    """Pixels as bytes (count, 32, 32, 3), and class numbers."""

    pixels: Tensor
    labels: Tensor

    def take(self, places: Tensor) -> "Pictures":
        return Pictures(self.pixels[places], self.labels[places])

    def to(self, device: str) -> "Pictures":
        return Pictures(self.pixels.to(device), self.labels.to(device))


def read(folder: Path, part: str) -> Pictures:
    """FOLDER/PART/CLASS/*.jpg, classes in alphabetical order; decoded once into FOLDER/PART.npz."""
    cache = folder / f"{part}.npz"
    if not cache.exists():
        classes = sorted(path for path in (folder / part).iterdir() if path.is_dir())
        files = [(path, number) for number, name in enumerate(classes) for path in sorted(name.iterdir())]
        pixels = numpy.stack([numpy.asarray(Image.open(path).convert("RGB")) for path, _ in files])
        draft = cache.with_name(f"{part}.draft.npz")
        numpy.savez(draft, pixels=pixels, labels=numpy.array([number for _, number in files]))
        draft.replace(cache)
    with numpy.load(cache) as arrays:
        return Pictures(torch.from_numpy(arrays["pixels"]), torch.from_numpy(arrays["labels"]))


def split(pictures: Pictures) -> tuple[Pictures, Pictures]:
    """The pictures to train on, and the held-out ones: always the same."""
    order = torch.randperm(len(pictures.labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    return pictures.take(order[:-HELD_OUT]), pictures.take(order[-HELD_OUT:])


def normalise(pixels: Tensor) -> Tensor:
    """Bytes (count, height, width, 3) as the networks' input, channels last in memory."""
    mean, deviation = (torch.tensor(numbers, device=pixels.device) * 255 for numbers in (MEAN, DEVIATION))
    return ((pixels.float() - mean) / deviation).permute(0, 3, 1, 2)


class Augmentation:
    """Every picture shifted on its own, and mirrored in every other epoch (K. Jordan, 2024).

    The pictures are padded by reflection and live on the device that trains; a *view* is one shift, mirrored or not.
    """

    def __init__(self, pictures: Pictures, padding: int, seed: int) -> None:
        pixels = pictures.pixels.permute(0, 3, 1, 2)
        # Reflection works on floats only; bytes survive the way there and back.
        padded = [functional.pad(part.float(), (padding,) * 4, mode="reflect").byte() for part in pixels.split(1000)]
        self.padded, self.padding, self.seed = torch.cat(padded).permute(0, 2, 3, 1).contiguous(), padding, seed
        self.mirrored = torch.rand(len(pixels), generator=torch.Generator().manual_seed(seed)) < 0.5

    @property
    def views(self) -> int:
        """Number of different views of one picture."""
        return 2 * (2 * self.padding + 1) ** 2

    def crop(self, places: Tensor, views: Tensor) -> Tensor:
        """One view of each of the pictures at ``places`` as network input."""
        device, shifts = self.padded.device, 2 * self.padding + 1
        mirrored, right, down = views % 2 == 1, views // 2 % shifts, views // 2 // shifts
        along = torch.arange(SIDE, device=device)
        columns = torch.where(mirrored[:, None], along.flip(0), along) + right[:, None]
        rows = along + down[:, None]
        return normalise(self.padded[places[:, None, None], rows[:, :, None], columns[:, None, :]])

    def batches(self, epoch: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Places and views of each whole batch, from seed and epoch alone so that training can resume."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch + 1)
        count = len(self.padded)
        order = torch.randperm(count, generator=generator)
        shifts = torch.randint(0, self.views // 2, (count,), generator=generator)
        views = shifts * 2 + (self.mirrored ^ bool(epoch % 2))
        order, views = order.to(self.padded.device), views.to(self.padded.device)
        for start in range(0, count - size + 1, size):
            places = order[start : start + size]
            yield places, views[places]
