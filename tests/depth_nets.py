"""Tiny residual nets, some of whose blocks do nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.nets import lively


class PreNorm(nn.Module):
    """A pre-norm transformer block without heads: `x + mix(norm1(x))`, then `x + mlp(norm2(x))`."""

    def __init__(self, width: int = 8, hidden: int = 12) -> None:
        super().__init__()
        self.norm1, self.mix = nn.LayerNorm(width), nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width), nn.Dropout(0.3))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Tokens(nn.Module):
    """Some of them in a row, between an embedding and a head."""

    def __init__(self, depth: int = 4) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(5, 8), nn.Linear(8, 3)
        self.blocks = nn.ModuleList([PreNorm() for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean(1))
        return logits


class Basic(nn.Module):
    """A residual block of convolutions, with a shortcut of its own where the shape changes."""

    def __init__(self, width: int, out: int, *, inplace: bool = True) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace)
        self.down = nn.Conv2d(width, out, 1) if width != out else None

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.down is None else self.down(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        answer: Tensor = self.relu(out)
        return answer


class Pictures(nn.Module):
    """A stem, two stages and a head: the second stage begins with a shortcut of its own."""

    def __init__(self, *, rectified: bool = True) -> None:
        super().__init__()
        first: list[nn.Module] = [nn.Conv2d(3, 6, 3, padding=1)]
        self.stem = nn.Sequential(*first, *([nn.ReLU(), nn.MaxPool2d(2)] if rectified else []))
        self.stages = nn.Sequential(
            nn.Sequential(Basic(6, 6), Basic(6, 6)), nn.Sequential(Basic(6, 10), Basic(10, 10), Basic(10, 10))
        )
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return logits


def tokens(*nothing: str, depth: int = 4) -> Tokens:
    """The net of tokens; the named layers write nothing."""
    model = lively(Tokens(depth))
    silence_(model, *nothing)
    assert isinstance(model, Tokens)
    return model


def pictures(*nothing: str, rectified: bool = True) -> Pictures:
    """The net of pictures; the named layers write nothing."""
    model = lively(Pictures(rectified=rectified))
    silence_(model, *nothing)
    assert isinstance(model, Pictures)
    return model


def silence_(model: nn.Module, *layers: str) -> None:
    """Set all parameters of layers to zero."""
    with torch.no_grad():
        for layer in layers:
            for parameter in model.get_submodule(layer).parameters():
                parameter.zero_()


WORDS = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(1))
IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(2))
