"""The networks of benchmarks/train_speed.py in PyTorch: their export to ONNX, and one measurement of a training step.

Needs an environment with PyTorch, onnx and onnxscript (dependency group ``train-speed``) and nothing of this project.
Run: ``python benchmarks/train_speed_torch.py export FOLDER`` or ``... time NETWORK LAYOUT BATCH THREADS SECONDS``; the
latter prints one JSON object.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

CLASSES, WORDS, LENGTH = 10, 1000, 64


def lenet() -> nn.Module:
    """LeNet-5 as in Caffe: 431,080 parameters, 28 x 28."""
    return nn.Sequential(
        *(nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, CLASSES)),
    )


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(functional.relu(self.first(x))) + self.shortcut(x))


def resnet20() -> nn.Module:
    """ResNet-20 for 32 x 32 pictures, BatchNorms folded into the convolutions."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU()]
    inputs = 16
    for outputs, stride in ((16, 1), (32, 2), (64, 2)):
        for block in range(3):
            layers.append(Residual(inputs, outputs, stride if block == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def vgg16() -> nn.Module:
    """VGG-16 for 32 x 32 pictures: thirteen convolutions and one linear layer."""
    layers: list[nn.Module] = []
    inputs = 3
    for outputs, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, CLASSES))


class Inverted(nn.Module):
    """Inverted residual of MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int) -> None:
        super().__init__()
        wide = inputs * factor
        layers: list[nn.Module] = [nn.Conv2d(inputs, wide, 1), nn.ReLU6()] if factor > 1 else []
        layers += [nn.Conv2d(wide, wide, 3, stride, 1, groups=wide), nn.ReLU6(), nn.Conv2d(wide, outputs, 1)]
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def mobilenet() -> nn.Module:
    """MobileNetV2 for 32 x 32 pictures, BatchNorms folded."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU6()]
    inputs = 32
    plan = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    for factor, outputs, count, stride in plan:
        for block in range(count):
            layers.append(Inverted(inputs, outputs, stride if block == 0 else 1, factor))
            inputs = outputs
    layers += [nn.Conv2d(inputs, 1280, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(1280, CLASSES))


class Layer(nn.Module):
    """Attention and two linear layers, each beside a shortcut, normalised before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_linear = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        every = self.query_key_value(self.norm_attention(x)).reshape(n, t, 3, self.heads, d // self.heads)
        q, k, v = every.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5, -1)
        x = x + self.projection((weights @ v).transpose(1, 2).reshape(n, t, d))
        return x + self.down(functional.gelu(self.up(self.norm_linear(x))))


class Transformer(nn.Module):
    """Four layers of width 128 on 64 words, then their mean."""

    def __init__(self, width: int = 128, heads: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.places = nn.Parameter(torch.randn(1, LENGTH, width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.norm(self.layers(self.words(x) + self.places)).mean(1))
        return y


#: Networks with the shape of one picture; None for words.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...] | None]] = {
    "lenet": (lenet, (1, 28, 28)),
    "resnet20": (resnet20, (3, 32, 32)),
    "vgg16": (vgg16, (3, 32, 32)),
    "mobilenetv2": (mobilenet, (3, 32, 32)),
    "transformer": (Transformer, None),
}


def sample(name: str, count: int) -> Tensor:
    shape = NETWORKS[name][1]
    return torch.randint(0, WORDS, (count, LENGTH)) if shape is None else torch.randn(count, *shape)


def export(folder: Path) -> None:
    """Write every network as FOLDER/NAME.onnx, with a batch of any size."""
    for name, (make, _) in NETWORKS.items():
        torch.manual_seed(0)
        torch.onnx.export(
            make().eval(),
            (sample(name, 2),),
            str(folder / f"{name}.onnx"),
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "n"}},
            opset_version=17,
        )


def time_steps(name: str, layout: str, batch: int, threads: int, seconds: float) -> dict[str, object]:
    """Seconds of each training step, eager, after three that do not count."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, x, y = NETWORKS[name][0](), sample(name, batch), torch.randint(0, CLASSES, (batch,))
    if layout == "channels_last":
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    times: list[float] = []
    while len(times) < 8 or sum(times) < seconds:
        start = time.perf_counter()
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return {"times": times[3:], "version": torch.__version__}


if __name__ == "__main__":
    if sys.argv[1] == "export":
        export(Path(sys.argv[2]))
    else:
        word, words = sys.argv[2], sys.argv[3:]
        print(json.dumps(time_steps(word, words[0], int(words[1]), int(words[2]), float(words[3]))))
