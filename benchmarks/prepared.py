"""Nets as the benchmarks and the tests use them: random weights, but with statistics like a trained net's."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def prepare_(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a fresh net random BatchNorm statistics and biases, so that zeroed channels still send constants on.

    BatchNorm: mean N(0, 0.3), variance U(0.5, 1.5), gain U(0.5, 1.5), shift N(0, 0.3); other biases N(0, 0.1).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            bias = getattr(module, "bias", None)
            if isinstance(module, _BatchNorm):
                if module.running_mean is not None and module.running_var is not None:
                    module.running_mean.normal_(0, 0.3, generator=generator)
                    module.running_var.uniform_(0.5, 1.5, generator=generator)
                if module.affine:
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.bias.normal_(0, 0.3, generator=generator)
            elif isinstance(bias, nn.Parameter):
                bias.normal_(0, 0.1, generator=generator)
    return model.eval()
