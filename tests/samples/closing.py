"""Sets of channels that can go together: no pin among them, rectangles and grids left whole."""

from __future__ import annotations

import numpy as np

from surgery.coupling import Coupling, Outer, Uniform
from surgery.layout import Bools, Ids

STUCK = np.empty(0, np.int64)
"""No channel that could be taken would help."""


def removable(coupling: Coupling, seed: Ids, rng: np.random.Generator) -> Bools | None:
    """The alive channels after `seed` and what must go with it are gone; None where that is not allowed.

    Rectangles are kept by taking one more channel from each row that is too long, grids by taking the row or the
    column of a cell that is gone.
    """
    alive = np.ones(coupling.n_channels, bool)
    alive[seed] = False
    pinned = coupling.pin_of >= 0
    while not (pinned & ~alive).any():
        more = _asked(coupling, alive, rng)
        if more is None:
            return alive
        if more.size == 0:
            return None
        alive[more] = False
    return None


def _asked(coupling: Coupling, alive: Bools, rng: np.random.Generator) -> Ids | None:
    """What has to go next; None where nothing has."""
    for outer in coupling.outers:
        if (more := _cells(coupling, outer, alive, rng)) is not None:
            return more
    return next((more for u in coupling.uniforms if (more := _missing(coupling, u, alive, rng)) is not None), None)


def _cells(coupling: Coupling, outer: Outer, alive: Bools, rng: np.random.Generator) -> Ids | None:
    """Cells whose row or column is gone; else the row or the column of a cell that is gone, mostly the smaller one."""
    cells, *factors = (coupling.channel_of[ids].ravel() for ids in (outer.cells, outer.rows, outer.columns))
    here = alive[factors[0]] & alive[factors[1]]
    orphaned = cells[alive[cells] & ~here]
    if orphaned.size:
        return orphaned
    holes = np.flatnonzero(~alive[cells] & here)
    if not holes.size:
        return None
    hole = rng.choice(holes)
    sides = [(int(alive[cells[side == side[hole]]].sum()), side[hole]) for side in factors]
    free = [channel for _, channel in sorted(sides) if coupling.pin_of[channel] < 0]
    return np.array(free[-1:] if rng.random() < 0.3 else free[:1], np.int64)


def _missing(coupling: Coupling, uniform: Uniform, alive: Bools, rng: np.random.Generator) -> Ids | None:
    """Channels to take for the rows of one rectangle to agree: None where they do, empty where they never will."""
    channels = [coupling.channel_of[array] for array in uniform.arrays]
    here = [alive[c] for c in channels]
    gone = np.any([~h.any(1) for h in here], axis=0)  # rows that are gone
    if gone.all() or (uniform.rows_stay and gone.any()):
        return STUCK
    rest = [c[gone][h[gone]] for c, h in zip(channels, here, strict=True)]
    if any(r.size for r in rest):
        return np.concatenate(rest)
    for c, h in zip(channels, here, strict=True):
        shortest = h.sum(1)[~gone].min()
        for row in np.flatnonzero(~gone & (h.sum(1) > shortest)):
            free = c[row][h[row] & (coupling.pin_of[c[row]] < 0)]
            return rng.choice(free, 1) if free.size else STUCK
    return None
