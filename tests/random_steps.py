"""The steps of random nets that are more than one module of torch: each as people write it, sizes as attributes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Apply(nn.Module):
    """A function without parameters, under a name that a failing example can print."""

    def __init__(self, name: str, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, *args: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(*args)

    def extra_repr(self) -> str:
        return self.name


class SplitSizes(nn.Module):
    """`x.split((a, b), 1)`, the sizes kept as attributes."""

    def __init__(self, channels: int, first: int) -> None:
        super().__init__()
        self.first, self.second = first, channels - first

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split((self.first, self.second), 1)


class Slice(nn.Module):
    """`x[:, start:stop]`: what lies outside is not read here."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.start : self.stop]

    def extra_repr(self) -> str:
        return f"{self.start}:{self.stop}"


class Halves(nn.Module):
    """`x[:, :half]`, `x[:, half:]` by the tensor's own size."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        half = x.shape[1] // 2
        return x[:, :half], x[:, half:]


class PartialConv(nn.Module):
    """FasterNet: some of the channels are convolved, the others pass."""

    def __init__(self, channels: int, part: int) -> None:
        super().__init__()
        self.part, self.rest = part, channels - part
        self.conv = nn.Conv2d(part, part, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.split(x, [self.part, self.rest], 1)
        return torch.cat((self.conv(first), second), 1)


class Shuffle(nn.Module):
    """ShuffleNet's: view, transpose, view. The sizes are the tensor's own, or numbers of the module."""

    def __init__(self, channels: int, conv_groups: int, *, literal: bool) -> None:
        super().__init__()
        self.conv_groups, self.literal = conv_groups, literal
        self.per_group = channels // conv_groups

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        per_group = self.per_group if self.literal else c // self.conv_groups
        return x.view(b, self.conv_groups, per_group, h, w).transpose(1, 2).reshape(b, -1, h, w)

    def extra_repr(self) -> str:
        return f"{self.conv_groups}, literal={self.literal}"


class SqueezeExcite(nn.Module):
    """`x * sigmoid(fc2(relu(fc1(mean of x))))`, with linear layers or 1x1 convolutions."""

    def __init__(self, channels: int, inner: int, *, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        make = nn.Linear if linear else (lambda i, o: nn.Conv2d(i, o, 1))
        self.fc1, self.fc2 = make(channels, inner), make(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3)) if self.linear else F.adaptive_avg_pool2d(x, 1)
        gate = torch.sigmoid(self.fc2(F.relu(self.fc1(pooled))))
        return x * (gate[:, :, None, None] if self.linear else gate)


class SpatialAttention(nn.Module):
    """CBAM: the mean and the maximum over channels gate every position."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        return x * torch.sigmoid(self.conv(pooled))


class Unflatten(nn.Module):
    """`[b, c·h·w] -> [b, c, h, w]`; c is a number of the module, or -1."""

    def __init__(self, channels: int, height: int, width: int, *, literal: bool) -> None:
        super().__init__()
        self.channels, self.height, self.width, self.literal = channels, height, width, literal

    def forward(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], self.channels if self.literal else -1, self.height, self.width)


class Heads(nn.Module):
    """`[b, n, h·d] -> [b, h, n, d]`, something there, and back."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width // heads

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        split = x.view(b, n, self.heads, self.width).transpose(1, 2)
        return F.silu(split).transpose(1, 2).reshape(b, n, c)


class ChannelsLast(nn.Module):
    """ConvNeXt: permute, (norm,) linear, permute back."""

    def __init__(self, channels: int, outputs: int, *, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels) if norm else nn.Identity()
        self.fc = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class Scaled(nn.Module):
    """A tensor of the module meets every channel: `[c, 1, 1]`, `[1]` or a position's own."""

    def __init__(self, size: tuple[int, ...], *, learnt: bool, add: bool) -> None:
        super().__init__()
        self.add = add
        if learnt:
            self.weight = nn.Parameter(torch.empty(size))
        else:
            self.register_buffer("weight", torch.empty(size))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight if self.add else x * self.weight

    def extra_repr(self) -> str:
        kind = "learnt" if isinstance(self.weight, nn.Parameter) else "buffer"
        return f"{list(self.weight.shape)}, {kind}, add={self.add}"


class Product(nn.Module):
    """`x @ p`: a dense layer without a bias slot."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Standardised(nn.Conv2d):
    """Weight standardisation: the weight that convolves is computed in forward."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, self.weight - mean, self.bias, self.stride, self.padding, self.dilation, self.groups)


class FunctionalConv(nn.Module):
    """`F.conv2d` with the module's own tensors, the weight a parameter or a buffer, and padding laid by `F.pad`."""

    def __init__(self, inputs: int, outputs: int, *, learnt: bool, bias: bool) -> None:
        super().__init__()
        shape = (outputs, inputs, 3, 3)
        if learnt:
            self.weight = nn.Parameter(torch.empty(shape))
        else:
            self.register_buffer("weight", torch.empty(shape))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias)


class Focus(nn.Module):
    """YOLOv5: every second pixel, four times, side by side."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), 1)


class Bottlenecks(nn.Module):
    """YOLO's C2f: two halves, then convolutions in a chain, all of them joined."""

    def __init__(self, channels: int, count: int, *, sizes: bool) -> None:
        super().__init__()
        self.half, self.sizes = channels // 2, sizes
        self.chain = nn.ModuleList(nn.Conv2d(self.half, self.half, 3, padding=1) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        found = list(x.split((self.half, self.half), 1) if self.sizes else x.chunk(2, 1))
        for conv in self.chain:
            found.append(F.relu(conv(found[-1])) + found[-1])
        return torch.cat(found, 1)


class Attend(nn.Module):
    """One head of attention over the tokens, by plain matrix products."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(channels, channels) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2) * 0.3, -1)
        return weights @ self.v(x)
