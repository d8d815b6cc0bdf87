"""Architectures at full size with random weights, exported from PyTorch for ``benchmarks.coverage --params 0.7``.

Needs PyTorch and onnxscript. Run from the root of the repository, with a folder outside of it:
``python -m benchmarks.coverage_models FOLDER [--exporter dynamo|script] [--only part of a name]``. Widths and depths
are those of the papers; blocks come from the small networks of the tests.
"""

import argparse
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.coverage_transformers import Bert, Gpt, Llama, Swin, VisionTransformer
from tests.zoo.make_torch import forget_the_machine, settle
from tests.zoo.torch_classifiers import BasicBlock, Bottleneck, DenseLayer, Fire, conv_bn, head
from tests.zoo.torch_dense import attach_yolo
from tests.zoo.torch_mobile import ChannelsFirstNorm, ConvNextBlock, InvertedResidual, ShuffleUnit2, SqueezeExcite

IMAGE = (3, 224, 224)


def stem(width: int, kernel: int = 7) -> list[nn.Module]:
    """Strided convolution and max pool."""
    return [conv_bn(3, width, kernel, stride=2), nn.MaxPool2d(3, 2, 1)]


def resnet18() -> nn.Module:
    blocks: list[nn.Module] = []
    inputs = 64
    for width in (64, 128, 256, 512):
        blocks += [BasicBlock(inputs, width, 1 if width == 64 else 2), BasicBlock(width, width, 1)]
        inputs = width
    return nn.Sequential(*stem(64), *blocks, *head(512, 1000))


def bottlenecks(
    depths: tuple[int, ...], widths: tuple[int, ...], *, expand: int, group: int = 0, strides: tuple[int, ...]
) -> list[nn.Module]:
    """Stages of bottleneck blocks; ``group`` is the width of one group of the 3x3 convolution, 0 for one group."""
    blocks: list[nn.Module] = []
    inputs = 64 if expand > 1 else 32
    for depth, width, stride in zip(depths, widths, strides, strict=True):
        for number in range(depth):
            groups = width // group if group else 1
            blocks.append(Bottleneck(inputs, width, width * expand, stride if number == 0 else 1, groups=groups))
            inputs = width * expand
    return blocks


def resnet50() -> nn.Module:
    blocks = bottlenecks((3, 4, 6, 3), (64, 128, 256, 512), expand=4, strides=(1, 2, 2, 2))
    return nn.Sequential(*stem(64), *blocks, *head(2048, 1000))


def regnet() -> nn.Module:
    """RegNetX-800MF: groups of 16."""
    blocks = bottlenecks((1, 3, 7, 5), (64, 128, 288, 672), expand=1, group=16, strides=(2, 2, 2, 2))
    return nn.Sequential(conv_bn(3, 32, stride=2), *blocks, *head(672, 1000))


def mobilenet_v2() -> nn.Module:
    act = nn.ReLU6()
    blocks: list[nn.Module] = [InvertedResidual(32, 32, 16, 1, act)]
    inputs = 16
    for width, depth, stride in ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)):
        for number in range(depth):
            blocks.append(InvertedResidual(inputs, 6 * inputs, width, stride if number == 0 else 1, act))
            inputs = width
    return nn.Sequential(conv_bn(3, 32, stride=2), *blocks, conv_bn(320, 1280, 1), nn.Dropout(), *head(1280, 1000))


def mobilenet_v3() -> nn.Module:
    """MobileNetV3-Large (kernels of 3 throughout)."""
    smooth, plain = nn.Hardswish(), nn.ReLU()
    rows = [(16, 16, 1, 0, plain), (64, 24, 2, 0, plain), (72, 24, 1, 0, plain), (72, 40, 2, 1, plain)]
    rows += [(120, 40, 1, 1, plain), (120, 40, 1, 1, plain), (240, 80, 2, 0, smooth), (200, 80, 1, 0, smooth)]
    rows += [(184, 80, 1, 0, smooth), (184, 80, 1, 0, smooth), (480, 112, 1, 1, smooth), (672, 112, 1, 1, smooth)]
    rows += [(672, 160, 2, 1, smooth), (960, 160, 1, 1, smooth), (960, 160, 1, 1, smooth)]
    blocks: list[nn.Module] = []
    inputs = 16
    for width, outputs, stride, gated, act in rows:
        gate = SqueezeExcite(width, width // 4, gate=nn.Hardsigmoid()) if gated else None
        blocks.append(InvertedResidual(inputs, width, outputs, stride, act, gate))
        inputs = outputs
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(960, 1280), smooth, nn.Dropout(), nn.Linear(1280, 1000)]
    return nn.Sequential(conv_bn(3, 16, stride=2), *blocks, conv_bn(160, 960, 1), *tail)


def efficientnet_b0() -> nn.Module:
    """EfficientNet-B0 (kernels of 3 throughout)."""
    act = nn.SiLU()
    blocks: list[nn.Module] = []
    inputs = 32
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 40, 2, 2), (6, 80, 3, 2), (6, 112, 3, 1), (6, 192, 4, 2), (6, 320, 1, 1))
    for expand, width, depth, stride in rows:
        for number in range(depth):
            inner = inputs * expand
            gate = SqueezeExcite(inner, max(1, inputs // 4), gate=nn.Sigmoid())
            blocks.append(InvertedResidual(inputs, inner, width, stride if number == 0 else 1, act, gate))
            inputs = width
    return nn.Sequential(conv_bn(3, 32, stride=2), *blocks, conv_bn(320, 1280, 1), nn.Dropout(), *head(1280, 1000))


def densenet121() -> nn.Module:
    layers: list[nn.Module] = stem(64)
    width = 64
    for depth in (6, 12, 24, 16):
        for _ in range(depth):
            # The paper's 1x1 bottleneck is four times the growth of 32; this block's is twice: growth and layers agree.
            layers.append(DenseLayer(width, 32))
            width += 32
        if depth != 16:
            layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(), *head(width, 1000))


class Branches(nn.Module):
    """Branches side by side, joined by Concat."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def googlenet() -> nn.Module:
    rows = [(192, 64, 96, 128, 16, 32, 32), (256, 128, 128, 192, 32, 96, 64), (480, 192, 96, 208, 16, 48, 64)]
    rows += [(512, 160, 112, 224, 24, 64, 64), (512, 128, 128, 256, 24, 64, 64), (512, 112, 144, 288, 32, 64, 64)]
    rows += [(528, 256, 160, 320, 32, 128, 128), (832, 256, 160, 320, 32, 128, 128), (832, 384, 192, 384, 48, 128, 128)]
    layers: list[nn.Module] = [*stem(64), conv_bn(64, 64, 1), conv_bn(64, 192), nn.MaxPool2d(3, 2, 1)]
    for number, (inputs, one, three_in, three, five_in, five, pool) in enumerate(rows):
        block = Branches(
            conv_bn(inputs, one, 1),
            nn.Sequential(conv_bn(inputs, three_in, 1), conv_bn(three_in, three)),
            nn.Sequential(conv_bn(inputs, five_in, 1), conv_bn(five_in, five, 5)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(inputs, pool, 1)),
        )
        layers += [block, nn.MaxPool2d(3, 2, 1)] if number in (1, 6) else [block]
    return nn.Sequential(*layers, nn.Dropout(), *head(1024, 1000))


def factored(inputs: int, outputs: int, *kernels: tuple[int, int]) -> nn.Module:
    """Convolutions of one height or one width after another."""
    layers: list[nn.Module] = []
    for kernel in kernels:
        padding = (kernel[0] // 2, kernel[1] // 2)
        layers += [nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers)


def inception_v3() -> nn.Module:
    """Inception-v3 without the auxiliary head."""
    layers: list[nn.Module] = [conv_bn(3, 32, stride=2), conv_bn(32, 32), conv_bn(32, 64), nn.MaxPool2d(3, 2)]
    layers += [conv_bn(64, 80, 1), conv_bn(80, 192), nn.MaxPool2d(3, 2)]
    for inputs, pool in ((192, 32), (256, 64), (288, 64)):
        fives = nn.Sequential(conv_bn(inputs, 48, 1), conv_bn(48, 64, 5))
        threes = nn.Sequential(conv_bn(inputs, 64, 1), conv_bn(64, 96), conv_bn(96, 96))
        pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), conv_bn(inputs, pool, 1))
        layers.append(Branches(conv_bn(inputs, 64, 1), fives, threes, pooled))
    down = nn.Sequential(conv_bn(288, 64, 1), conv_bn(64, 96), conv_bn(96, 96, stride=2))
    layers.append(Branches(conv_bn(288, 384, stride=2), down, nn.MaxPool2d(3, 2, 1)))
    for width in (128, 160, 160, 192):
        sevens = nn.Sequential(conv_bn(768, width, 1), factored(width, width, (1, 7)), factored(width, 192, (7, 1)))
        twice = nn.Sequential(
            conv_bn(768, width, 1), factored(width, width, (7, 1), (1, 7), (7, 1)), factored(width, 192, (1, 7))
        )
        pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), conv_bn(768, 192, 1))
        layers.append(Branches(conv_bn(768, 192, 1), sevens, twice, pooled))
    first = nn.Sequential(conv_bn(768, 192, 1), conv_bn(192, 320, stride=2))
    second = nn.Sequential(conv_bn(768, 192, 1), factored(192, 192, (1, 7), (7, 1)), conv_bn(192, 192, stride=2))
    layers.append(Branches(first, second, nn.MaxPool2d(3, 2, 1)))
    for inputs in (1280, 2048):
        threes = nn.Sequential(
            conv_bn(inputs, 384, 1), Branches(factored(384, 384, (1, 3)), factored(384, 384, (3, 1)))
        )
        twice = nn.Sequential(
            conv_bn(inputs, 448, 1), conv_bn(448, 384), Branches(factored(384, 384, (1, 3)), factored(384, 384, (3, 1)))
        )
        pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1), conv_bn(inputs, 192, 1))
        layers.append(Branches(conv_bn(inputs, 320, 1), threes, twice, pooled))
    return nn.Sequential(*layers, nn.Dropout(), *head(2048, 1000))


def shufflenet_v2() -> nn.Module:
    units: list[nn.Module] = []
    inputs = 24
    for width, depth in ((116, 4), (232, 8), (464, 4)):
        for number in range(depth):
            units.append(ShuffleUnit2(inputs if number == 0 else width, width, 2 if number == 0 else 1))
        inputs = width
    return nn.Sequential(*stem(24, 3), *units, conv_bn(464, 1024, 1), *head(1024, 1000))


def squeezenet() -> nn.Module:
    """SqueezeNet 1.1."""
    pool = partial(nn.MaxPool2d, 3, 2, ceil_mode=True)
    fires = [Fire(64, 16, 64), Fire(128, 16, 64), pool(), Fire(128, 32, 128), Fire(256, 32, 128), pool()]
    fires += [Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]
    tail = [nn.Dropout(), nn.Conv2d(512, 1000, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), *fires, *tail)


def vgg16() -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        inputs = width or inputs
    tail = [nn.Flatten(), nn.Linear(512 * 49, 1024), nn.ReLU(), nn.Dropout(), nn.Linear(1024, 1000)]
    return nn.Sequential(*layers, *tail)


def convnext_tiny() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 96, 4, 4), ChannelsFirstNorm(96)]
    for width, depth in ((96, 3), (192, 3), (384, 9), (768, 3)):
        layers += [ConvNextBlock(width) for _ in range(depth)]
        layers += [ChannelsFirstNorm(width), nn.Conv2d(width, 2 * width, 2, 2)] if width < 768 else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(768), nn.Linear(768, 1000))


class UNet(nn.Module):
    """U-Net of four levels, 64 to 1024 channels."""

    def __init__(self) -> None:
        super().__init__()
        widths = (64, 128, 256, 512, 1024)
        entering = (3, *widths[:-1])
        self.down = nn.ModuleList(nn.Sequential(conv_bn(a, b), conv_bn(b, b)) for a, b in zip(entering, widths))  # noqa: B905
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, 2) for width in widths[:-1])
        self.join = nn.ModuleList(nn.Sequential(conv_bn(2 * w, w), conv_bn(w, w)) for w in widths[:-1])
        self.head = nn.Conv2d(64, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else functional.max_pool2d(x, 2))
            maps.append(x)
        for level in (3, 2, 1, 0):
            x = self.join[level](torch.cat([maps[level], self.up[level](x)], 1))
        return self.head(x)


class DeepLab(nn.Module):
    """DeepLabV3+ on a ResNet-50 with dilated last stage."""

    def __init__(self) -> None:
        super().__init__()
        blocks = bottlenecks((3, 4, 6, 3), (64, 128, 256, 512), expand=4, strides=(1, 2, 2, 1))
        self.low = nn.Sequential(*stem(64), *blocks[:3])
        self.deep = nn.Sequential(*blocks[3:])
        self.branches = nn.ModuleList([conv_bn(2048, 256, 1)])
        for rate in (6, 12, 18):
            dilated = nn.Conv2d(2048, 256, 3, padding=rate, dilation=rate, bias=False)
            self.branches.append(nn.Sequential(dilated, nn.BatchNorm2d(256), nn.ReLU()))
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2048, 256, 1), nn.ReLU())
        self.project, self.skip = conv_bn(1280, 256, 1), conv_bn(256, 48, 1)
        self.head = nn.Sequential(conv_bn(304, 256), nn.Conv2d(256, 21, 1))

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(x)
        deep = self.deep(low)
        parts = [branch(deep) for branch in self.branches]
        parts.append(functional.interpolate(self.image(deep), size=deep.shape[-2:], mode="bilinear"))
        deep = functional.interpolate(self.project(torch.cat(parts, 1)), size=low.shape[-2:], mode="bilinear")
        return functional.interpolate(
            self.head(torch.cat([deep, self.skip(low)], 1)), scale_factor=4.0, mode="bilinear"
        )


class C3(nn.Module):
    """YOLOv5's cross-stage block."""

    def __init__(self, inputs: int, outputs: int, depth: int, *, shortcut: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.left, self.right, self.leave = (
            conv_bn(inputs, half, 1),
            conv_bn(inputs, half, 1),
            conv_bn(outputs, outputs, 1),
        )
        self.body = nn.ModuleList(nn.Sequential(conv_bn(half, half, 1), conv_bn(half, half)) for _ in range(depth))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        left = self.left(x)
        for block in self.body:
            left = left + block(left) if self.shortcut else block(left)
        return self.leave(torch.cat([left, self.right(x)], 1))


class Yolo(nn.Module):
    """YOLOv5s: path aggregation neck, three scales, decoded predictions (ReLU instead of SiLU)."""

    def __init__(self) -> None:
        super().__init__()
        self.shallow = nn.Sequential(conv_bn(3, 32, stride=2), conv_bn(32, 64, stride=2), C3(64, 64, 1))
        self.p3 = nn.Sequential(conv_bn(64, 128, stride=2), C3(128, 128, 2))
        self.p4 = nn.Sequential(conv_bn(128, 256, stride=2), C3(256, 256, 3))
        self.p5 = nn.Sequential(conv_bn(256, 512, stride=2), C3(512, 512, 1))
        self.pool_in, self.pool_out = conv_bn(512, 256, 1), conv_bn(1024, 512, 1)
        self.lateral5, self.lateral4 = conv_bn(512, 256, 1), conv_bn(256, 128, 1)
        self.up4, self.up3 = C3(512, 256, 1, shortcut=False), C3(256, 128, 1, shortcut=False)
        self.down3, self.down4 = conv_bn(128, 128, stride=2), conv_bn(256, 256, stride=2)
        self.out4, self.out5 = C3(256, 256, 1, shortcut=False), C3(512, 512, 1, shortcut=False)
        self.heads = nn.ModuleList(nn.Conv2d(width, 3 * 85, 1) for width in (128, 256, 512))

    def forward(self, x: Tensor) -> Tensor:
        p3 = self.p3(self.shallow(x))
        p4 = self.p4(p3)
        pooled = [self.pool_in(self.p5(p4))]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, 1, 2))
        p5 = self.lateral5(self.pool_out(torch.cat(pooled, 1)))
        p4 = self.lateral4(self.up4(torch.cat([functional.interpolate(p5, scale_factor=2.0), p4], 1)))
        p3 = self.up3(torch.cat([functional.interpolate(p4, scale_factor=2.0), p3], 1))
        p4 = self.out4(torch.cat([self.down3(p3), p4], 1))
        p5 = self.out5(torch.cat([self.down4(p4), p5], 1))
        return attach_yolo([conv(x) for conv, x in zip(self.heads, (p3, p4, p5), strict=True)], 3, 85)


def text(length: int) -> tuple[Tensor, ...]:
    return (torch.randint(0, 1000, (2, length)),)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    name: (build, lambda: (torch.randn(2, *IMAGE),))
    for name, build in {
        "resnet18": resnet18,
        "resnet50": resnet50,
        "regnet_x_800mf": regnet,
        "mobilenet_v2": mobilenet_v2,
        "mobilenet_v3_large": mobilenet_v3,
        "efficientnet_b0": efficientnet_b0,
        "densenet121": densenet121,
        "googlenet": googlenet,
        "inception_v3": inception_v3,
        "shufflenet_v2": shufflenet_v2,
        "squeezenet": squeezenet,
        "vgg16": vgg16,
        "convnext_tiny": convnext_tiny,
        "vit_small": VisionTransformer,
        "swin_tiny": Swin,
        "unet": UNet,
        "deeplab_v3_plus": DeepLab,
        "yolo_v5s": Yolo,
    }.items()
}
MODELS |= {
    "bert_base": (Bert, lambda: (*text(32), torch.ones(2, 32, dtype=torch.int64))),
    "gpt2_small": (Gpt, lambda: text(32)),
    "llama_8": (Llama, lambda: text(32)),
}


def export(name: str, exporter: str, folder: Path) -> Path:
    """Write one model with a free batch."""
    torch.manual_seed(0)
    build, make_inputs = MODELS[name]
    inputs = make_inputs()
    model = settle(build(), inputs, passes=4)
    path = folder / f"{name}_{exporter}.onnx"
    names = [f"input_{number}" for number in range(len(inputs))]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs)
            program = torch.onnx.export(model, inputs, dynamo=True, dynamic_shapes=shapes, verbose=False)
            assert program is not None
            proto = program.model_proto
        else:
            axes = {name: {0: "batch"} for name in names}
            torch.onnx.export(model, inputs, str(path), dynamo=False, input_names=names, dynamic_axes=axes)
            proto = onnx.load(path)
    forget_the_machine(proto.graph)
    path.write_bytes(proto.SerializeToString())
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description="Export architectures at full size.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--exporter", choices=("dynamo", "script"), default="dynamo")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in MODELS:
        if options.only in name:
            path = export(name, options.exporter, options.folder)
            print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
