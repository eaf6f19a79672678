"""Tiny nets, each a known difficulty, with weights lively enough for an error to show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, biases, gains, shifts and statistics; eval mode. Nothing is zero, nothing dies out."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, std: float, mean: float = 0.0) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std + mean)

    with torch.no_grad():
        for name, tensor in model.named_parameters():
            kind = name.rpartition(".")[2]
            if tensor.dim() >= 2:
                normal(tensor, 1.4 / math.sqrt(tensor[0].numel()))
            elif kind == "weight":
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            else:
                normal(tensor, 0.5)
        for module in model.modules():
            if isinstance(module, _NormBase) and module.running_mean is not None and module.running_var is not None:
                normal(module.running_mean, 0.3)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return model.eval()


def zero_(tensor: Tensor, positions: Iterable[int], dim: int = 0) -> None:
    """Set the given positions of a dim to zero."""
    with torch.no_grad():
        tensor.index_fill_(dim, torch.tensor(list(positions)), 0)


def zero_rows_(model: nn.Module, **rows: Iterable[int]) -> nn.Module:
    """Zero rows of weights by module name (dots as double underscores): biases and shifts stay."""
    for name, positions in rows.items():
        weight = model.get_submodule(name.replace("__", ".")).weight
        assert isinstance(weight, Tensor)
        zero_(weight, positions)
    return model


def image(channels: int = 3, size: int = 9, batch: int = 2) -> Tensor:
    """An example input."""
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(7))


# what other tools get wrong; their activations are functions, since some know no methods


class PaddedPair(nn.Module):
    """973 parameters: conv and bias, ReLU, conv, head. A dead channel takes 28 + 72 of them with it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(F.relu(self.conv2(F.relu(self.conv1(x))))).flatten(1))


class NormPair(nn.Module):
    """869 parameters: conv, BatchNorm, ReLU, conv, BatchNorm, ReLU, head. A dead channel takes 27 + 2 + 72 with it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return self.head(F.relu(self.norm2(self.conv2(x))).mean((2, 3)))


class Depthwise(nn.Module):
    """253 parameters: expand, depthwise, project, head. A dead channel of the inner 8 takes 3+2+9+2+8 with it."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 8, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.project = nn.Conv2d(8, 8, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.expand(x)))
        x = F.relu(self.norm2(self.depthwise(x)))
        return self.head(F.relu(self.norm3(self.project(x))).mean((2, 3)))


class Residual(nn.Module):
    """A stem, two blocks that add to it, a head; widths 12 (shared) and 10, 14 (inner)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.a1 = nn.Conv2d(12, 10, 3, padding=1)
        self.a2 = nn.Conv2d(10, 12, 3, padding=1)
        self.b1 = nn.Conv2d(12, 14, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(14)
        self.b2 = nn.Conv2d(14, 12, 1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.a2(F.relu(self.a1(x)))
        x = F.relu(x + self.b2(F.relu(self.norm(self.b1(x)))))
        return self.head(x.mean((2, 3)))


def mlp() -> nn.Sequential:
    """Linear, GELU, Linear: 7 in, 16 inside, 5 out."""
    return nn.Sequential(nn.Linear(7, 16), nn.GELU(), nn.Linear(16, 5))


class Stream(nn.Module):
    """A residual stream with LayerNorm: its width may not change, the inner widths may."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 12)
        self.norm = nn.LayerNorm(12)
        self.up = nn.Linear(12, 20)
        self.down = nn.Linear(20, 12)
        self.last = nn.LayerNorm(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.head(self.last(x))


class Grouped(nn.Module):
    """A 1x1 convolution into a grouped one of 3 conv groups (4 inputs, 5 outputs each), a 1x1 convolution out."""

    def __init__(self, padding: int = 0) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 12, 1)
        self.grouped = nn.Conv2d(12, 15, 3, padding=padding, groups=3)
        self.after = nn.Conv2d(15, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(F.relu(self.grouped(F.relu(self.before(x)))))


# contracts


class Twice(nn.Module):
    """One module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.inner = nn.Sequential(nn.Conv2d(8, 10, 3, padding=1), nn.ReLU(), nn.Conv2d(10, 8, 1))
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        return self.head((x + self.inner(x) + self.inner(x.tanh())).relu())


class TwoOutputs(nn.Module):
    """One hidden layer read by two heads; the second also hands out a slice of the first one's input."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 10, 3, padding=1)
        self.mid = nn.Conv2d(10, 9, 3, padding=1)
        self.a = nn.Conv2d(9, 4, 1)
        self.b = nn.Conv2d(9, 3, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.mid(self.body(x).relu()).relu()
        return self.a(y), {"b": self.b(y), "y": y}


@dataclass
class Answer:
    """What `TwoInputs` returns."""

    logits: Tensor
    score: Tensor


class TwoInputs(nn.Module):
    """Two inputs, one of them by keyword; a dataclass comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 8, 3, padding=1)
        self.right = nn.Conv2d(2, 8, 3, padding=1)
        self.mid = nn.Conv2d(16, 10, 1)
        self.head = nn.Conv2d(10, 4, 1)
        self.score = nn.Linear(10, 1)

    def forward(self, x: Tensor, y: Tensor) -> Answer:
        z = self.mid(torch.cat([self.left(x).relu(), self.right(y).relu()], 1)).relu()
        return Answer(self.head(z), self.score(z.mean((2, 3))))


class InPlace(nn.Module):
    """In-place ops, with results that are used and results that are not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv1(x))
        y = self.drop(self.conv2(x))
        y += x
        y.mul_(0.5).add_(0.25)
        return self.head(self.act(y))


class Unused(nn.Module):
    """A head that the forward does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 4, 1)
        self.auxiliary = nn.Conv2d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x).relu())


class Lambda(nn.Module):
    """Named parts and a function of them and the inputs: a net in one expression."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)
