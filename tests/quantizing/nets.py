"""A small convolutional net and a small transformer, with data for each."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Convnet(nn.Module):
    """[n, 3, 12, 12] -> [n, 4], with a residual sum and a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.block = nn.Conv2d(16, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.block(x))
        return self.head(torch.relu(self.depthwise(x)).amax((2, 3)))


class Transformer(nn.Module):
    """ids, mask [n, 6] -> logits [n, 6, 20] and a pooled [n, 24]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 24)
        self.layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=True)
        self.head = nn.Linear(24, 20)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        hidden = self.layer(self.embed(ids) * mask[..., None])
        return {"logits": self.head(hidden), "pooled": hidden.mean(1)}


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return Convnet()


def transformer() -> nn.Module:
    torch.manual_seed(0)
    return Transformer()


def pictures(count: int = 40, seed: int = 1) -> Tensor:
    """Unlike each other, as pictures are: one pattern each, brighter or darker."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 12, 12, generator=generator) * torch.rand(count, 1, 1, 1, generator=generator) * 2


def tokens(count: int = 2, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"ids": torch.randint(0, 20, (count, 6), generator=generator), "mask": torch.ones(count, 6)}
