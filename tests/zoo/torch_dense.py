"""Networks whose output is a map: segmentation, detection, super-resolution, auto-encoders, generators."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.torch_classifiers import conv_bn


class UNet(nn.Module):
    """Skip connections by Concat; up by ConvTranspose or by Resize."""

    def __init__(self, *, resize: bool) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Sequential(conv_bn(3, 8), conv_bn(8, 8)), conv_bn(8, 12)
        self.bottom = conv_bn(12, 16)
        self.up2, self.up1 = self._up(16, 12, resize=resize), self._up(12, 8, resize=resize)
        self.join2, self.join1 = conv_bn(24, 12), conv_bn(16, 8)
        self.head = nn.Conv2d(8, 3, 1)

    def _up(self, inputs: int, outputs: int, *, resize: bool) -> nn.Module:
        if not resize:
            return nn.ConvTranspose2d(inputs, outputs, 2, 2)
        return nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(inputs, outputs, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        bottom = self.bottom(functional.max_pool2d(second, 2))
        second = self.join2(torch.cat([second, self.up2(bottom)], 1))
        return self.head(self.join1(torch.cat([first, self.up1(second)], 1)))


def attach_yolo(maps: list[Tensor], anchors: int, fields: int) -> Tensor:
    """Turn raw maps into predictions: boxes decoded with a grid, objects and classes through a Sigmoid."""
    rows = []
    for number, raw in enumerate(maps):
        batch, _, height, width = raw.shape
        raw = raw.view(batch, anchors, fields, height, width).permute(0, 1, 3, 4, 2).contiguous()
        grid_y, grid_x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        grid = torch.stack([grid_x, grid_y], -1).float()
        centre, size, rest = raw.sigmoid().split([2, 2, fields - 4], -1)
        centre, size = (centre * 2 - 0.5 + grid) * 2.0 ** (number + 2), (size * 2) ** 2
        rows.append(torch.cat([centre, size, rest], -1).reshape(batch, -1, fields))
    return torch.cat(rows, 1)


class Yolo(nn.Module):
    """Backbone, feature pyramid by Resize and Concat, three-field anchors, decoded and raw outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 8, stride=2), conv_bn(8, 12, stride=2))
        self.deep = conv_bn(12, 16, stride=2)
        self.pool_in, self.pool_out = conv_bn(16, 8, 1), conv_bn(32, 16, 1)
        self.lateral = conv_bn(16, 12, 1)
        self.join = conv_bn(24, 12)
        self.down = conv_bn(12, 12, stride=2)
        self.heads = nn.ModuleList([nn.Conv2d(12, 2 * 8, 1), nn.Conv2d(24, 2 * 8, 1)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        shallow = self.stem(x)
        pooled = [self.pool_in(self.deep(shallow))]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, 1, 2))
        deep = self.lateral(self.pool_out(torch.cat(pooled, 1)))
        shallow = self.join(torch.cat([functional.interpolate(deep, scale_factor=2.0, mode="nearest"), shallow], 1))
        deep = torch.cat([self.down(shallow), deep], 1)
        maps = [self.heads[0](shallow), self.heads[1](deep)]
        return attach_yolo(maps, 2, 8), maps[1]


class Ssd(nn.Module):
    """Two scales, each with a location and a class head: Transpose to channels-last, Reshape, Concat, Softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.more = nn.Sequential(conv_bn(3, 8, stride=2), conv_bn(8, 12)), conv_bn(12, 16, stride=2)
        self.boxes = nn.ModuleList([nn.Conv2d(12, 8, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)])
        self.classes = nn.ModuleList([nn.Conv2d(12, 6, 3, padding=1), nn.Conv2d(16, 6, 3, padding=1)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.stem(x)
        maps = [first, self.more(first)]
        boxes = [
            conv(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4) for conv, x in zip(self.boxes, maps, strict=True)
        ]
        classes = [
            conv(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 3) for conv, x in zip(self.classes, maps, strict=True)
        ]
        return torch.cat(boxes, 1), torch.softmax(torch.cat(classes, 1), -1)


class FeaturePyramid(nn.Module):
    """Lateral 1x1, upsample by the size of the other map, Add; one head shared by all levels, as in RetinaNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([conv_bn(3, 8, stride=2), conv_bn(8, 12, stride=2), conv_bn(12, 16, stride=2)])
        self.lateral = nn.ModuleList([nn.Conv2d(width, 12, 1) for width in (8, 12, 16)])
        self.head = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 5, 3, padding=1))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        merged = [self.lateral[2](maps[2])]
        for level in (1, 0):
            up = functional.interpolate(merged[0], size=maps[level].shape[-2:], mode="nearest")
            merged.insert(0, self.lateral[level](maps[level]) + up)
        return tuple(self.head(level) for level in merged)


class DeepLab(nn.Module):
    """Dilated backbone, atrous pyramid with image pooling, decoder with a low-level skip."""

    def __init__(self) -> None:
        super().__init__()
        self.low = conv_bn(3, 8, stride=2)
        self.deep = nn.Sequential(conv_bn(8, 12, stride=2), nn.Conv2d(12, 12, 3, padding=2, dilation=2), nn.ReLU())
        self.branches = nn.ModuleList([conv_bn(12, 8, 1)])
        self.branches += [
            nn.Sequential(nn.Conv2d(12, 8, 3, padding=rate, dilation=rate, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            for rate in (2, 3)
        ]
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 8, 1), nn.ReLU())
        self.project, self.skip = conv_bn(32, 12, 1), conv_bn(8, 4, 1)
        self.head = nn.Sequential(conv_bn(16, 12), nn.Conv2d(12, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(x)
        deep = self.deep(low)
        parts = [branch(deep) for branch in self.branches]
        parts.append(functional.interpolate(self.image(deep), size=deep.shape[-2:], mode="bilinear"))
        deep = functional.interpolate(self.project(torch.cat(parts, 1)), size=low.shape[-2:], mode="bilinear")
        logits = self.head(torch.cat([deep, self.skip(low)], 1))
        return functional.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)


class SuperResolution(nn.Module):
    """Residual body, PixelShuffle twice (DepthToSpace), a global skip by bicubic Resize."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.PReLU(12), nn.Conv2d(12, 12, 3, padding=1))
        self.up = nn.Sequential(nn.Conv2d(12, 32, 3, padding=1), nn.PixelShuffle(2), nn.PReLU())
        self.last = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.first(x)
        inner = self.up(inner + self.body(inner))
        return self.last(inner) + functional.interpolate(x, scale_factor=4, mode="bicubic")


class PixelUnshuffleNet(nn.Module):
    """SpaceToDepth at the entry and inside, as in denoisers and newer detectors."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.inner = conv_bn(12, 8), conv_bn(32, 16)
        self.leave = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.PixelShuffle(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(functional.pixel_unshuffle(x, 2))
        return self.leave(self.inner(functional.pixel_unshuffle(x, 2)))


def conv_autoencoder() -> nn.Module:
    """Strided convolutions down, transposed convolutions up, Sigmoid at the end."""
    down = [nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 6, 7)]
    up = [nn.ConvTranspose2d(6, 16, 7), nn.ReLU(), nn.ConvTranspose2d(16, 8, 3, 2, 1, output_padding=1), nn.ReLU()]
    return nn.Sequential(*down, *up, nn.ConvTranspose2d(8, 1, 3, 2, 1, output_padding=1), nn.Sigmoid())


def mlp_autoencoder() -> nn.Module:
    """Linear layers around a bottleneck, BatchNorm1d behind Linear."""
    down = [nn.Linear(64, 32), nn.BatchNorm1d(32), nn.LeakyReLU(0.1), nn.Linear(32, 8), nn.Tanh()]
    return nn.Sequential(*down, nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ELU(), nn.Linear(32, 64))


class VariationalDecoder(nn.Module):
    """Two heads on one trunk, the sample as an input, a view from vector to map."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 4, 2, 1), nn.ReLU(), nn.Flatten()
        )
        self.mean, self.deviation = nn.Linear(12 * 16, 6), nn.Linear(12 * 16, 6)
        self.enter = nn.Linear(6, 12 * 16)
        self.up = nn.Sequential(nn.ConvTranspose2d(12, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 1, 4, 2, 1))

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        code = self.trunk(x)
        mean, deviation = self.mean(code), self.deviation(code)
        sample = mean + noise * torch.exp(0.5 * deviation)
        image = self.up(functional.relu(self.enter(sample)).view(-1, 12, 4, 4))
        return torch.sigmoid(image), mean, deviation


def generator() -> nn.Module:
    """DCGAN generator: transposed convolutions with BatchNorm from a 1x1 map, Tanh."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel, stride, pad in ((16, 16, 4, 1, 0), (16, 12, 4, 2, 1), (12, 8, 4, 2, 1)):
        layers += [
            nn.ConvTranspose2d(inputs, outputs, kernel, stride, pad, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())


class StyleBlock(nn.Module):
    """Reflection padding, InstanceNorm, residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width, affine=True),
            nn.ReLU(),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3),
            nn.InstanceNorm2d(width, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def style_transfer() -> nn.Module:
    """Fast neural style: InstanceNorm everywhere, nearest upsampling."""
    first = [nn.Conv2d(3, 8, 5, padding=2), nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1)]
    last = [nn.Upsample(scale_factor=2), nn.Conv2d(12, 8, 3, padding=1), nn.InstanceNorm2d(8), nn.ReLU()]
    return nn.Sequential(
        *first, nn.InstanceNorm2d(12, affine=True), nn.ReLU(), StyleBlock(12), *last, nn.Conv2d(8, 3, 5, padding=2)
    )


class HighResolution(nn.Module):
    """Two resolutions in parallel that exchange features by strided convolution and Resize, then heat maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.split = conv_bn(3, 8, stride=2), conv_bn(8, 12, stride=2)
        self.high, self.low = conv_bn(8, 8), conv_bn(12, 12)
        self.up = nn.Sequential(nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Upsample(scale_factor=2))
        self.down = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12))
        self.head = nn.Conv2d(20, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = self.stem(x)
        low = self.split(high)
        high, low = self.high(high), self.low(low)
        high, low = functional.relu(high + self.up(low)), functional.relu(low + self.down(high))
        low = functional.interpolate(low, size=high.shape[-2:], mode="bilinear", align_corners=False)
        return self.head(torch.cat([high, low], 1))


class CenterNet(nn.Module):
    """Three heads on one map, peaks by max pooling, the best by TopK and gathered offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(3, 8, stride=2), conv_bn(8, 16, stride=2), nn.ConvTranspose2d(16, 12, 4, 2, 1)
        )
        self.heat = nn.Sequential(conv_bn(12, 12), nn.Conv2d(12, 2, 1))
        self.size = nn.Sequential(conv_bn(12, 12), nn.Conv2d(12, 2, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = functional.relu(self.body(x))
        heat = torch.sigmoid(self.heat(features))
        peaks = heat * (functional.max_pool2d(heat, 3, 1, 1) == heat).float()
        scores, places = torch.topk(peaks.amax(1).flatten(1), 5)
        sizes = self.size(features).flatten(2).gather(2, places.unsqueeze(1).expand(-1, 2, -1))
        return scores, sizes
