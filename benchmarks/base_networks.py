"""The CIFAR-10 networks of benchmarks/base_models.py in PyTorch, for 32 x 32 pictures and ten classes.

Needs PyTorch (dependency group ``train-speed``) and nothing of this project.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

CLASSES = 10


class Scaled(nn.Module):
    """A linear layer without bias whose output is multiplied by a constant: large rates need small logits."""

    def __init__(self, inputs: int, scale: float) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(inputs, CLASSES, bias=False), scale

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        return y if self.scale == 1 else y * self.scale

    def fold(self) -> None:
        """Move the constant into the weights, so that the exported graph has no multiplication."""
        with torch.no_grad():
            self.linear.weight.mul_(self.scale)
        self.scale = 1.0


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class CifarNet(nn.Module):
    """VGG-like with the layout of K. Jordan's airbench94 (2024), narrower and with ReLU: a fixed whitening
    layer, six convolutions.

    A network without shortcuts, so every channel but the logits can be removed on its own.
    """

    def __init__(self, widths: tuple[int, ...] = (64, 128, 256)) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(3, 24, 2)
        self.whitening.weight.requires_grad_(False)
        layers: list[nn.Module] = []
        inputs = 24
        for outputs in widths:
            for pooled in (True, False):
                layer = convolution(inputs, outputs)
                # The first channels start as the identity, which trains faster in few epochs.
                nn.init.dirac_(layer.weight[:inputs])
                norm = nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.4)
                # ReLU lets the next layer take over the scale; only the shift is trained.
                norm.weight.requires_grad_(False)
                layers += [layer, nn.MaxPool2d(2), norm, nn.ReLU()] if pooled else [layer, norm, nn.ReLU()]
                inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.head = Scaled(inputs, 1 / 9)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(functional.relu(self.whitening(x)))
        answers: Tensor = self.head(functional.max_pool2d(y, y.shape[-1]).flatten(1))
        return answers

    def fold(self) -> None:
        """Give the exporter a plain graph with the same answers in eval mode: no constant, each norm at a convolution.

        The scales of the norms are positive, so that norm and maximum can change places.
        """
        self.head.fold()
        layers = list(self.layers)
        for place in [place for place, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]:
            layers[place], layers[place + 1] = layers[place + 1], layers[place]
        self.layers = nn.Sequential(*layers)

    def whiten(self, pictures: Tensor, floor: float = 5e-4) -> None:
        """Set the first layer to the whitening of the 2 x 2 patches of ``pictures``, each direction in both signs."""
        patches = pictures.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12).double()
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        kernels = (vectors.T / (values[:, None] + floor).sqrt()).reshape(12, 3, 2, 2).float()
        with torch.no_grad():
            self.whitening.weight.copy_(torch.cat([kernels, -kernels]))
            self.whitening.bias.zero_()


class Residual(nn.Module):
    """Two convolutions beside a shortcut: the identity, or a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.first_norm = convolution(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.second, self.second_norm = convolution(outputs, outputs), nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        shortcut = nn.Sequential(convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if same else shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(y)) + self.shortcut(x))


def resnet20(width: int = 16) -> nn.Module:
    """ResNet-20 of He et al. (2016) with 1 x 1 convolutions as shortcuts where the width changes."""
    layers: list[nn.Module] = [convolution(3, width), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for outputs, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        for block in range(3):
            layers.append(Residual(inputs, outputs, stride if block == 0 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))


def teacher() -> nn.Module:
    """What the other three learn from: ResNet-20, six times as wide; too large to be pruned or committed."""
    return resnet20(96)


class Depthwise(nn.Conv2d):
    """Depthwise 3 x 3. In training a stride is taken after the convolution: the same numbers.

    PyTorch 2.13 has no fast backward pass on a CPU for strided depthwise convolutions: three took 40 % of a step.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, channels, 3, stride, 1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.stride == (1, 1) or x.is_cuda:
            y: Tensor = super().forward(x)
            return y
        y = functional.conv2d(x, self.weight, None, 1, 1, 1, self.groups)
        return y[:, :, :: self.stride[0], :: self.stride[1]].contiguous(memory_format=torch.channels_last)


class Inverted(nn.Module):
    """Inverted residual of MobileNetV2: widen by 1 x 1, depthwise 3 x 3, narrow by 1 x 1 without activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, factor: int) -> None:
        super().__init__()
        wide = inputs * factor
        widen = (convolution(inputs, wide, 1), nn.BatchNorm2d(wide), nn.ReLU6()) if factor > 1 else ()
        self.layers = nn.Sequential(
            *widen,
            *(Depthwise(wide, stride), nn.BatchNorm2d(wide), nn.ReLU6()),
            *(convolution(wide, outputs, 1), nn.BatchNorm2d(outputs)),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


def mobilenetv2() -> nn.Module:
    """MobileNetV2 for 32 x 32 pictures: one block at full resolution, where depthwise convolutions cost most."""
    layers: list[nn.Module] = [convolution(3, 24), nn.BatchNorm2d(24), nn.ReLU6()]
    inputs = 24
    for factor, outputs, count, stride in ((1, 32, 1, 2), (3, 32, 2, 1), (4, 64, 3, 2), (4, 128, 3, 2)):
        for block in range(count):
            layers.append(Inverted(inputs, outputs, stride if block == 0 else 1, factor))
            inputs = outputs
    layers += [convolution(inputs, 512, 1), nn.BatchNorm2d(512), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(512, CLASSES))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "teacher": teacher,
    "cifarnet": CifarNet,
    "resnet20": resnet20,
    "mobilenetv2": mobilenetv2,
}


def parameters(network: nn.Module) -> int:
    """Number of parameters after BatchNorm is folded: every weight, and one bias per output channel with a norm."""
    count = 0
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            count += module.weight.numel() + (0 if module.bias is None else module.bias.numel())
        elif isinstance(module, nn.BatchNorm2d):
            count += module.num_features
    return count


def multiplications(network: nn.Module) -> int:
    """Multiply-accumulates of convolutions and linear layers for one picture."""
    counts: list[int] = []

    def count(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        places = output[0, 0].numel() if output.dim() == 4 else 1
        counts.append(module.weight.numel() * places)

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return sum(counts)
