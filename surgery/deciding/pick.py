"""Picking: the channels with the lowest scores, so many of each group, in patterns that rectangles allow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from surgery.coupling import Bools, Coupling
from surgery.layout import Ids

Floats = npt.NDArray[np.float64]


def lowest(
    coupling: Coupling, scores: Floats, keep_ratio: float, *, round_to: int = 1, taken: Bools | None = None
) -> Bools:
    """The channels with the lowest scores of each group, equally many from each row of every rectangle.

    Args:
        coupling: The coupling.
        scores: One per channel, `[n_channels]`.
        keep_ratio: The share of each group that stays, rounded up to at least one channel.
        round_to: What stays is a multiple of this, or everything.
        taken: Channels that will stay although they are chosen (carriers), `[n_channels]`; they count as staying.
    """
    cells = _cells(coupling)
    free = (coupling.pin_of < 0) & ~coupling.virtual
    chosen = np.zeros(coupling.n_channels, bool)
    members = np.flatnonzero(~coupling.virtual)
    sizes = np.bincount(coupling.group_of[members], minlength=int(coupling.group_of.max(initial=-1)) + 1)
    keep = np.maximum(np.ceil(sizes * keep_ratio - 1e-9).astype(np.int64), 1)
    keep = np.minimum(-(-keep // round_to) * round_to, sizes)
    if taken is not None:
        keep = np.maximum(keep - np.bincount(coupling.group_of[taken], minlength=sizes.size), 1)
    # one key per (group, cell); the same share of every cell goes
    _, cell_of = np.unique(np.stack([coupling.group_of, cells]), axis=1, return_inverse=True)
    cell_of = cell_of.ravel()
    candidates = members[free[members]]
    order = candidates[np.lexsort((scores[candidates], cell_of[candidates]))]
    starts = np.searchsorted(cell_of[order], np.arange(cell_of.max(initial=-1) + 1))
    rank = np.arange(order.size) - starts[cell_of[order]]
    cell_sizes = np.bincount(cell_of[members], minlength=starts.size)
    group = coupling.group_of[order]
    share = (sizes[group] - keep[group]) / sizes[group]
    chosen[order[rank < np.floor(cell_sizes[cell_of[order]] * share + 1e-9)]] = True
    return chosen


def _cells(coupling: Coupling) -> Ids:
    """A label for every channel: in which row of each rectangle it lies, `[n_channels]`."""
    generator = np.random.default_rng(1)
    label = np.zeros(coupling.n_channels, np.int64)
    for uniform in coupling.uniforms:
        for array in uniform.arrays:
            rows, columns = array.shape
            if rows == 1 or columns == 1:
                continue
            salt = generator.integers(1, 2**61, rows)
            channel = coupling.channel_of[array]
            # a channel that lies in several rows is no part of any one of them
            first = np.full(coupling.n_channels, -1, np.int64)
            first[channel.ravel()] = np.repeat(np.arange(rows), columns)
            spread = np.zeros(coupling.n_channels, bool)
            elsewhere: Bools = first[channel] != np.arange(rows)[:, None]
            spread[channel[elsewhere]] = True
            inside = np.unique(channel)
            inside = inside[~spread[inside]]
            label[inside] += salt[first[inside]]
    return label
