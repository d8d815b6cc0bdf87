"""Convolutional classifiers, small: the classics."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def conv_bn(inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Conv without bias, BatchNorm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def lenet() -> nn.Module:
    """LeNet-5: the first Linear reads a Flatten."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 12, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(12 * 4 * 4, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def vgg(*, norm: bool) -> nn.Module:
    """VGG with Dropout, three Linear layers and an adaptive pool that divides the map."""
    layers: list[nn.Module] = []
    inputs = 3
    for width in (8, 8, 0, 16, 16, 0, 24, 24, 0):
        if width == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(nn.Conv2d(inputs, width, 3, padding=1))
        layers += [nn.BatchNorm2d(width)] if norm else []
        layers.append(nn.ReLU(inplace=True))
        inputs = width
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24 * 4, 32), nn.ReLU(), nn.Dropout()]
    return nn.Sequential(*layers, nn.Linear(32, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 10))


def alexnet() -> nn.Module:
    """AlexNet: large strides, overlapping pools, local response normalisation, grouped convolution, Flatten."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 7, 2, 2),
        nn.ReLU(),
        nn.LocalResponseNorm(5),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(12, 16, 5, padding=2, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 16, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Flatten(1),
        nn.Dropout(),
        nn.Linear(16 * 3 * 3, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut by projection or, where asked, by subsampling and zero channels."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, padded: bool = False) -> None:
        super().__init__()
        self.first = conv_bn(inputs, outputs, stride=stride)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.stride, self.more, self.padded = stride, outputs - inputs, padded
        self.project: nn.Module = nn.Identity()
        if not padded and (stride > 1 or inputs != outputs):
            self.project = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.project(x)
        if self.padded and (self.stride > 1 or self.more):
            shortcut = functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2)
            )
        return functional.relu(self.norm(self.second(self.first(x))) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped for ResNeXt and RegNet), 1x1."""

    def __init__(self, inputs: int, width: int, outputs: int, stride: int, *, groups: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(inputs, width, 1),
            conv_bn(width, width, 3, stride=stride, groups=groups),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.shortcut(x))


class PreActivationBlock(nn.Module):
    """BatchNorm and ReLU stand before each convolution, so the exporters cannot fold them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        ready = functional.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(ready)
        return self.conv2(functional.relu(self.norm2(self.conv1(ready)))) + shortcut


def head(width: int, classes: int = 10) -> list[nn.Module]:
    """Global average pool and one Linear."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def resnet_basic() -> nn.Module:
    """ResNet-10: identity and projection shortcuts, stem with max pool."""
    stem = [conv_bn(3, 8), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, BasicBlock(8, 8, 1), BasicBlock(8, 16, 2), BasicBlock(16, 16, 1), *head(16))


def resnet_padded() -> nn.Module:
    """The CIFAR ResNet whose shortcuts subsample by Slice and add zero channels by Pad."""
    blocks = [BasicBlock(8, 8, 1, padded=True), BasicBlock(8, 16, 2, padded=True), BasicBlock(16, 16, 1, padded=True)]
    return nn.Sequential(conv_bn(3, 8), *blocks, BasicBlock(16, 24, 2, padded=True), *head(24))


def resnet_bottleneck(*, groups: int = 1) -> nn.Module:
    """Bottleneck ResNet; with groups it is a ResNeXt or RegNet."""
    first, second = Bottleneck(16, 8, 32, 1, groups=groups), Bottleneck(32, 8, 32, 1, groups=groups)
    return nn.Sequential(conv_bn(3, 16), first, second, Bottleneck(32, 16, 40, 2, groups=groups), *head(40))


def resnet_preactivation() -> nn.Module:
    """Pre-activation ResNet with a BatchNorm and ReLU before the head."""
    blocks = [PreActivationBlock(8, 8, 1), PreActivationBlock(8, 16, 2), PreActivationBlock(16, 16, 1)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *blocks, nn.BatchNorm2d(16), nn.ReLU(), *head(16))


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1x1, BatchNorm, ReLU, 3x3, and the input beside the result."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, 2 * growth, 1, bias=False),
            nn.BatchNorm2d(2 * growth),
            nn.ReLU(),
            nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet() -> nn.Module:
    """Two dense blocks with a transition."""
    first = [DenseLayer(8 + 6 * number, 6) for number in range(3)]
    transition = [nn.BatchNorm2d(26), nn.ReLU(), nn.Conv2d(26, 12, 1, bias=False), nn.AvgPool2d(2)]
    second = [DenseLayer(12 + 6 * number, 6) for number in range(2)]
    return nn.Sequential(conv_bn(3, 8), *first, *transition, *second, nn.BatchNorm2d(24), nn.ReLU(), *head(24))


class InceptionBlock(nn.Module):
    """Four branches and a Concat; asymmetric kernels as in the third version."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.one = conv_bn(inputs, width, 1)
        self.three = nn.Sequential(conv_bn(inputs, width, 1), conv_bn(width, width + 2, 3))
        asymmetric = [nn.Conv2d(width, width, (1, 5), padding=(0, 2)), nn.ReLU()]
        asymmetric += [nn.Conv2d(width, width, (5, 1), padding=(2, 0)), nn.ReLU()]
        self.five = nn.Sequential(conv_bn(inputs, width, 1), *asymmetric)
        self.pool = nn.Sequential(nn.AvgPool2d(3, 1, 1), conv_bn(inputs, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


class Inception(nn.Module):
    """GoogLeNet: inception blocks, a pooled reduction and an auxiliary classifier that stays in the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.first, self.second = InceptionBlock(8, 6), InceptionBlock(26, 8)
        self.reduce = conv_bn(26, 8, 3, stride=2)
        self.mixed = InceptionBlock(34, 6)
        self.head, self.auxiliary = nn.Sequential(*head(26)), nn.Sequential(*head(34))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        middle = self.first(self.stem(x))
        reduced = torch.cat([self.reduce(middle), functional.max_pool2d(middle, 3, 2, 1)], 1)
        return self.head(self.mixed(reduced)), self.auxiliary(reduced)


class Fire(nn.Module):
    """Squeeze, then two expansions side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.squeeze(x))
        return torch.cat([functional.relu(self.one(x)), functional.relu(self.three(x))], 1)


def squeezenet() -> nn.Module:
    """SqueezeNet: the classifier is a convolution, its pool is the output."""
    fires = [Fire(12, 6, 8), Fire(16, 6, 8), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(16, 8, 12)]
    tail = [nn.Dropout(), nn.Conv2d(24, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(nn.Conv2d(3, 12, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), *fires, *tail)


class Res2Block(nn.Module):
    """Channels chunked into scales that feed each other: Split, Add, Concat."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = conv_bn(width, width, 1), conv_bn(width, width, 1)
        self.scales = nn.ModuleList(conv_bn(width // 4, width // 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(torch.chunk(self.enter(x), 4, 1))
        for number, scale in enumerate(self.scales, start=1):
            parts[number] = scale(parts[number] + parts[number - 1])
        return self.leave(torch.cat(parts, 1)) + x


def res2net() -> nn.Module:
    """Res2Net with one block of four scales."""
    return nn.Sequential(conv_bn(3, 16, stride=2), Res2Block(16), conv_bn(16, 24, stride=2), *head(24))


class CspBlock(nn.Module):
    """Cross-stage partial block: half of the channels goes around the residual part."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.enter, self.leave = conv_bn(inputs, outputs, 1), conv_bn(outputs + outputs // 2, outputs, 1)
        self.body = nn.Sequential(conv_bn(outputs // 2, outputs // 2), conv_bn(outputs // 2, outputs // 2))

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.enter(x).split(self.enter[0].out_channels // 2, 1)
        return self.leave(torch.cat([first, second, self.body(second) + second], 1))


def cspnet() -> nn.Module:
    """Cross-stage partial network, as in the newer YOLO backbones (C2f)."""
    return nn.Sequential(
        conv_bn(3, 8, stride=2), CspBlock(8, 16), conv_bn(16, 16, stride=2), CspBlock(16, 24), *head(24)
    )
