"""Global response norm: each channel by the mean of all channels' sizes. Zero channels go: gain · n/n′, eps · n/n′.

The net is a stem of 8 channels, a block (8 -> 12 -> 8) with the norm in its middle, and a head: a channel of the middle
takes 8 + 1 in front, 2 of the norm and 8 behind with it.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from tests.exactness import parameters, shrunk
from tests.nets import lively

X = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(4))
EPS = 0.2
"""Large, for a wrong one to show."""

DEAD = [0, 3, 4, 9]
A_CHANNEL = 8 + 1 + 2 + 8


class Response(nn.Module):
    """ConvNeXt v2, and what is not quite it."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.kind, self.eps = kind, EPS
        self.weight, self.bias = nn.Parameter(torch.zeros(12)), nn.Parameter(torch.zeros(12))

    def forward(self, x: Tensor) -> Tensor:
        size = x.norm(p=2, dim=(2, 3), keepdim=True)
        shape = (1, -1, 1, 1)
        weight, bias = self.weight.view(shape), self.bias.view(shape)
        if self.kind == "literal eps":
            return x + bias + weight * x * (size / (size.mean(1, keepdim=True) + 0.2))
        mean = size.mean(1, keepdim=True)
        if self.kind == "by the mean alone":
            return x + bias + weight * x * (size / mean)
        if self.kind == "squared":
            share = size / (mean + self.eps)
            return x + bias + weight * (x * (share * share))
        if self.kind == "added to":
            return bias + weight * (x + size / (mean + self.eps))
        if self.kind == "multiplied by":
            return x + bias + weight * (x * (size * (mean + self.eps)))
        if self.kind == "mean read twice":
            return x + bias + weight * (x * (size / (mean + self.eps))) + mean
        if self.kind == "gain read twice":
            return x * weight + bias + weight * (x * (size / (mean + self.eps)))
        if self.kind == "in float32":
            return x + bias + weight * (x.float() * (size.float() / (mean.float() + self.eps))).type_as(x)
        if self.kind == "plain":
            return weight * (x * (size / (mean + self.eps))) + bias + x
        return x + torch.addcmul(bias, weight, x * (size / (mean + self.eps)))


class Net(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 12, 1)
        self.norm, self.down = norm, nn.Conv2d(12, 8, 1)
        self.head = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.down(self.norm(F.gelu(self.up(x)))))


def dying(kind: str = "", dead: list[int] = DEAD) -> Net:
    """A lively net of which some channels are zero in front of the norm; behind it they are its bias."""
    net = lively(Net(Response(kind)))
    assert isinstance(net, Net)
    with torch.no_grad():
        net.up.weight[dead] = 0
        net.up.bias[dead] = 0
    return net


@pytest.mark.parametrize("kind", ["", "plain"])
def test_zero_channels_go(kind: str) -> None:
    net = dying(kind)
    before = copy.deepcopy(net)
    result = shrunk(net, X)
    slim = result.model
    assert result.params_before - result.params_after == len(DEAD) * A_CHANNEL
    assert slim.norm.eps == pytest.approx(EPS * 12 / 8)
    left = [c for c in range(12) if c not in DEAD]
    torch.testing.assert_close(slim.norm.weight, before.norm.weight[left] * 12 / 8)
    torch.testing.assert_close(slim.norm.bias, before.norm.bias[left])


def test_casts_between_make_no_difference() -> None:
    """Proven by the package's own proof, which lifts them."""
    result = surgery.shrink(dying("in float32"), X)
    assert not result.notes
    assert result.params_before - result.params_after == len(DEAD) * A_CHANNEL


def test_half_of_it_is_chosen() -> None:
    dense = dying(dead=[])
    plan = surgery.choose(dense, X)
    result = shrunk(plan.mask(dense), X)
    assert result.model.norm.weight.numel() == 6


def test_a_channel_that_is_a_constant_but_not_zero_stays() -> None:
    net = dying()
    with torch.no_grad():
        net.up.bias[3] = 0.5
    result = shrunk(net, X)
    assert result.params_before - result.params_after == (len(DEAD) - 1) * A_CHANNEL


@pytest.mark.parametrize(
    "kind",
    ["literal eps", "by the mean alone", "squared", "added to", "multiplied by", "mean read twice", "gain read twice"],
)
def test_what_gain_and_eps_do_not_make_up_for_stays(kind: str) -> None:
    net = dying(kind)
    result = shrunk(net, X)
    assert parameters(result.model) == parameters(net)
    assert "pinned: mean runs over this axis (norm" in result.plan.explain("up.weight", 0)
