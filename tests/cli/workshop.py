"""A user's own module, as tests of the command line import it: `cli_zoo:NAME`."""

from __future__ import annotations

CODE = """
import sys
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.head(x.mean((2, 3)))


def dense():
    torch.manual_seed(0)
    return Net()


def masked():
    print("hello from the factory")
    net = dense()
    with torch.no_grad():
        net.conv1.weight[[1, 5]] = 0
        net.conv1.bias[[1, 5]] = torch.tensor([0.5, -0.5])
        net.conv2.weight[[2]] = 0
    return net


def pruned():
    from torch.nn.utils import prune

    net = dense()
    prune.ln_structured(net.conv1, "weight", 0.5, n=2, dim=0)
    return net


class Liar(Net):
    def forward(self, x):
        return super().forward(x) + float(torch.jit.is_tracing())


def silent():
    net = masked()
    with torch.no_grad():
        net.conv1.weight.zero_()
    return net


def other():
    net = masked()
    with torch.no_grad():
        net.head.bias += 1
    return net


def nan():
    net = masked()
    with torch.no_grad():
        net.conv2.weight[0, 0, 0, 0] = float("nan")
        net.head.bias[0] = float("inf")
    return net


def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(n, 3, 9, 9, generator=generator), torch.arange(n) % 2) for n in (4, 3)]


def nothing():
    return []


def wrong():
    return [torch.randn(2, 4, 9, 9)]


def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)


def by_sum(model):
    return {"conv1.weight": model.conv1.weight.abs().sum((1, 2, 3))}


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else x


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.arange(12).reshape(3, 4))

    def forward(self, x):
        return self.table[x]


class Integers(Whole):
    def __init__(self):
        super().__init__()
        table = self.table
        del self.table
        self.table = nn.Parameter(table, requires_grad=False)


class Fault(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def named_parameters(self, *args, **kwargs):
        raise RuntimeError("no such thing\\nmore")


def interrupted():
    raise KeyboardInterrupt


Nothing = nn.ReLU
"""
