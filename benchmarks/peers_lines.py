"""Masked nets that removers get wrong, one a line: small ones with a single difficulty each, and two real ones.

What was zeroed still says something: biases and BatchNorm shifts of the dead channels are not zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.architecture import Architecture, Floats, Shape, Sizes
from benchmarks.architectures import convolutional
from benchmarks.families import CLASSES, Family
from benchmarks.preparations import by_layers, drawn, lively_
from tests import nets

DEAD = [1, 3, 4, 6]
"""Half of eight channels."""


@dataclass(frozen=True)
class Line:
    """A masked net and what it takes.

    Attributes:
        net: `make()` gives it with its zeros; `sizes` are the example's, `others` those that results are judged on.
        untouched: Nothing in it is dead: whatever is removed is a fault.
    """

    net: Architecture
    untouched: bool = False

    @property
    def name(self) -> str:
        """As in the table; unique."""
        return self.net.name

    @property
    def alike(self) -> tuple[Sizes, ...]:
        """The sizes to judge on that differ from the example's in the batch only."""
        return tuple(sizes for sizes in self.net.others if set(sizes) == {"B"})

    @property
    def elsewhere(self) -> tuple[Sizes, ...]:
        """The others: another resolution or length."""
        return tuple(sizes for sizes in self.net.others if set(sizes) != {"B"})


def sign_(tensor: Tensor | None, positions: Iterable[int], sign: float) -> None:
    """Give entries a sign: a negative constant dies in the ReLU, a positive one travels on."""
    assert tensor is not None
    at = list(positions)
    with torch.no_grad():
        tensor[at] = sign * (tensor[at].abs() + 0.1)


def padded(sign: float = 1.0) -> nn.Module:
    """973 parameters: a convolution with bias before a padded one."""
    net = nets.zero_rows_(nets.lively(nets.PaddedPair()), conv1=DEAD)
    sign_(net.get_submodule("conv1").bias, DEAD, sign)  # type: ignore[arg-type]
    return net


def normed(sign: float = 1.0) -> nn.Module:
    """869 parameters: a zeroed channel leaves its BatchNorm as `shift - mean * gain / sqrt(variance + eps)`."""
    net = nets.zero_rows_(nets.lively(nets.NormPair()), conv1=DEAD)
    norm = net.get_submodule("norm1")
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        taken = norm.running_mean * norm.weight * (norm.running_var + norm.eps).rsqrt()
        norm.bias[DEAD] = sign * 0.7 + taken[DEAD]
    return net


def residual() -> nn.Module:
    """A residual stream whose three writers were masked each on its own."""
    net = nets.zero_rows_(
        nets.lively(nets.Residual()),
        stem=[0, 2, 3, 4, 5, 6],
        a2=[0, 1, 2, 3, 4, 5],
        b2=[0, 1, 2, 6, 7, 8],
        a1=[1, 2, 3, 4, 5],
        b1=[0, 3, 4, 5, 6, 7, 9],
    )
    for layer in ("stem", "a2", "b2"):  # what is dead everywhere adds up to a negative constant
        sign_(net.get_submodule(layer).bias, [0, 2], -1.0)  # type: ignore[arg-type]
    sign_(net.get_submodule("a1").bias, [1, 2, 3, 4, 5], -1.0)  # type: ignore[arg-type]
    return net


def summed() -> nn.Module:
    """Live filters, and live columns, whose weights add up to zero."""
    net = nets.lively(nets.PaddedPair())
    writes, reads = (net.get_submodule(name).weight for name in ("conv1", "conv2"))
    assert isinstance(writes, Tensor)
    assert isinstance(reads, Tensor)
    with torch.no_grad():
        writes[2] = torch.tensor([1.0, -1.0, 0.0] * 9).reshape(3, 3, 3)
        reads[:, 5] = torch.tensor([1.0, 0.0, -1.0] * 3).reshape(3, 3)
    return net


def gelu() -> nn.Module:
    """An MLP with 8 of its 16 hidden units dead; each still says GELU(bias)."""
    return nets.zero_rows_(nets.lively(nets.mlp()), **{"0": range(8)})


def depthwise(bias: bool = False) -> nn.Module:
    """253 parameters: a depthwise block, dead in both of its inner layers; `bias` gives the layer behind it one."""
    net = nets.zero_rows_(nets.lively(nets.Depthwise()), expand=DEAD, depthwise=DEAD)
    if bias:
        net.project.bias = nn.Parameter(torch.randn(8))  # type: ignore[union-attr]
    sign_(net.get_submodule("norm2").bias, DEAD, 1.0)  # type: ignore[arg-type]
    return net


def columns() -> nn.Module:
    """Filters that live, and that nobody reads."""
    net = nets.lively(nets.PaddedPair())
    nets.zero_(net.get_submodule("conv2").weight, DEAD, dim=1)  # type: ignore[arg-type]
    return net


def layer_norm() -> nn.Module:
    """Dead dims in a stream under LayerNorms, and dead units in the MLP beside it."""
    net = nets.zero_rows_(nets.lively(nets.Stream()), embed=[0, 1, 2], down=[0, 1, 2], up=range(10))
    with torch.no_grad():
        for layer in ("embed", "down"):
            net.get_submodule(layer).bias[:3] = 0  # type: ignore[operator]
    return net


def grouped(padding: int = 0) -> nn.Module:
    """Dead channels in different places of each conv group, before and behind a grouped convolution."""
    before = [0, 1, 5, 6, 8, 11]
    net = nets.zero_rows_(nets.lively(nets.Grouped(padding)), before=before, grouped=[0, 2, 6, 8, 13, 14])
    if padding:
        sign_(net.get_submodule("before").bias, before, -1.0)  # type: ignore[arg-type]
    return net


class Recurrent(nn.Module):
    """x [b, t, 5] to [b, t, 4]: an LSTM of 8 inputs and 6 hidden units between linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 8)
        self.lstm = nn.LSTM(8, 6, batch_first=True)
        self.up = nn.Linear(6, 10)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        """x [b, t, 5] to [b, t, 4]."""
        hidden: Tensor = self.lstm(F.relu(self.inner(x)))[0]
        return self.head(F.relu(self.up(hidden)))  # type: ignore[no-any-return]


def lstm() -> nn.Module:
    """Dead hidden units, dead inputs, dead readers."""
    net = nets.lively(Recurrent())
    nets.zero_rows_(net, inner=[0, 1, 2], up=[0, 3, 4])
    with torch.no_grad():
        for tensor in net.get_submodule("lstm").parameters():
            tensor[[6 * gate + unit for gate in range(4) for unit in (1, 4)]] = 0
    return net


def _real(name: str, family: str) -> Architecture:
    """A net of torchvision at 224 x 224, half of each layer's filters masked on its own (`ln_structured`)."""

    def unmasked() -> nn.Module:
        from torchvision import models

        net: nn.Module = models.get_model(name, weights=None, num_classes=CLASSES)
        return net

    dense = convolutional(Family(family, f"torchvision {name}", unmasked, (3, 224, 224)))

    def masked() -> nn.Module:
        return by_layers(lively_(unmasked(), drawn(dense)), dense)

    return Architecture(dense.name, dense.net, masked, dense.takes, dense.sizes, dense.others)


def _small(name: str, build: Callable[[], nn.Module], shape: Shape, **larger: int) -> Architecture:
    """A small net; `larger` are the letters of its shape at another size, five less in the example."""
    sizes = {letter: size - 5 for letter, size in larger.items()}
    others: tuple[Sizes, ...] = ({"B": 1}, {"B": 3}) if not larger else ({"B": 1}, {"B": 3}, {"B": 3, **larger})
    return Architecture(name, "plain code", build, {"": Floats(shape)}, {"B": 2, **sizes}, others)


_image = partial(_small, shape=("B", 3, "S", "S"), S=14)

LISTED = (
    Line(_image("padded convolutions with bias", padded)),
    Line(_image("convolutions with BatchNorm", normed)),
    Line(_image("residual, masked layer by layer", residual)),
    Line(_image("live filter whose weights sum to 0", summed), untouched=True),
    Line(_small("MLP with GELU", gelu, ("B", 7))),
    Line(_image("depthwise block", depthwise)),
    Line(_image("only the reader's columns are zero", columns)),
    Line(_small("dead dims under LayerNorm", layer_norm, ("B", "T", 6), T=8)),
    Line(_image("grouped convolution", grouped)),
    Line(_image("grouped convolution, padded", partial(grouped, 1))),
    Line(_small("LSTM", lstm, ("B", "T", 5), T=12)),
    Line(_real("resnet18", "ResNet-18, 50 % of each layer")),
    Line(_real("mobilenet_v2", "MobileNet v2, 50 % of each layer")),
)
LINES = {line.name: line for line in LISTED}
