"""Large tensors in pieces: what is computed of them on the way takes a few megabytes, not as much as they do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

AT_ONCE = 1 << 20
"""The most elements of a piece, where one row has no more."""


def pieces(tensor: Tensor) -> Sequence[Tensor]:
    """The tensor in stretches along dim 0, views of it."""
    if tensor.numel() <= AT_ONCE:
        return (tensor,)
    stretches: Sequence[Tensor] = tensor.split(max(1, AT_ONCE * tensor.shape[0] // tensor.numel()))
    return stretches


def empty(tensor: Tensor, dim: int) -> Tensor:
    """Which positions of `dim` hold nothing but zeros, `[size]`, on the CPU."""
    zero = ((piece == 0).movedim(dim, 0) for piece in pieces(tensor.detach()))
    found = [flags.reshape(len(flags), -1).all(1) for flags in zero]
    return (torch.cat(found) if dim == 0 else torch.stack(found).all(0)).cpu()
