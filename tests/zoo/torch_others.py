"""Sequences, recommenders, several inputs or outputs, normalisations, and what does not fit elsewhere."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.torch_classifiers import conv_bn, head


class TemporalBlock(nn.Module):
    """Dilated causal convolution: pad on the left only, residual."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.conv1, self.conv2 = (
            nn.Conv1d(inputs, outputs, 3, dilation=dilation),
            nn.Conv1d(outputs, outputs, 3, dilation=dilation),
        )
        self.shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.conv1(functional.pad(x, (2 * self.dilation, 0))))
        inner = functional.relu(self.conv2(functional.pad(inner, (2 * self.dilation, 0))))
        return functional.relu(inner + self.shortcut(x))


class TemporalNet(nn.Module):
    """TCN; the last time step is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(TemporalBlock(4, 12, 1), TemporalBlock(12, 12, 2), TemporalBlock(12, 16, 4))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[:, :, -1])


class WaveNet(nn.Module):
    """Gated activations (tanh times sigmoid), residual and skip outputs summed."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(1, 12, 1)
        self.filters = nn.ModuleList(nn.Conv1d(12, 10, 3, padding=rate, dilation=rate) for rate in (1, 2, 4))
        self.gates = nn.ModuleList(nn.Conv1d(12, 10, 3, padding=rate, dilation=rate) for rate in (1, 2, 4))
        self.residual = nn.ModuleList(nn.Conv1d(10, 12, 1) for _ in range(3))
        self.skip = nn.ModuleList(nn.Conv1d(10, 14, 1) for _ in range(3))
        self.leave = nn.Sequential(nn.ReLU(), nn.Conv1d(14, 12, 1), nn.ReLU(), nn.Conv1d(12, 6, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.enter(x), torch.zeros(())
        for gate, kernel, residual, skip in zip(self.gates, self.filters, self.residual, self.skip, strict=True):
            inner = torch.tanh(kernel(x)) * torch.sigmoid(gate(x))
            x, total = x + residual(inner), total + skip(inner)
        return self.leave(total)


def conv3d() -> nn.Module:
    """3-D convolutions on short clips, BatchNorm3d, Flatten."""
    layers = [nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2)]
    layers += [nn.Conv3d(6, 10, 3, padding=1), nn.BatchNorm3d(10), nn.ReLU(), nn.AvgPool3d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(10 * 2 * 4 * 4, 16), nn.ReLU(), nn.Linear(16, 4))


class Recurrent(nn.Module):
    """Embedding, recurrent layers of the given kind, classifier on the last step or the final state."""

    def __init__(self, kind: type[nn.RNNBase], *, layers: int = 1, both: bool = False, last: str = "step") -> None:
        super().__init__()
        self.words, self.last = nn.Embedding(40, 10), last
        self.body = kind(10, 12, layers, batch_first=True, bidirectional=both)
        width = 24 if both else 12
        self.head = nn.Sequential(nn.Linear(width, 20), nn.ReLU(), nn.Linear(20, 3))

    def forward(self, tokens: Tensor) -> Tensor:
        steps, state = self.body(self.words(tokens))
        if self.last == "step":
            return self.head(steps[:, -1])
        if self.last == "mean":
            return self.head(steps.mean(1))
        state = state[0] if isinstance(state, tuple) else state
        return self.head(torch.cat([state[-2], state[-1]], 1))


class Crnn(nn.Module):
    """Text recogniser: convolutions, height squeezed away, bidirectional LSTM over the width."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(1, 8), nn.MaxPool2d(2), conv_bn(8, 10), nn.MaxPool2d((2, 1)))
        self.rnn, self.head = nn.LSTM(10 * 2, 8, bidirectional=True, batch_first=True), nn.Linear(16, 11)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        batch, channels, height, width = x.shape
        x, _ = self.rnn(x.permute(0, 3, 1, 2).reshape(batch, width, channels * height))
        return functional.log_softmax(self.head(x), -1)


class TextCnn(nn.Module):
    """Embedding, convolutions of three widths, the maximum over time, Concat."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(60, 12)
        self.convs = nn.ModuleList(nn.Conv1d(12, 8, size) for size in (2, 3, 4))
        self.head = nn.Linear(24, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens).transpose(1, 2)
        return self.head(torch.cat([functional.relu(conv(x)).max(2)[0] for conv in self.convs], 1))


class Recommender(nn.Module):
    """DLRM: dense features through an MLP, sparse ones through tables, pairwise products, a top MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.bottom = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 8), nn.ReLU())
        self.tables = nn.ModuleList(nn.Embedding(count, 8) for count in (30, 20, 10))
        self.top = nn.Sequential(nn.Linear(8 + 6, 24), nn.ReLU(), nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 1))
        self.register_buffer("rows", torch.tensor([1, 2, 2, 3, 3, 3]))
        self.register_buffer("columns", torch.tensor([0, 0, 1, 0, 1, 2]))

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        x = self.bottom(dense)
        vectors = torch.stack([x] + [table(sparse[:, number]) for number, table in enumerate(self.tables)], 1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.rows, self.columns]
        return torch.sigmoid(self.top(torch.cat([x, products], 1)))


class WideAndDeep(nn.Module):
    """User and item tables joined by Concat and by product, side features as a third input."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(30, 8), nn.Embedding(40, 8)
        self.deep = nn.Sequential(nn.Linear(20, 24), nn.ReLU(), nn.BatchNorm1d(24), nn.Linear(24, 12), nn.ReLU())
        self.head, self.wide = nn.Linear(20, 1), nn.Linear(4, 1)

    def forward(self, user: Tensor, item: Tensor, side: Tensor) -> Tensor:
        user, item = self.user(user), self.item(item)
        deep = self.deep(torch.cat([user, item, side], 1))
        return torch.sigmoid(self.head(torch.cat([user * item, deep], 1)) + self.wide(side)).squeeze(1)


class CrossNetwork(nn.Module):
    """Deep and cross: x0 * (w . x) + b + x beside an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = nn.ModuleList(nn.Linear(12, 1) for _ in range(2))
        self.deep = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU())
        self.head = nn.Linear(28, 1)

    def forward(self, x: Tensor) -> Tensor:
        crossed = x
        for layer in self.cross:
            crossed = x * layer(crossed) + crossed
        return self.head(torch.cat([crossed, self.deep(x)], 1))


class Siamese(nn.Module):
    """One branch with shared weights over two images, the distance and a decision."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv_bn(1, 8, stride=2), conv_bn(8, 12, stride=2), nn.Flatten(), nn.Linear(12 * 16, 16)
        )
        self.head = nn.Linear(16, 1)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        left, right = self.branch(left), self.branch(right)
        return torch.sigmoid(self.head(torch.abs(left - right))), functional.cosine_similarity(left, right)


class MultiOutput(nn.Module):
    """One trunk, three heads, one of which returns features."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            conv_bn(3, 12, stride=2), conv_bn(12, 16, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.age = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 1))
        self.classes = nn.Sequential(nn.Linear(16, 20), nn.ReLU(), nn.Linear(20, 4), nn.Softmax(1))
        self.features = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.trunk(x)
        return self.age(x), self.classes(x), functional.normalize(self.features(x), dim=1)


def group_norm() -> nn.Module:
    """Convolutions with GroupNorm."""
    first = [nn.Conv2d(3, 12, 3, 2, 1), nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 16, 3, 2, 1), nn.GroupNorm(4, 16)]
    return nn.Sequential(*first, nn.SiLU(), *head(16))


class StandardisedConv(nn.Conv2d):
    """Convolution whose weight is standardised on the fly."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        deviation = self.weight.std((1, 2, 3), keepdim=True, unbiased=False)
        weight = (self.weight - mean) / (deviation + 1e-5)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def weight_standardised() -> nn.Module:
    """Weight-standardised convolutions with BatchNorm, one of them too large for exporters to fold."""
    first = [StandardisedConv(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), StandardisedConv(12, 24, 3, 2, 1)]
    return nn.Sequential(*first, nn.ReLU(), StandardisedConv(24, 24, 3, 1, 1), nn.ReLU(), *head(24))


class PointNet(nn.Module):
    """Shared MLP over points by 1-D convolution, a learnt 3x3 transform of the input, maximum over points."""

    def __init__(self) -> None:
        super().__init__()
        self.align = nn.Sequential(
            nn.Conv1d(3, 12, 1), nn.BatchNorm1d(12), nn.ReLU(), nn.AdaptiveMaxPool1d(1), nn.Flatten()
        )
        self.matrix = nn.Linear(12, 9)
        self.body = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 24, 1), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(24, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 5))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.matrix(self.align(x)).view(-1, 3, 3) + torch.eye(3)
        x = torch.bmm(x.transpose(2, 1), matrix).transpose(2, 1)
        return self.head(torch.max(self.body(x), 2)[0])


class GraphNet(nn.Module):
    """Graph convolution: the adjacency is an input, features are mixed by MatMul of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        x = functional.relu(adjacency @ self.first(nodes))
        x = functional.relu(adjacency @ self.second(x))
        return self.head(x.sum(1))


class RadianceField(nn.Module):
    """Coordinates encoded by sine and cosine, an MLP with the input joined in the middle, density and colour."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.ModuleList([nn.Linear(18, 24), nn.Linear(24, 24)]), nn.Linear(42, 24)
        self.density, self.colour = nn.Linear(24, 1), nn.Sequential(nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        encoded = torch.cat([f(2.0**power * x) for power in range(3) for f in (torch.sin, torch.cos)], -1)
        inner = encoded
        for layer in self.before:
            inner = functional.relu(layer(inner))
        inner = functional.relu(self.after(torch.cat([inner, encoded], -1)))
        return functional.softplus(self.density(inner)), torch.sigmoid(self.colour(inner))


class SpatialTransformer(nn.Module):
    """A localisation network predicts an affine grid that samples the image."""

    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Sequential(nn.Conv2d(1, 6, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 12), nn.ReLU())
        self.angles = nn.Linear(12, 6)
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 36, 10))

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.linspace(-1, 1, 15)
        y, along = torch.meshgrid(rows, rows, indexing="ij")
        base = torch.stack([along, y, torch.ones_like(y)], -1).view(1, -1, 3)
        grid = (base @ self.angles(self.locate(x)).view(-1, 2, 3).transpose(1, 2)).view(-1, 15, 15, 2)
        return self.body(functional.grid_sample(x, grid, align_corners=False))


class Experts(nn.Module):
    """Soft mixture of experts: a Softmax gate weighs stacked outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 12)) for _ in range(3))
        self.gate, self.head = nn.Linear(10, 3), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        outputs = torch.stack([expert(x) for expert in self.experts], 1)
        return self.head((torch.softmax(self.gate(x), 1).unsqueeze(-1) * outputs).sum(1))


class Film(nn.Module):
    """A second input scales and shifts the channels of a convolutional trunk (two halves of one Linear)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.tail = conv_bn(3, 8), nn.Conv2d(8, 12, 3, padding=1), nn.Sequential(*head(12, 5))
        self.condition = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 24))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.condition(condition).chunk(2, 1)
        x = self.second(self.first(x)) * (1 + scale[:, :, None, None]) + shift[:, :, None, None]
        return self.tail(functional.relu(x))


class Maxout(nn.Module):
    """Maximum over groups of three neighbours, then a highway layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.inner, self.gate, self.head = (
            nn.Linear(12, 48),
            nn.Linear(16, 16),
            nn.Linear(16, 16),
            nn.Linear(16, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).view(-1, 16, 3).max(2)[0]
        gate = torch.sigmoid(self.gate(x))
        return self.head(gate * functional.relu(self.inner(x)) + (1 - gate) * x)


class ActorCritic(nn.Module):
    """Observations in channels-last, a policy and a value, the best action by ArgMax."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 4, 2), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.ReLU(), nn.Flatten())
        self.hidden, self.policy, self.value = nn.Linear(12 * 25, 20), nn.Linear(20, 6), nn.Linear(20, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = functional.relu(self.hidden(self.body(x.permute(0, 3, 1, 2) / 255.0)))
        policy = functional.log_softmax(self.policy(x), 1)
        return policy, policy.argmax(1), torch.tanh(self.value(x))


def mlp() -> nn.Module:
    """Plain perceptron with BatchNorm1d and several activations."""
    first = [nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 24), nn.Tanh(), nn.Dropout(0.2)]
    return nn.Sequential(*first, nn.Linear(24, 24), nn.Softplus(), nn.Linear(24, 5), nn.Softmax(1))
