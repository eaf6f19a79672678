"""The net that the field's maskers are tried on, in a module of its own so that the command line can name it."""

from __future__ import annotations

import torch
from torch import nn

from tests import nets

IMAGE = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(7))


def make_net() -> nn.Module:
    """Two convolutions, a norm between them, 2,885 parameters."""
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    return nets.lively(net).train()
