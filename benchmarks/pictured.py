"""Networks that see pictures, and the pictures, of which several benchmarks measure what is left."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onnxadmm.bench.simd import this_machine
from onnxadmm.graph.model import Model
from onnxadmm.graph.runtime import open_session
from onnxadmm.surgery import find_groups
from onnxadmm.train.data.raw import Raw
from onnxadmm.train.data.sources import read_source
from onnxadmm.units.cost import Cost, CostKind

ROOT: Final = Path(__file__).resolve().parents[1]
SAMPLES: Final = 512

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Network:
    """A network that is pruned.

    Attributes:
        file: of the model, in the folder of models.
        data: ``"cifar"`` or ``"mnist"``.
        mean, std: of its pixels, by channel.
        budget: what is bounded: ``"macs"`` or ``"params"``.
        bars: by how many times fewer: the most points of accuracy that may be lost, or the least accuracy (below 1).
    """

    file: str
    data: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    budget: CostKind
    bars: dict[float, float | None]


CIFAR: Final = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
NETWORKS: Final = {
    "resnet20": Network("resnet20_cifar10.onnx", "cifar", *CIFAR, "macs", {1.5: 1.0, 2.0: 2.5, 3.0: 6.0}),
    "cifarnet": Network("cifarnet.onnx", "cifar", *CIFAR, "macs", {1.5: 1.5, 2.0: None, 3.0: None}),
    "mobilenetv2": Network("mobilenetv2.onnx", "cifar", *CIFAR, "macs", {1.5: 1.5, 2.0: None, 3.0: None}),
    "lenet5": Network("lenet5_mnist.onnx", "mnist", (0.1307,), (0.3081,), "params", {10.0: 0.988}),
}


def _pixels(raw: Raw) -> Bytes:
    """All of the images, decoded."""
    images = raw.inputs["0"]
    return np.asarray(images[np.arange(len(images))], np.uint8)


class Images:
    """Images of the networks, as arrays and as files for the command line."""

    def __init__(self, given: argparse.Namespace, folder: Path) -> None:
        self._given = given
        self._folder = folder
        self._known: dict[tuple[str, str], tuple[Bytes, NDArray[np.int64]]] = {}

    def all(self, data: str, part: str) -> tuple[Bytes, NDArray[np.int64]]:
        """Return the images of a part, uint8 ``[n, channels, height, width]``, and their classes."""
        if (data, part) not in self._known:
            self._known[data, part] = self._read(data, part)
        return self._known[data, part]

    def samples(self, data: str, sampling: int) -> Bytes:
        """Return training images drawn at random."""
        images, _ = self.all(data, "train")
        return images[np.sort(np.random.default_rng(sampling).permutation(len(images))[:SAMPLES])]

    def sample_file(self, data: str, sampling: int) -> Path:
        """Return a file of such images, without labels."""
        path = self._folder / f"{data}-{sampling}.npz"
        np.savez(path, images=self.samples(data, sampling))
        return path

    def test_file(self, data: str) -> Path:
        """Return a file of the test images with their labels."""
        path = self._folder / f"{data}-test.npz"
        if not path.exists():
            images, labels = self.all(data, "test")
            np.savez(path, images=images, labels=labels)
        return path

    def _read(self, data: str, part: str) -> tuple[Bytes, NDArray[np.int64]]:
        if data == "mnist":
            stem = self._given.mnist / f"mnist-{'train' if part == 'train' else 't10k'}"
            raw = read_source(f"{stem}-images-idx3-ubyte.gz,{stem}-labels-idx1-ubyte.gz")
            images = _pixels(raw).reshape(-1, 1, 28, 28)
        else:
            archive = self._given.cifar / f"{part}.npz"
            if archive.exists():
                with np.load(archive) as arrays:
                    return np.ascontiguousarray(arrays["pixels"].transpose(0, 3, 1, 2)), arrays["labels"]
            raw = read_source(self._given.cifar / part)
            images = _pixels(raw).transpose(0, 3, 1, 2)
        assert raw.labels is not None
        return np.ascontiguousarray(images), raw.labels


def prepared(network: Network, images: Bytes) -> NDArray[np.float32]:
    """Return images as the network reads them."""
    mean, std = (np.array(each, np.float32).reshape(-1, 1, 1) for each in (network.mean, network.std))
    return ((images / np.float32(255) - mean) / std).astype(np.float32)


def classes(model: Model, network: Network, images: Images, *, threads: int) -> NDArray[np.uint8]:
    """Return the class that a model gives every test image, uint8 ``[n]``."""
    pictures, labels = images.all(network.data, "test")
    found = np.empty(len(labels), np.uint8)
    with open_session(model, threads=threads) as session:
        for start in range(0, len(labels), 500):
            part = slice(start, start + 500)
            outputs = session.run({session.inputs[0]: prepared(network, pictures[part])})
            found[part] = next(iter(outputs.values())).argmax(axis=1)
    return found


def accuracy(model: Model, network: Network, images: Images) -> float:
    """Return the share of the test images that a model classifies rightly."""
    _, labels = images.all(network.data, "test")
    return float((classes(model, network, images, threads=this_machine().threads) == labels).mean())


def sizes(model: Model) -> tuple[int, int]:
    """Return multiply-accumulates of a sample, and parameters."""
    units = find_groups(model)
    return round(Cost(units, "macs").dense()), round(Cost(units, "params").dense())


def path_of(network: Network, models: Path) -> Path:
    """Return where a network lies: in the repository, or in the folder of models beside it."""
    own = ROOT / "benchmarks" / "models" / network.file
    return own if own.exists() else models / network.file
