"""Sums of tensors' bits: whether weights are those that a plan was made from."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

IN_CACHE = 1 << 16
"""Elements that are summed at once, so that they stay in the processor's cache."""


def checksum(tensor: Tensor) -> int:
    """The sum of a tensor's bits: equal for equal weights, cheap enough to take of every tensor.

    A mask that is multiplied in leaves -0 where a mask that is written leaves 0: they count as the same.
    """
    total = 0
    for piece in tensor.detach().cpu().contiguous().view(-1).split(IN_CACHE):
        raw = (piece + 0.0 if piece.is_floating_point() else piece).view(torch.uint8).numpy()
        whole = raw.size // 8 * 8
        total += int(raw[:whole].view(np.int64).sum()) + int(raw[whole:].sum())
    return total
