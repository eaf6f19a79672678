"""Weights so small that the processor takes the slow path: they fake slowness, and so fake a speed-up."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def count_subnormals(model: nn.Module) -> int:
    """How many weights and buffers are neither zero nor large enough for full precision (below 1.2e-38 in float32).

    A weight under a mask of `torch.nn.utils.prune` counts as it is used, that is masked.
    """
    seen: dict[int, Tensor] = {}
    for module in model.modules():
        buffers = dict(module.named_buffers(recurse=False))
        for name, tensor in (*module.named_parameters(recurse=False), *buffers.items()):
            mask = buffers.get(f"{name.removesuffix('_orig')}_mask") if name.endswith("_orig") else None
            seen[id(tensor)] = tensor.detach() if mask is None else tensor.detach() * mask
    return sum(_count(tensor) for tensor in seen.values() if tensor.is_floating_point())


def _count(tensor: Tensor) -> int:
    size = tensor.abs()
    return int(((size > 0) & (size < torch.finfo(tensor.dtype).tiny)).sum())
