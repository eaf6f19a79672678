"""Small nets for tests of saving, and one result of each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import surgery
from surgery.results import Result


class Net(nn.Module):
    """A fold that makes a bias, a carrier, a grouped weight, a size that the code keeps, an unstored buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.border = nn.Conv2d(8, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2, bias=False)
        self.point = nn.Conv2d(8, 6, 1, bias=False)
        self.head = nn.Linear(6, 4)
        self.width = 6
        self.act = nn.ReLU()
        self.idle = nn.Identity()
        self.register_buffer("scale", torch.full((1,), 2.0), persistent=False)
        self.shift = torch.full((1,), 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = self.act(self.border(x))
        x = self.point(self.grouped(x))
        x = x.view(x.shape[0], self.width, -1).mean(2)
        return self.head(x) * self.scale + self.shift


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(5, 7, bias=False)
        self.a = nn.Linear(7, 7)
        self.b = nn.Linear(7, 7)
        self.b.weight = self.a.weight
        self.out = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.b(torch.relu(self.a(self.into(x)))))


EXAMPLE = torch.linspace(-1, 1, 2 * 3 * 64).reshape(2, 3, 8, 8)


def masked(seed: int = 0) -> Net:
    """With dead filters, whose shifts are not zero."""
    torch.manual_seed(seed)
    net = Net().eval()
    with torch.no_grad():
        net.norm.bias.normal_().abs_()
        net.norm.running_mean.normal_()
        net.first.weight[[1, 4, 6]] = 0
        net.border.weight[[0, 3, 4, 7]] = 0
        net.border.bias.abs_()
        net.point.weight[[2, 5]] = 0
    return net


def masked_tied() -> Tied:
    torch.manual_seed(1)
    net = Tied().eval()
    with torch.no_grad():
        for weight in (net.into.weight, net.a.weight):
            weight[[1, 5]] = 0
        net.a.bias[[1, 5]] = 0
    return net


def result(seed: int = 0) -> Result:
    return surgery.shrink(masked(seed), EXAMPLE)
