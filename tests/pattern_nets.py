"""Patterns of published nets that users of other tools stumble over, each as small as it can be."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    """Two convolutions and a shortcut, as in YOLOv8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cv1 = nn.Conv2d(width, width, 3, padding=1)
        self.cv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.silu(self.cv2(F.silu(self.cv1(x))))


class C2f(nn.Module):
    """YOLOv8: one half goes through a chain of bottlenecks, everything is concatenated. `how` is "chunk" or "split"."""

    def __init__(self, how: str, width: int = 8) -> None:
        super().__init__()
        self.c = width
        self.how = how
        self.cv1 = nn.Conv2d(3, 2 * width, 1)
        self.m = nn.ModuleList(Bottleneck(width) for _ in range(2))
        self.cv2 = nn.Conv2d(4 * width, 10, 1)
        self.head = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.cv1(x))
        y = list(x.chunk(2, 1)) if self.how == "chunk" else list(x.split((self.c, self.c), 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.head(F.silu(self.cv2(torch.cat(y, 1))))


class Elan(nn.Module):
    """YOLOv9: both halves and two chained convolutions, concatenated."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.cv1 = nn.Conv2d(3, 2 * width, 1)
        self.cv2 = nn.Sequential(nn.Conv2d(width, 6, 3, padding=1), nn.SiLU())
        self.cv3 = nn.Sequential(nn.Conv2d(6, 10, 3, padding=1), nn.SiLU())
        self.cv4 = nn.Conv2d(2 * width + 6 + 10, 12, 1)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in [self.cv2, self.cv3])
        return self.head(self.cv4(torch.cat(y, 1)).relu())


class Shuffled(nn.Module):
    """Grouped convolution, channel shuffle, grouped convolution. `shuffle` is "view", "module" or "function"."""

    def __init__(self, shuffle: str) -> None:
        super().__init__()
        self.kind = shuffle
        self.stem = nn.Conv2d(3, 12, 1)
        self.first = nn.Conv2d(12, 18, 1, groups=3)
        self.shuffle = nn.ChannelShuffle(3)
        self.second = nn.Conv2d(18, 12, 3, padding=1, groups=3)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x).relu()).relu()
        if self.kind == "view":
            b, c, h, w = x.shape
            x = x.view(b, 3, c // 3, h, w).transpose(1, 2).contiguous().view(b, c, h, w)
        else:
            x = self.shuffle(x) if self.kind == "module" else F.channel_shuffle(x, 3)
        return self.head(self.second(x).relu())


class Pixels(nn.Module):
    """PixelUnshuffle down, PixelShuffle up."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.down = nn.PixelUnshuffle(2)
        self.inner = nn.Conv2d(24, 32, 3, padding=1)
        self.up = nn.PixelShuffle(2)
        self.last = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.up(self.inner(self.down(self.first(x).relu())).relu()))


class GroupedAfterCat(nn.Module):
    """Two branches, concatenated, into a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(3, 8, 1)
        self.right = nn.Conv2d(3, 4, 1)
        self.grouped = nn.Conv2d(12, 16, 3, padding=1, groups=2)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.grouped(torch.cat([self.left(x), self.right(x)], 1).relu()).relu())


class Multiplied(nn.Module):
    """A depthwise convolution with a multiplier: each of 8 channels makes 2."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 1)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.after = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.depthwise(self.before(x).relu()).relu())


class Partial(nn.Module):
    """FasterNet: a quarter of the channels is convolved, the rest passes; then an MLP and a shortcut."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.dim_conv = width // 4
        self.dim_untouched = width - self.dim_conv
        self.stem = nn.Conv2d(3, width, 1)
        self.partial = nn.Conv2d(self.dim_conv, self.dim_conv, 3, padding=1, bias=False)
        self.up = nn.Conv2d(width, 24, 1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.down = nn.Conv2d(24, width, 1)
        self.head = nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x1, x2 = torch.split(x, [self.dim_conv, self.dim_untouched], dim=1)
        y = torch.cat((self.partial(x1), x2), 1)
        return self.head(x + self.down(self.norm(self.up(y)).relu()))


class MaskTimes(nn.Module):
    """A (B, 1, H, W) mask times 32 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.conv1(x).relu() * mask
        return self.head(self.conv2(x).relu() * mask)


class Decoder(nn.Module):
    """Linear, view(B, 64, 4, 4), transposed convolution. `size` is "literal" or "attribute"."""

    def __init__(self, size: str, width: int = 64) -> None:
        super().__init__()
        self.kind, self.width = size, width
        self.fc = nn.Linear(10, width * 16)
        self.up = nn.ConvTranspose2d(width, 12, 4, stride=2, padding=1)
        self.out = nn.Conv2d(12, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.fc(z).relu()
        x = x.view(z.shape[0], 64, 4, 4) if self.kind == "literal" else x.view(-1, self.width, 4, 4)
        return self.out(self.up(x).relu())


class Focus(nn.Module):
    """YOLOv5: four strided slices in space, concatenated over channels; here behind a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.conv = nn.Conv2d(24, 10, 3, padding=1)
        self.head = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
        return self.head(self.conv(x).relu())


class NoGradStem(nn.Module):
    """A stem that runs under `no_grad`, as frozen backbones do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.conv = nn.Conv2d(12, 10, 3, padding=1)
        self.head = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.stem(x).relu()
        return self.head(self.conv(x).relu())


class FrozenNorm(nn.Module):
    """BatchNorm as four buffers, written by hand as detection code does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.rand(width) + 0.5)
        self.register_buffer("bias", torch.randn(width) * 0.5)
        self.register_buffer("running_mean", torch.randn(width) * 0.3)
        self.register_buffer("running_var", torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class Normed(nn.Module):
    """Convolution, any norm over 12 channels, ReLU, padded convolution."""

    def __init__(self, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 3, padding=1, bias=False)
        self.norm = norm(12)
        self.conv2 = nn.Conv2d(12, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv2(self.norm(self.conv1(x)).relu()).relu())


class TiedConvolutions(nn.Module):
    """Two convolutions that share one weight (each with its own bias), around which the widths are shared, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2.weight = self.conv1.weight
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv2(self.conv1(self.stem(x).relu()).relu()).relu())


class TiedLinears(nn.Module):
    """Encoder and decoder side by side with one weight; both feed one head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 12)
        self.second = nn.Linear(6, 12)
        self.second.weight = self.first.weight
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(self.first(x).relu()) - self.head(self.second(y).tanh())
