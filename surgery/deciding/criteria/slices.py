"""The slices of a weight that belong to the positions of one of its axes."""

from __future__ import annotations

from torch import Tensor

from surgery.coupling import Axis


def slices(tensor: Tensor, axis: Axis) -> Tensor:
    """What each position of an axis holds, in the order of its ids: `[positions, ...]`, a view where that can be.

    Where the axis is counted by conv groups (`[g, n]` ids for dim 1 of a weight `[g·x, n, ...]`), position `(g, j)` is
    column j of the rows of conv group g.
    """
    if axis.ids.ndim == 1:
        return tensor.movedim(axis.dim, 0)
    columns: Tensor = tensor.unflatten(0, (axis.ids.shape[0], -1)).transpose(1, 2).flatten(0, 1)
    return columns
