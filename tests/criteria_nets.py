"""Nets whose groups are the same to torch-pruning and to us, and data for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 5


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.conv2, self.bn2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        shortcut = [nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out)] if stride > 1 else []
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class Residual(nn.Module):
    """A small ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 12, 2), Block(12, 12, 1))
        self.fc = nn.Linear(12, CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.blocks(F.relu(self.bn(self.conv(x)))).mean((2, 3)))
        return y


def plain() -> nn.Sequential:
    """Like VGG: convolutions, a flatten, dense layers."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 10, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(160, 14), nn.ReLU(), nn.Linear(14, CLASSES),
    )  # fmt: skip


def depthwise() -> nn.Sequential:
    """Like MobileNet: depthwise and pointwise convolutions in turn."""

    def conv(width: int, out: int, kernel: int, groups: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(width, out, kernel, padding=kernel // 2, groups=groups, bias=False)
        return [layer, nn.BatchNorm2d(out), nn.ReLU6()]

    body = [*conv(3, 8, 3), *conv(8, 8, 3, 8), *conv(8, 12, 1), *conv(12, 12, 3, 12), *conv(12, 16, 1)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES, bias=False))


def dense(bias: bool = True) -> nn.Sequential:
    """An MLP over flat images."""
    layers = [nn.Linear(192, 16, bias=bias), nn.ReLU(), nn.Linear(16, 12, bias=bias), nn.GELU()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(12, CLASSES, bias=bias))


NETS: dict[str, Callable[[], nn.Module]] = {
    "residual": Residual, "plain": plain, "depthwise": depthwise, "dense": dense,
}  # fmt: skip


def made(name: str) -> nn.Module:
    """The net with random weights of every kind, gains about 1; in eval mode."""
    model = NETS[name]()
    generator = torch.Generator().manual_seed(0)
    for key, parameter in model.named_parameters():
        gain = parameter.dim() == 1 and not key.endswith("bias")
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3 + float(gain)
    return model.eval()


def images(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def loader(sizes: tuple[int, ...] = (6, 6, 3)) -> list[tuple[Tensor, Tensor]]:
    """Batches of images and labels, the last one smaller."""
    return [(images(size, seed), torch.arange(size) * (seed + 2) % CLASSES) for seed, size in enumerate(sizes)]
