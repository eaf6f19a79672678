"""A small net, its slim twin, and the proof that compares them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from surgery.cutting.twins import float64_copy
from surgery.inputs import Inputs
from surgery.proof.prove import Proof, prove


class Net(nn.Module):
    """conv [3, h] -> conv [h, 5] -> mean: takes any batch and any resolution."""

    def __init__(self, hidden: int = 6) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, hidden, 3, padding=1)
        self.b = nn.Conv2d(hidden, 5, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        return self.b(self.a(x).relu()).mean((2, 3))


def without_dead_unit(net: Net) -> tuple[Net, Net]:
    """The net with hidden unit 2 zeroed, and the same function without it."""
    with torch.no_grad():
        net.a.weight[2] = 0
        net.a.bias[2] = 0  # type: ignore[index]
        slim = type(net)(net.a.out_channels - 1).to(net.a.weight.dtype)
        keep = [i for i in range(net.a.out_channels) if i != 2]
        slim.a.weight.copy_(net.a.weight[keep])
        slim.a.bias.copy_(net.a.bias[keep])  # type: ignore[index,union-attr]
        slim.b.weight.copy_(net.b.weight[:, keep])
        slim.b.bias.copy_(net.b.bias)  # type: ignore[arg-type,union-attr]
    return net, slim


def proved(masked: nn.Module, slim: nn.Module, example: Any) -> Proof:
    masked64, slim64 = float64_copy(masked), float64_copy(slim)
    return prove(masked, slim, Inputs.of(example), masked64=masked64, slim64=slim64)


X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
