"""Transformers at full size, for ``benchmarks.coverage_models``."""

import torch
from torch import Tensor, nn

from tests.zoo.torch_transformers import Block, LlamaBlock, RmsNorm, WindowBlock


class VisionTransformer(nn.Module):
    """ViT-S/16: 12 blocks of width 384 with 6 heads (feed-forward three times as wide)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 384, 16, 16), nn.Parameter(torch.randn(1, 1, 384) * 0.02)
        self.position = nn.Parameter(torch.randn(1, 197, 384) * 0.02)
        self.blocks = nn.Sequential(*[Block(384, 6, before=True, packed=True, fused=True) for _ in range(12)])
        self.norm, self.head = nn.LayerNorm(384), nn.Linear(384, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class Merge(nn.Module):
    """Swin's patch merging."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
        return self.reduce(self.norm(torch.cat(parts, -1)))


class Swin(nn.Module):
    """Swin-T: windows of 7, depths 2, 2, 6, 2 (feed-forward twice as wide)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 96, 4, 4)
        layers: list[nn.Module] = []
        for stage, depth in enumerate((2, 2, 6, 2)):
            width, heads = 96 * 2**stage, 3 * 2**stage
            layers += [WindowBlock(width, heads, 7, 3 if number % 2 and stage < 3 else 0) for number in range(depth)]
            layers += [Merge(width)] if stage < 3 else []
        self.blocks, self.norm, self.head = nn.Sequential(*layers), nn.LayerNorm(768), nn.Linear(768, 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.patch(x).permute(0, 2, 3, 1))).mean((1, 2)))


class Bert(nn.Module):
    """BERT-base with a small vocabulary (feed-forward three times as wide)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions, self.types = nn.Embedding(1000, 768), nn.Embedding(128, 768), nn.Embedding(2, 768)
        self.norm, self.pooler, self.classifier = nn.LayerNorm(768), nn.Linear(768, 768), nn.Linear(768, 2)
        self.blocks = nn.ModuleList(Block(768, 12, before=False, fused=True) for _ in range(12))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1]).unsqueeze(0)
        x = self.norm(self.words(input_ids) + self.positions(places) + self.types(torch.zeros_like(input_ids)))
        mask = (1.0 - attention_mask[:, None, None, :].to(x.dtype)) * -10000.0
        for block in self.blocks:
            x = block(x, mask)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


class Gpt(nn.Module):
    """GPT-2-small with a small vocabulary, output tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(1000, 768), nn.Embedding(64, 768)
        self.blocks = nn.ModuleList(Block(768, 12, before=True, packed=True, fused=True) for _ in range(12))
        self.norm, self.logits = nn.LayerNorm(768), nn.Linear(768, 1000, bias=False)
        self.logits.weight = self.words.weight
        self.register_buffer("causal", torch.tril(torch.ones(64, 64)).bool())

    def forward(self, input_ids: Tensor) -> Tensor:
        length = input_ids.shape[1]
        x = self.words(input_ids) + self.positions(torch.arange(length))
        for block in self.blocks:
            x = block(x, self.causal[:length, :length])
        return self.logits(self.norm(x))


class Llama(nn.Module):
    """Eight blocks of width 512 with 8 query and 2 key heads."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm, self.logits = nn.Embedding(1000, 512), RmsNorm(512), nn.Linear(512, 1000, bias=False)
        self.blocks = nn.Sequential(*[LlamaBlock(512, 8, 2) for _ in range(8)])

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.logits(self.norm(self.blocks(self.words(input_ids))))
