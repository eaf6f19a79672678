"""Layouts: which unit ids lie where in a tensor, and how movement ops carry any array over positions along.

A *block* is an integer array of the tensor's own rank: full size on the dims that it covers, 1 on the others. It says
which unit id stands at each position of those dims. A layout is a shape and its blocks; no two blocks cover the same
dim, and a dim in no block is untracked (batch, tokens, space). The id array of conv1's output is `[1, C, 1, 1]`, that
of a multi-head view of the same channels `[1, H, D, 1, 1]`: one joint block on two dims.

The functions below move *any* such array (ids here, known values in `known.py`) through a reshape: a movement op has
no index arithmetic of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """A tensor's shape, the blocks of unit ids on it, and the dims along which `expand` has just laid out copies."""

    shape: Shape
    blocks: tuple[Ids, ...] = ()
    stretched: tuple[int, ...] = ()

    def block_of(self, dim: int) -> Ids | None:
        """The block that covers `dim`, or None where the dim is untracked."""
        for block in self.blocks:
            if block.shape[dim] > 1:
                return block
        return None

    @property
    def rank(self) -> int:
        """Number of dims."""
        return len(self.shape)


def covered(block: Ids) -> tuple[int, ...]:
    """The dims that a block covers."""
    return _longer_than_one(block.shape)


@lru_cache(maxsize=4096)
def _longer_than_one(shape: Shape) -> tuple[int, ...]:
    return tuple(dim for dim, size in enumerate(shape) if size > 1)


def on_dim(ids: Ids, rank: int, dim: int) -> Ids:
    """One-dimensional ids as a block on `dim` of a tensor of that rank."""
    return ids.reshape([-1 if d == dim else 1 for d in range(rank)])


def along(block: Ids, dim: int) -> Ids:
    """A block as rows: `[prod(other dims), size of dim]`, the other dims in their order."""
    return np.moveaxis(block, dim, -1).reshape(-1, block.shape[dim])


def compress(block: Ids) -> Ids:
    """Drop the dims along which the ids do not change: `flatten` and back of `(C, 7, 7)` is a block on C again."""
    for dim in covered(block):
        first = block.take([0], axis=dim)
        if bool((block == first).all()):
            block = first
    return block


def reshape_groups(old: Shape, new: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Match the dims of a reshape: the finest list of `(old dims, new dims)` with equal products.

    `(2, 12, 7, 7) -> (2, 3, 4, 49)` gives `[((0,), (0,)), ((1,), (1, 2)), ((2, 3), (3,))]`. Dims of size 1 go with
    whatever stands beside them.
    """
    groups: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        olds, news = [], []
        left, right = 1, 1
        if i < len(old):
            left, olds, i = old[i], [i], i + 1
        if j < len(new):
            right, news, j = new[j], [j], j + 1
        while left != right:
            if left < right and i < len(old):
                left, i = left * old[i], i + 1
                olds.append(i - 1)
            elif right < left and j < len(new):
                right, j = right * new[j], j + 1
                news.append(j - 1)
            else:
                raise ValueError(f"cannot reshape {old} to {new}")
        groups.append((tuple(olds), tuple(news)))
    return groups


def reshaped(array: Any, old: Shape, new: Shape, groups: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> Any:
    """Reshape an array over positions (numpy or torch; its dims full or 1) as the tensor itself is reshaped.

    Args:
        array: An array of rank `len(old)`; each dim has the tensor's size or 1 (the same all along).
        old: The tensor's shape before.
        new: The tensor's shape after.
        groups: `reshape_groups(old, new)`.
    """
    full, out = list(array.shape), [1] * len(new)
    for olds, news in groups:
        if any(array.shape[d] > 1 for d in olds):
            for d in olds:
                full[d] = old[d]
            for d in news:
                out[d] = new[d]
    if tuple(full) != tuple(array.shape):
        array = np.broadcast_to(array, full) if isinstance(array, np.ndarray) else array.expand(full)
    return array.reshape(out)


def resolved(size: Iterable[int], numel: int) -> Shape:
    """A view's size argument with its -1 filled in."""
    sizes = [int(s) for s in size]
    if -1 in sizes:
        known = math.prod(s for s in sizes if s != -1)
        sizes[sizes.index(-1)] = numel // known if known else 0
    return tuple(sizes)


def survivors(block: Ids, alive: npt.NDArray[np.bool_]) -> Ids | None:
    """The block after the ids that are not `alive[id]` are gone, or None where what is left is no rectangle.

    Every surviving row must keep the same number of columns, at each level of a block on several dims; which columns
    may differ per row.
    """
    dims = covered(block)
    keep = alive[block]
    if len(dims) <= 1:
        kept: Ids = block[keep]
        return kept.reshape([kept.size if d in dims else 1 for d in range(block.ndim)])
    sizes = []
    rows = keep.reshape([block.shape[d] for d in dims])
    for level in range(len(dims)):
        # how many entries of this level are alive, in each row of the levels above that is alive itself
        present = rows.reshape(*rows.shape[: level + 1], -1).any(-1)
        counts = np.unique(present.sum(-1)) if level == 0 else np.unique(present.sum(-1)[present.any(-1)])
        if counts.size != 1:
            return None
        sizes.append(int(counts[0]))
    return block[keep].reshape([sizes[dims.index(d)] if d in dims else 1 for d in range(block.ndim)])


def distinct(numbers: Ids) -> Ids:
    """The different ones of some numbers, in order: what `np.unique` gives, several times faster on long arrays."""
    ordered = np.sort(numbers, axis=None)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if ordered.size else ordered
