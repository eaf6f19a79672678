"""The net of the demo: small, but with the three things that make cutting hard: sums, a depthwise kernel, a concat."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STREAM, INNER = 64, 192
"""Channels that all blocks add to, and channels inside a block."""


class Residual(nn.Module):
    """Two 3x3 convolutions whose result is added to the input: `[n, c, h, w] -> [n, c, h, w]`."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The block's own part is added to what came in."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(y)))


class Depthwise(nn.Module):
    """Widen, filter every channel on its own, narrow, add: `[n, c, h, w] -> [n, c, h, w]`."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.project = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """The block's own part is added to what came in."""
        y = F.relu(self.bn1(self.expand(x)))
        y = F.relu(self.bn2(self.depthwise(y)))
        narrowed: Tensor = self.bn3(self.project(y))
        return x + narrowed


class TwoScales(nn.Module):
    """A 1x1 and a 3x3 convolution side by side, concatenated, then merged: `[n, c, h, w] -> [n, out, h, w]`."""

    def __init__(self, channels: int, branch: int, out: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, branch, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(branch)
        self.wide = nn.Conv2d(channels, branch, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(branch)
        self.merge = nn.Conv2d(2 * branch, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        """Both branches, one after the other along the channels, and a mixture of them."""
        both = torch.cat([F.relu(self.bn1(self.narrow(x))), F.relu(self.bn2(self.wide(x)))], dim=1)
        return F.relu(self.bn3(self.merge(both)))


class DigitNet(nn.Module):
    """Grey pictures of digits in, ten scores out: `[n, 1, 8, 8] -> [n, 10]`; other picture sizes work, too."""

    def __init__(self, stream: int = STREAM, inner: int = INNER) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, stream, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(stream)
        self.block1 = Residual(stream, inner)
        self.block2 = Depthwise(stream, inner)
        self.block3 = Residual(stream, inner)
        self.scales = TwoScales(stream, stream, inner)
        self.classify = nn.Linear(inner, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Convolutions, the mean over the picture, ten scores."""
        x = F.max_pool2d(F.relu(self.bn(self.stem(x))), 2)
        x = self.block3(self.block2(self.block1(x)))
        scores: Tensor = self.classify(self.scales(x).mean(dim=(2, 3)))
        return scores
