"""Mobile and recent convolutional classifiers, small."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.torch_classifiers import conv_bn, head


class SqueezeExcite(nn.Module):
    """Gates every channel by a small bottleneck; by convolution or by Linear and view."""

    def __init__(self, width: int, squeeze: int, *, gate: nn.Module, linear: bool = False) -> None:
        super().__init__()
        self.linear, self.gate = linear, gate
        self.down: nn.Module = nn.Linear(width, squeeze) if linear else nn.Conv2d(width, squeeze, 1)
        self.up: nn.Module = nn.Linear(squeeze, width) if linear else nn.Conv2d(squeeze, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(x, 1)
        if self.linear:
            batch, channels = x.shape[:2]
            gate = self.gate(self.up(functional.relu(self.down(pooled.view(batch, channels)))))
            return x * gate.view(batch, channels, 1, 1).expand_as(x)
        return x * self.gate(self.up(functional.relu(self.down(pooled))))


class InvertedResidual(nn.Module):
    """Expand, depthwise, optionally gate, project; residual where the shape stays."""

    def __init__(
        self, inputs: int, width: int, outputs: int, stride: int, act: nn.Module, excite: nn.Module | None = None
    ) -> None:
        super().__init__()
        layers = [nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), act]
        layers += [nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False), nn.BatchNorm2d(width), act]
        layers += [] if excite is None else [excite]
        self.body = nn.Sequential(*layers, nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x if self.residual else self.body(x)


def mobilenet_v1() -> nn.Module:
    """Depthwise separable convolutions without shortcuts."""
    layers = [conv_bn(3, 8, stride=2)]
    for inputs, outputs, stride in ((8, 16, 1), (16, 24, 2), (24, 24, 1)):
        layers += [conv_bn(inputs, inputs, 3, stride=stride, groups=inputs), conv_bn(inputs, outputs, 1)]
    return nn.Sequential(*layers, *head(24))


def mobilenet_v2() -> nn.Module:
    """Inverted residuals with ReLU6."""
    act = nn.ReLU6()
    blocks = [
        InvertedResidual(8, 24, 8, 1, act),
        InvertedResidual(8, 24, 12, 2, act),
        InvertedResidual(12, 36, 12, 1, act),
    ]
    last = [nn.Conv2d(12, 40, 1, bias=False), nn.BatchNorm2d(40), act]
    return nn.Sequential(conv_bn(3, 8, stride=2), *blocks, *last, *head(40))


def mobilenet_v3() -> nn.Module:
    """Squeeze-and-excitation with HardSigmoid, HardSwish, two Linear layers."""
    act, gate = nn.Hardswish(), nn.Hardsigmoid()
    blocks = [
        InvertedResidual(8, 16, 8, 1, nn.ReLU(), SqueezeExcite(16, 8, gate=gate)),
        InvertedResidual(8, 24, 12, 2, act),
        InvertedResidual(12, 32, 12, 1, act, SqueezeExcite(32, 8, gate=gate)),
    ]
    stem = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), act]
    last = [nn.Conv2d(12, 32, 1, bias=False), nn.BatchNorm2d(32), act, nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*stem, *blocks, *last, nn.Linear(32, 24), act, nn.Dropout(), nn.Linear(24, 10))


def efficientnet(*, linear_gate: bool = False) -> nn.Module:
    """Squeeze-and-excitation with Sigmoid, SiLU; the gate's view through Linear where asked."""
    act = nn.SiLU()

    def excite(width: int) -> nn.Module:
        return SqueezeExcite(width, 4, gate=nn.Sigmoid(), linear=linear_gate)

    blocks = [
        InvertedResidual(8, 16, 8, 1, act, excite(16)),
        InvertedResidual(8, 24, 12, 2, act, excite(24)),
        InvertedResidual(12, 36, 12, 1, act, excite(36)),
    ]
    stem = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), act]
    last = [nn.Conv2d(12, 32, 1, bias=False), nn.BatchNorm2d(32), act]
    return nn.Sequential(*stem, *blocks, *last, *head(32))


def shuffle(x: Tensor, groups: int) -> Tensor:
    """Channel shuffle: Reshape, Transpose, Reshape."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width).transpose(1, 2).contiguous()
    return x.view(batch, channels, height, width)


class ShuffleUnit2(nn.Module):
    """ShuffleNetV2: split, transform one half, concat, shuffle."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        width = outputs // 2
        self.stride = stride
        entering = inputs if stride > 1 else inputs // 2

        def depthwise(channels: int) -> list[nn.Module]:
            conv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
            return [conv, nn.BatchNorm2d(channels)]

        self.main = nn.Sequential(conv_bn(entering, width, 1), *depthwise(width), conv_bn(width, width, 1))
        self.side = nn.Sequential(*depthwise(inputs), conv_bn(inputs, width, 1)) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.side is None:
            kept, changed = x.chunk(2, 1)
            return shuffle(torch.cat([kept, self.main(changed)], 1), 2)
        return shuffle(torch.cat([self.side(x), self.main(x)], 1), 2)


def shufflenet_v2() -> nn.Module:
    """ShuffleNetV2 with two stages."""
    units = [ShuffleUnit2(8, 16, 2), ShuffleUnit2(16, 16, 1), ShuffleUnit2(16, 24, 2), ShuffleUnit2(24, 24, 1)]
    return nn.Sequential(conv_bn(3, 8, stride=2), *units, conv_bn(24, 32, 1), *head(32))


class ShuffleUnit1(nn.Module):
    """ShuffleNetV1: grouped 1x1, shuffle, depthwise, grouped 1x1, residual."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.enter = conv_bn(width, width, 1, groups=groups)
        self.depthwise = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width))
        self.leave = nn.Sequential(nn.Conv2d(width, width, 1, groups=groups), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.leave(self.depthwise(shuffle(self.enter(x), self.groups))))


def shufflenet_v1(*, width: int) -> nn.Module:
    """ShuffleNetV1 with three groups; a width of three squared times n lets whole rows of the shuffle go."""
    return nn.Sequential(conv_bn(3, width, stride=2), ShuffleUnit1(width, 3), ShuffleUnit1(width, 3), *head(width))


class GhostModule(nn.Module):
    """Half of the features by convolution, the other half by cheap depthwise convolution of the first, then cut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        half = (outputs + 1) // 2
        self.primary, self.cheap = conv_bn(inputs, half, 1), conv_bn(half, half, 3, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], 1)[:, : self.outputs]


def ghostnet() -> nn.Module:
    """GhostNet with an odd width, so that the cut removes a channel."""
    return nn.Sequential(conv_bn(3, 8, stride=2), GhostModule(8, 15), nn.MaxPool2d(2), GhostModule(15, 24), *head(24))


class RepBlock(nn.Module):
    """RepVGG while it trains: 3x3, 1x1 and identity branches, each with its BatchNorm, added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.three = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        self.one = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.identity = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.three(x) + self.one(x) + self.identity(x))


def repvgg() -> nn.Module:
    """RepVGG, not yet merged."""
    return nn.Sequential(conv_bn(3, 12, stride=2), RepBlock(12), conv_bn(12, 20, stride=2), RepBlock(20), *head(20))


class ConvNextBlock(nn.Module):
    """Depthwise 7x7, LayerNorm in channels-last, Linear, GELU, Linear, layer scale, residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        inner = self.scale * self.down(functional.gelu(self.up(inner)))
        return x + inner.permute(0, 3, 1, 2)


class ChannelsFirstNorm(nn.Module):
    """LayerNorm over channels of an NCHW map, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.randn(width) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        return self.weight[:, None, None] * (x - mean) / torch.sqrt(variance + 1e-6) + self.bias[:, None, None]


def convnext() -> nn.Module:
    """ConvNeXt with a downsampling layer between two stages."""
    stem = [nn.Conv2d(3, 12, 4, 4), ChannelsFirstNorm(12)]
    down = [ChannelsFirstNorm(12), nn.Conv2d(12, 16, 2, 2)]
    tail = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 10)]
    return nn.Sequential(*stem, ConvNextBlock(12), *down, ConvNextBlock(16), *tail)


class Cbam(nn.Module):
    """Channel attention by two pools, then spatial attention by mean and maximum over the channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Conv2d(width, 4, 1, bias=False), nn.ReLU(), nn.Conv2d(4, width, 1, bias=False))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        average, largest = functional.adaptive_avg_pool2d(x, 1), functional.adaptive_max_pool2d(x, 1)
        x = x * torch.sigmoid(self.shared(average) + self.shared(largest))
        planes = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial(planes))


class EfficientChannelAttention(nn.Module):
    """A 1-D convolution that slides over the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2)
        return x * torch.sigmoid(self.conv(pooled).transpose(-1, -2).unsqueeze(-1))


def attention_cnn() -> nn.Module:
    """CBAM, then efficient channel attention; a free layer before and behind them."""
    first = [conv_bn(3, 12), conv_bn(12, 12, stride=2), Cbam(12)]
    return nn.Sequential(*first, conv_bn(12, 16, stride=2), EfficientChannelAttention(), conv_bn(16, 16), *head(16))
