"""Nets in plain code, for families that no library offers small: a UNet and a WaveNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DoubleConv(nn.Sequential):
    """x [b, c, h, w] -> [b, width, h, w]: twice convolution, BatchNorm, ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        def layer(inputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]

        super().__init__(*layer(channels), *layer(width))


class UNet(nn.Module):
    """x [b, 3, h, w] -> logits [b, classes, h, w]; down by max-pools, up by transposed convolutions, joined by concats.

    Ronneberger, Fischer, Brox: U-Net, 2015. h and w are multiples of 2 to the number of widths less one.
    """

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256), classes: int = 10) -> None:
        super().__init__()
        self.down = nn.ModuleList(DoubleConv(a, b) for a, b in zip((3, *widths), widths, strict=False))
        pairs = list(zip(widths[1:], widths, strict=False))[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, stride=2) for wide, narrow in pairs)
        self.join = nn.ModuleList(DoubleConv(2 * narrow, narrow) for _, narrow in pairs)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x [b, 3, h, w] -> logits [b, classes, h, w]."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, skips[-2::-1], strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return torch.as_tensor(self.head(x))


class GatedLayer(nn.Module):
    """x [b, width, t] -> (next x [b, width, t], skip [b, skips, t]): tanh · sigmoid of dilated causal convolutions."""

    def __init__(self, width: int, gates: int, skips: int, dilation: int) -> None:
        super().__init__()
        self.filter = nn.Conv1d(width, gates, 2, dilation=dilation)
        self.gate = nn.Conv1d(width, gates, 2, dilation=dilation)
        self.residual = nn.Conv1d(gates, width, 1)
        self.skip = nn.Conv1d(gates, skips, 1)
        self.dilation = dilation

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Causal: zeros stand before the first sample."""
        past = F.pad(x, (self.dilation, 0))
        gated = torch.tanh(self.filter(past)) * torch.sigmoid(self.gate(past))
        return x + self.residual(gated), self.skip(gated)


class WaveNet(nn.Module):
    """x [b, 1, t] -> logits [b, classes, t]: gated dilated causal layers, their skips summed.

    Van den Oord and others: WaveNet, 2016.
    """

    def __init__(self, width: int = 64, gates: int = 96, skips: int = 128, layers: int = 6, classes: int = 10) -> None:
        super().__init__()
        self.first = nn.Conv1d(1, width, 1)
        self.layers = nn.ModuleList(GatedLayer(width, gates, skips, 2**n) for n in range(layers))
        self.hidden = nn.Conv1d(skips, skips, 1)
        self.last = nn.Conv1d(skips, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x [b, 1, t] -> logits [b, classes, t]."""
        x = self.first(x)
        total: Tensor | None = None
        for layer in self.layers:
            x, skip = layer(x)
            total = skip if total is None else total + skip
        assert total is not None, "a WaveNet has layers"
        return torch.as_tensor(self.last(F.relu(self.hidden(F.relu(total)))))
