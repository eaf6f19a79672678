"""Full-size nets of torchvision by name, random but prepared, and the same with half of every group masked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import surgery
from benchmarks import torchvision_cpu  # noqa: F401  # before torchvision
from benchmarks.prepared import prepare_

SETTINGS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": False},
    "inception_v3": {"aux_logits": False, "init_weights": False},
}
"""What a constructor is told beside `weights=None`: no auxiliary heads, and no slow initialisation of weights."""


def dense_net(name: str) -> nn.Module:
    """The net called `name` in torchvision, with random weights and statistics like a trained net's, in eval mode."""
    from torchvision import models

    torch.manual_seed(0)
    return prepare_(models.get_model(name, weights=None, **SETTINGS.get(name, {})))


def masked_net(name: str, image: Tensor) -> nn.Module:
    """`dense_net` with the half of each group's channels that has the smaller norm masked through a plan."""
    dense = dense_net(name)
    return surgery.choose(dense, image, keep_ratio=0.5).mask(dense)


def classifier(net: nn.Module) -> nn.Module:
    """The last linear layer: its outputs are the classes."""
    return [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
