"""Small models, each a known difficulty of exporting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def convnet() -> nn.Module:
    """Convolution, BatchNorm with real statistics, live dropout in train mode."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    norm = net[1]
    assert isinstance(norm, nn.BatchNorm2d)
    norm.running_mean = torch.randn(8)
    norm.running_var = torch.rand(8) + 0.5
    return net


class Scaled(nn.Module):
    """A positional and two keyword inputs, a dict output with a list in it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, *, keep: Tensor, scale: Tensor) -> dict[str, Any]:
        y = self.linear(x)
        return {"x": y - scale, "parts": [y * keep, None, 3]}


@dataclass
class Labelled:
    logits: Tensor
    count: int
    hidden: Tensor


class Tokens(nn.Module):
    """Integer inputs, a dataclass output."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Labelled:
        hidden = self.embedding(ids).mean(1)
        return Labelled(self.head(hidden), 3, hidden)


class Nested(nn.Module):
    """Tensors inside a list and a dict, and a flag."""

    def forward(self, pair: list[Tensor], by_key: dict[str, Tensor], flag: bool = False) -> Tensor:
        return pair[0] - 2 * pair[1] * by_key["k"] if flag else pair[0]


class BatchOfFour(nn.Module):
    """The batch is written into the code: the model itself runs at no other."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.view(4, -1))


class BatchInAFactor(nn.Module):
    """Runs at every batch, but a trace silently keeps the example's."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(0) * float(x.shape[0])


class Stretched(nn.Module):
    """Runs at every length, but a trace silently keeps the example's."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1) * float(x.shape[1])


class Counter(nn.Module):
    """Changes a buffer in forward, and its output depends on it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 5)
        self.register_buffer("n", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return self.linear(x) * self.n


class Undecided(nn.Module):
    """The values of the input choose the branch."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x - 1


class LiveDropout(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)


class NoTensor(nn.Module):
    def forward(self, x: Tensor) -> int:
        return len(x)


class Eigenvalues(nn.Module):
    """An operator that ONNX does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x[:, :4, None] * x[:, None, :4]).abs()
