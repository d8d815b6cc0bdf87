"""Transformers and their relatives, small."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Self or cross attention in three common spellings: written out, fused, and by the functional operator."""

    def __init__(self, width: int, heads: int, *, packed: bool = False, fused: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.heads, self.size, self.packed, self.fused = heads, width // heads, packed, fused
        if packed:
            self.qkv = nn.Linear(width, 3 * width, bias=bias)
        else:
            self.q, self.k, self.v = (nn.Linear(width, width, bias=bias) for _ in range(3))
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        batch, length, width = x.shape
        if self.packed:
            q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            source = x if memory is None else memory
            q, k, v = (
                layer(value).view(batch, -1, self.heads, self.size).transpose(1, 2)
                for layer, value in ((self.q, x), (self.k, source), (self.v, source))
            )
        if self.fused:
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.size)
            scores = scores if mask is None else scores + mask
            mixed = torch.softmax(scores, -1) @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Pre- or post-norm transformer block."""

    def __init__(self, width: int, heads: int, *, before: bool, packed: bool = False, fused: bool = False) -> None:
        super().__init__()
        self.before = before
        self.attention = Attention(width, heads, packed=packed, fused=fused)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def feed(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x)))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.before:
            x = x + self.attention(self.norm1(x), None, mask)
            return x + self.feed(self.norm2(x))
        x = self.norm1(x + self.attention(x, None, mask))
        return self.norm2(x + self.feed(x))


class VisionTransformer(nn.Module):
    """Patches by convolution, class token by Expand, learnt positions, QKV in one, head on the token."""

    def __init__(self, *, fused: bool = False) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 24, 4, 4)
        self.token, self.position = nn.Parameter(torch.randn(1, 1, 24)), nn.Parameter(torch.randn(1, 17, 24))
        self.blocks = nn.Sequential(*[Block(24, 4, before=True, packed=True, fused=fused) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class WindowBlock(nn.Module):
    """Swin: cyclic shift, window partition, attention with a relative position bias, and all the way back."""

    def __init__(self, width: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        relative = (place[:, :, None] - place[:, None, :]).permute(1, 2, 0) + window - 1
        self.register_buffer("index", (relative[..., 0] * (2 * window - 1) + relative[..., 1]).flatten())
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        size, count = self.window, self.window**2
        inner = self.norm1(x)
        if self.shift:
            inner = torch.roll(inner, (-self.shift, -self.shift), (1, 2))
        inner = inner.view(batch, height // size, size, width // size, size, channels).permute(0, 1, 3, 2, 4, 5)
        inner = inner.reshape(-1, count, channels)
        qkv = self.qkv(inner).reshape(-1, count, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0] * (channels // self.heads) ** -0.5, qkv[1], qkv[2]
        bias = self.table[self.index].view(count, count, self.heads).permute(2, 0, 1)
        inner = (torch.softmax(q @ k.transpose(-2, -1) + bias.unsqueeze(0), -1) @ v).transpose(1, 2)
        inner = self.out(inner.reshape(-1, count, channels))
        inner = inner.view(batch, height // size, width // size, size, size, channels).permute(0, 1, 3, 2, 4, 5)
        inner = inner.reshape(batch, height, width, channels)
        if self.shift:
            inner = torch.roll(inner, (self.shift, self.shift), (1, 2))
        x = x + inner
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Swin(nn.Module):
    """Two windowed blocks, patch merging by strided slices and Concat, one more block."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.blocks = nn.Sequential(WindowBlock(12, 2, 4, 0), WindowBlock(12, 2, 4, 2))
        self.merge_norm, self.merge = nn.LayerNorm(48), nn.Linear(48, 16, bias=False)
        self.last = WindowBlock(16, 4, 4, 0)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.patch(x).permute(0, 2, 3, 1))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        x = self.last(self.merge(self.merge_norm(x)))
        return self.head(self.norm(x).mean((1, 2)))


class MixerBlock(nn.Module):
    """One MLP over the tokens (through Transpose), one over the channels."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 24), nn.GELU(), nn.Linear(24, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 40), nn.GELU(), nn.Linear(40, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    """MLP-Mixer on 4x4 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 20, 4, 4)
        self.blocks = nn.Sequential(MixerBlock(16, 20), MixerBlock(16, 20))
        self.norm, self.head = nn.LayerNorm(20), nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patch(x).flatten(2).transpose(1, 2))).mean(1))


class Bert(nn.Module):
    """Three embeddings, post-norm blocks with an additive mask made from the attention mask, pooler, two heads."""

    def __init__(self, *, fused: bool = False) -> None:
        super().__init__()
        self.words, self.positions, self.types = nn.Embedding(60, 24), nn.Embedding(16, 24), nn.Embedding(2, 24)
        self.norm = nn.LayerNorm(24)
        self.blocks = nn.ModuleList([Block(24, 4, before=False, fused=fused) for _ in range(2)])
        self.pooler, self.classifier, self.span = nn.Linear(24, 24), nn.Linear(24, 3), nn.Linear(24, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        places = torch.arange(input_ids.shape[1]).unsqueeze(0)
        x = self.norm(self.words(input_ids) + self.positions(places) + self.types(token_type_ids))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -10000.0
        for block in self.blocks:
            x = block(x, mask)
        return self.classifier(torch.tanh(self.pooler(x[:, 0]))), self.span(x)


class Gpt(nn.Module):
    """Causal mask from a buffer, QKV in one and chunked, GELU by tanh, output projection tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(60, 24), nn.Embedding(16, 24)
        self.qkv = nn.ModuleList(nn.Linear(24, 72) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(24, 24) for _ in range(2))
        self.norm = nn.ModuleList(nn.LayerNorm(24) for _ in range(5))
        self.up = nn.ModuleList(nn.Linear(24, 72) for _ in range(2))
        self.down = nn.ModuleList(nn.Linear(72, 24) for _ in range(2))
        self.logits = nn.Linear(24, 60, bias=False)
        self.logits.weight = self.words.weight
        self.register_buffer("causal", torch.tril(torch.ones(16, 16)).bool().view(1, 1, 16, 16))

    def forward(self, input_ids: Tensor) -> Tensor:
        batch, length = input_ids.shape
        x = self.words(input_ids) + self.positions(torch.arange(length))
        for number in range(2):
            parts = self.qkv[number](self.norm[2 * number](x)).split(24, 2)
            q, k, v = (part.view(batch, length, 3, 8).transpose(1, 2) for part in parts)
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(8))
            scores = scores.masked_fill(self.causal[:, :, :length, :length].logical_not(), float("-inf"))
            mixed = (torch.softmax(scores, -1) @ v).transpose(1, 2).contiguous().view(batch, length, 24)
            x = x + self.out[number](mixed)
            inner = functional.gelu(self.up[number](self.norm[2 * number + 1](x)), approximate="tanh")
            x = x + self.down[number](inner)
        return self.logits(self.norm[4](x))


class RmsNorm(nn.Module):
    """Root mean square normalisation, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class LlamaBlock(nn.Module):
    """RMSNorm, rotary positions, two query heads per key head, SwiGLU."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.norm1, self.norm2 = RmsNorm(width), RmsNorm(width)
        self.q, self.o = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.k, self.v = (nn.Linear(width, groups * self.size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, 2 * width + 8, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width + 8, width, bias=False)

    def rotate(self, x: Tensor) -> Tensor:
        half = self.size // 2
        angles = torch.arange(x.shape[2])[:, None] / (100.0 ** (torch.arange(half) / half))
        angles = torch.cat([angles, angles], -1)
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * angles.cos() + turned * angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        inner = self.norm1(x)
        q = self.rotate(self.q(inner).view(batch, length, self.heads, self.size).transpose(1, 2))
        k = self.rotate(self.k(inner).view(batch, length, self.groups, self.size).transpose(1, 2))
        v = self.v(inner).view(batch, length, self.groups, self.size).transpose(1, 2)
        repeat = self.heads // self.groups
        k = (
            k[:, :, None]
            .expand(batch, self.groups, repeat, length, self.size)
            .reshape(batch, self.heads, length, self.size)
        )
        v = (
            v[:, :, None]
            .expand(batch, self.groups, repeat, length, self.size)
            .reshape(batch, self.heads, length, self.size)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(batch, length, width))
        inner = self.norm2(x)
        return x + self.down(functional.silu(self.gate(inner)) * self.up(inner))


class Llama(nn.Module):
    """Two such blocks over an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm, self.logits = nn.Embedding(50, 16), RmsNorm(16), nn.Linear(16, 50, bias=False)
        self.blocks = nn.Sequential(LlamaBlock(16, 4, 2), LlamaBlock(16, 4, 2))

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.logits(self.norm(self.blocks(self.words(input_ids))))


class GluFeedForward(nn.Module):
    """GLU with gate and value in one Linear, split in halves, between two residual streams."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.both, self.down, self.head = (
            nn.Linear(12, 16),
            nn.Linear(16, 64),
            nn.Linear(32, 16),
            nn.Linear(16, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        gate, value = self.both(x).chunk(2, -1)
        x = x + self.down(functional.silu(gate) * value)
        return self.head(x + self.down(functional.glu(self.both(x), -1)))


class MultiheadModule(nn.Module):
    """nn.MultiheadAttention with a key padding mask, then a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.attention = nn.Linear(10, 16), nn.MultiheadAttention(16, 4, batch_first=True)
        self.head = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        x = self.enter(x)
        mixed, _ = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)
        return self.head((x + mixed).mean(1))


class MaskedAttention(nn.Module):
    """scaled_dot_product_attention with a boolean mask as an input."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.attention = nn.Linear(10, 16), Attention(16, 4, fused=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.attention(self.enter(x), None, mask))


class EncoderDecoder(nn.Module):
    """torch's own encoder layer, then a decoder layer with cross attention: a small translation model."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(40, 16), nn.Embedding(40, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(16, 2, 32, batch_first=True)
        self.logits = nn.Linear(16, 40)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory = self.encoder(self.source(source))
        return self.logits(self.decoder(self.target(target), memory))


class Detr(nn.Module):
    """Convolutional backbone, learnt queries that attend to the map, class and box heads."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.project, self.queries = nn.Conv2d(16, 16, 1), nn.Parameter(torch.randn(6, 16))
        self.attention, self.norm = Attention(16, 2), nn.LayerNorm(16)
        self.classes = nn.Linear(16, 4)
        self.boxes = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.project(self.backbone(x)).flatten(2).permute(0, 2, 1)
        queries = self.queries.unsqueeze(0).repeat(x.shape[0], 1, 1)
        found = self.norm(queries + self.attention(queries, memory))
        return self.classes(found), self.boxes(found).sigmoid()


class EinsumAttention(nn.Module):
    """Heads by einsum throughout, weights of three axes."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(12, 3, 8) * 0.2) for _ in range(3))
        self.o, self.head = nn.Parameter(torch.randn(3, 8, 12) * 0.2), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("btc,chd->bhtd", x, weight) for weight in (self.q, self.k, self.v))
        scores = torch.softmax(torch.einsum("bhtd,bhsd->bhts", q, k) * 8**-0.5, -1)
        return self.head(x + torch.einsum("bhsd,bhts,hdc->btc", v, scores, self.o))


class ChannelAttention(nn.Module):
    """Attention over features with L2-normalised queries and keys and a learnt temperature (Restormer, XCiT)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.qkv = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 48, 1)
        self.mix = nn.Conv2d(48, 48, 3, padding=1, groups=48)
        self.temperature = nn.Parameter(torch.rand(4, 1, 1) + 0.5)
        self.out, self.leave = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        batch, channels, height, width = x.shape
        q, k, v = (part.reshape(batch, 4, channels // 4, -1) for part in self.mix(self.qkv(x)).chunk(3, 1))
        scores = functional.normalize(q, dim=-1) @ functional.normalize(k, dim=-1).transpose(-2, -1)
        mixed = torch.softmax(scores * self.temperature, -1) @ v
        return self.leave(x + self.out(mixed.reshape(batch, channels, height, width)))
