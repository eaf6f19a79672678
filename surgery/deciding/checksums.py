"""Whether tensors are those that a plan was made from: their names and shapes, and the sums of their bits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from surgery.errors import PlanError

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


def check_shapes(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse tensors that are not those a plan was made for, by their names and shapes.

    Raises:
        PlanError: One is missing or has another shape.
    """
    for name, shape in shapes.items():
        if name not in tensors:
            raise PlanError(f"the model has no {name}", "apply the plan to the model it was made from")
        if tuple(tensors[name].shape) != tuple(shape):
            raise PlanError(
                f"{name} is {list(tensors[name].shape)}, the plan was made for {list(shape)}",
                "apply the plan to the model it was made from, not to one already cut",
            )
