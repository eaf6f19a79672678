"""Nets built natively, with plain constructors, from lists of widths: what a slim net is measured against.

Nothing here goes through surgery: a net of these widths is what one would have written had one known them beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import torchvision_cpu  # noqa: F401  # before torchvision

POOL = "M"
"""In the widths of a VGG, a max-pool."""


@dataclass(frozen=True)
class VGGWidths:
    """Channels of the convolutions (and `POOL`), and features of the linear layers; the last are the classes."""

    features: tuple[int | str, ...]
    classifier: tuple[int, int, int]


@dataclass(frozen=True)
class ResNetWidths:
    """Channels of the stem, of each block (`(inside, out, stride)`), and the classes."""

    stem: int
    blocks: tuple[tuple[int, int, int], ...]
    classes: int


def vgg(widths: VGGWidths) -> nn.Module:
    """A VGG with BatchNorm, from torchvision's own `make_layers`."""
    from torchvision.models.vgg import VGG, make_layers

    net: nn.Module = VGG(make_layers(list(widths.features), batch_norm=True), init_weights=False)
    last = [width for width in widths.features if isinstance(width, int)][-1]
    first, second, classes = widths.classifier
    net.classifier = nn.Sequential(
        nn.Linear(last * 7 * 7, first),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(first, second),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(second, classes),
    )
    return net


class Block(nn.Module):
    """x [b, incoming, h, w] to [b, out, h / stride, w / stride]: two 3x3 convolutions beside a shortcut."""

    def __init__(self, incoming: int, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(incoming, inside, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or incoming != out:
            self.shortcut = nn.Sequential(nn.Conv2d(incoming, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the two ways, behind a ReLU."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


class ResNet(nn.Module):
    """x [b, 3, h, w] to [b, classes]: a ResNet of basic blocks whose widths are all its own."""

    def __init__(self, widths: ResNetWidths) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths.stem, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths.stem)
        blocks, incoming = [], widths.stem
        for inside, out, stride in widths.blocks:
            blocks.append(Block(incoming, inside, out, stride))
            incoming = out
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(incoming, widths.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Stem, blocks, the mean over all places, classes."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, padding=1)
        x = F.adaptive_avg_pool2d(self.blocks(x), 1)
        return self.fc(torch.flatten(x, 1))  # type: ignore[no-any-return]


def vgg_like(slim: nn.Module) -> nn.Module:
    """A native net with the widths of a slim torchvision VGG with BatchNorm."""
    features: list[int | str] = []
    for layer in slim.get_submodule("features").children():
        if isinstance(layer, nn.Conv2d):
            features.append(layer.out_channels)
        elif isinstance(layer, nn.MaxPool2d):
            features.append(POOL)
    first, second, classes = _outs(slim.get_submodule("classifier"), nn.Linear)
    return vgg(VGGWidths(tuple(features), (first, second, classes)))


def resnet_like(slim: nn.Module) -> nn.Module:
    """A native net with the widths of a slim torchvision ResNet of basic blocks."""
    blocks = []
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for block in slim.get_submodule(stage).children():
            first, second = block.get_submodule("conv1"), block.get_submodule("conv2")
            if not (isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)):
                raise TypeError(f"{stage} has a block of other layers than two convolutions")
            blocks.append((first.out_channels, second.out_channels, int(first.stride[0])))
    stem = slim.get_submodule("conv1")
    (classes,) = _outs(slim.get_submodule("fc"), nn.Linear)
    return ResNet(ResNetWidths(_outs(stem, nn.Conv2d)[0], tuple(blocks), classes))


def _outs(module: nn.Module, kind: type[nn.Conv2d | nn.Linear]) -> Sequence[int]:
    """Outputs of every layer of that kind in a module, in order."""
    layers = [layer for layer in module.modules() if isinstance(layer, kind)]
    return [layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels for layer in layers]
