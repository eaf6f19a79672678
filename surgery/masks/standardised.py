"""Convolutions that standardise their weight in forward (weight standardisation, as in BiT and NFNets; timm's classes).

The standardised weight is a constant in eval mode, but each of its rows is an average over the channels that it reads:
as long as forward computes it, none of those can go. Baked, it is the weight of a plain convolution.

Sources: Qiao et al. 2019, Micro-Batch Training with Batch-Channel Normalization and Weight Standardization; Brock et
al. 2021, Characterizing signal propagation to close the performance gap in unnormalized ResNets.
"""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MODULE = "timm.layers.std_conv"
CLASSES = ("StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame")
CLOSE = 1e-5
"""How far the plain convolution may be from the module, relative to the largest output: rounding."""


def is_standardised(module: nn.Module) -> bool:
    """Whether the module is a convolution whose weight is standardised in forward, and a plain one can stand in."""
    kind = type(module)
    return kind.__module__ == MODULE and kind.__name__ in CLASSES and _agrees(module)


def standardised_weight(module: nn.Module) -> Tensor:
    """The weight that the module computes with, `[out, in / groups, kh, kw]`."""
    layer: Any = module
    weight, gain = layer.weight, getattr(layer, "gain", None)
    scale = None if gain is None else (gain * layer.scale).view(-1)
    rows = weight.reshape(1, weight.shape[0], -1)
    made = F.batch_norm(rows, None, None, weight=scale, training=True, momentum=0.0, eps=layer.eps)
    return made.reshape_as(weight)


def plain_class(module: nn.Module) -> type[nn.Module]:
    """The class that does the same with a weight that is standardised already."""
    if getattr(module, "same_pad", False):
        same: type[nn.Module] = import_module("timm.layers.conv2d_same").Conv2dSame
        return same
    return nn.Conv2d


def originals(module: nn.Module) -> tuple[Tensor, ...]:
    """The parameters that the weight is made of."""
    own = module._parameters
    return tuple(tensor for name in ("weight", "gain") if (tensor := own.get(name)) is not None)


def become_plain_(module: nn.Module) -> None:
    """Make the module a plain convolution; its weight is set by whoever calls this."""
    module.__class__ = plain_class(module)
    module._parameters.pop("gain", None)


def _agrees(module: nn.Module) -> bool:
    """Whether the plain convolution gives what the module gives: another version of the class may compute otherwise."""
    weight = module.weight
    assert isinstance(weight, Tensor), "a convolution has a weight"
    if weight.is_meta:
        return True
    twin = copy.deepcopy(module).eval()
    generator = torch.Generator().manual_seed(0)
    size = (1, weight.shape[1] * int(module.groups), *(2 * k for k in weight.shape[2:]))  # type: ignore[arg-type]
    with torch.no_grad():
        image = torch.randn(size, generator=generator).to(weight.device, weight.dtype)
        wanted, value = twin(image), standardised_weight(twin)
        become_plain_(twin)
        twin.weight = nn.Parameter(value)
        return bool((twin(image) - wanted).abs().max() <= CLOSE * wanted.abs().max())
