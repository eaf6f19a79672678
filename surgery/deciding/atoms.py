"""Atoms: the channels that are picked together, and the cells of which the same share has to go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from surgery.coupling import Coupling
from surgery.layout import Bools, Ids, distinct


def picked_together(coupling: Coupling) -> Ids:
    """For every channel one that stands for all that are picked with it (a whole head), `[n_channels]`."""
    return atoms_of(coupling)[0]


def atoms_of(coupling: Coupling) -> tuple[Ids, Ids, Bools]:
    """`(a channel that stands for all picked together, the cell it lies in, what is not picked)`, each `[n_channels]`.

    A cell is what lies in the same row of every rectangle: the same share of each goes. Where rectangles cross, so that
    no cell holds two channels (a shuffle: `(g, c)` read as `(c, g)`), or where a row holds one channel in some array
    (a depthwise convolution with a multiplier), the rows of the later one are picked whole.
    """
    generator = np.random.default_rng(1)
    label = np.zeros(coupling.n_channels, np.int64)
    tables = [[coupling.channel_of[array] for array in uniform.arrays] for uniform in coupling.uniforms]
    atom = _heads(coupling, tables)
    for uniform, arrays in zip(coupling.uniforms, tables, strict=True):
        parted = np.any([(atom[rows] != atom[rows[:, :1]]).any(1) for rows in arrays], axis=0)
        if arrays[0].shape[0] == 1 or not parted.any():
            continue  # one row; or rows that are picked whole already
        salts: Ids = generator.integers(1, 2**61, size=(arrays[0].shape[0],), dtype=np.int64)
        marks = [_rows_of(channels[parted], salts[parted]) for channels in arrays if channels.shape[1] > 1]
        if not uniform.rows_stay and marks and _crosses(coupling, label, marks):
            _pick_whole(coupling, atom, arrays)
            continue
        for channels, mark in marks:
            label[channels] += mark
    bound = _with_copies(coupling, atom)
    cell = np.zeros(coupling.n_channels, np.int64)
    np.add.at(cell, atom, label)
    return atom, cell[atom], bound


def _heads(coupling: Coupling, tables: Sequence[Sequence[Ids]]) -> Ids:
    """One atom for each row that one channel stands for in some array, and for each row of a grid, `[n_channels]`.

    Rows that can none of them go become narrower instead, and so do rows that all share a weight's channels (one key
    head for all query heads, which would stay whole): these are left apart, but for the columns of grids.
    """
    rows_of: list[Ids] = []
    edges: list[tuple[Ids, Ids]] = []
    for uniform, arrays in zip(coupling.uniforms, tables, strict=True):
        lonely = [rows for rows in arrays if rows.shape[1] == 1]
        if not uniform.rows_stay and lonely and len(lonely) < len(arrays):
            rows_of.append(lonely[0].ravel())
            edges += [(np.broadcast_to(lonely[0], rows.shape).ravel(), rows.ravel()) for rows in arrays]
    grids = [[coupling.channel_of[ids].ravel() for ids in (o.rows, o.columns, o.cells)] for o in coupling.outers]
    grids = [grid for grid in grids if coupling.following[grid[0]].all()]
    rows_of += [rows for rows, _, _ in grids]
    edges += [(rows, cells) for rows, _, cells in grids]
    head = _joined(coupling, edges)
    stuck, narrow, weighty = np.zeros((3, coupling.n_channels), bool)
    stuck[_stuck(coupling, tables, head)] = True
    weighty[_handed_out(coupling)] = True
    for rows in rows_of:
        narrow[head[rows]] |= stuck[head[rows]].all()
    for rows, columns, _ in grids:
        shared = _met_by_all(columns, head[rows])
        narrow[head[rows]] |= (weighty[shared] & (coupling.pin_of[shared] < 0)).any()
    apart = narrow[head]
    edges = [(left[~apart[left]], right[~apart[left]]) for left, right in edges]
    return _joined(coupling, edges + [(columns, cells) for _, columns, cells in grids if apart[cells].all()])


def _stuck(coupling: Coupling, tables: Sequence[Sequence[Ids]], head: Ids) -> Ids:
    """Heads that cannot go: those with a pinned channel, or with all that a row has that stays (a conv group)."""
    pinned = coupling.pin_of >= 0
    found = [head[pinned]]
    for uniform, arrays in zip(coupling.uniforms, tables, strict=True):
        stays = np.any([pinned[channels].any(1) for channels in arrays], axis=0) | uniform.rows_stay
        for channels in (array for array in arrays if stays.any() and array.size):
            whole = stays & (head[channels] == head[channels[:, :1]]).all(1)
            found.append(head[channels[whole, 0]])
    return np.concatenate(found)


def _joined(coupling: Coupling, edges: Sequence[tuple[Ids, Ids]]) -> Ids:
    """The first channel of all that some edges join, `[n_channels]`."""
    left, right = (np.concatenate([edge[side] for edge in edges] or [np.empty(0, np.int64)]) for side in (0, 1))
    shape = (coupling.n_channels, coupling.n_channels)
    count, part = connected_components(coo_array((np.ones(left.size, np.int8), (left, right)), shape), directed=False)
    first = np.full(count, coupling.n_channels, np.int64)
    np.minimum.at(first, part, np.arange(coupling.n_channels))
    joined: Ids = first[part]
    return joined


def _handed_out(coupling: Coupling) -> Ids:
    """The channels that contractions with a weight hand out: gains and tables of angles are no loss."""
    rows = [use.rows.ravel() for use in coupling.uses if use.weight is not None and use.rows is not None]
    found: Ids = coupling.channel_of[np.concatenate([*rows, np.empty(0, np.int64)])]
    return found


def _met_by_all(columns: Ids, rows: Ids) -> Ids:
    """The columns of a grid that have a cell in every row, where there are several rows."""
    pairs = distinct(columns * (rows.max(initial=0) + 1) + rows)
    met, count = np.unique(pairs // (rows.max(initial=0) + 1), return_counts=True)
    here = distinct(rows).size
    by_all: Ids = met[(count == here) & (here > 1)]
    return by_all


def _pick_whole(coupling: Coupling, atom: Ids, arrays: Sequence[Ids]) -> None:
    """Make one atom of each row; changes `atom`."""
    for rows in zip(*arrays, strict=True):
        together = np.isin(atom, atom[np.concatenate(rows)])
        atom[together] = atom[together].min(initial=coupling.n_channels)


def _with_copies(coupling: Coupling, atom: Ids) -> Bools:
    """A row or column of a grid is picked with its cells where these are picked together (changes `atom`).

    Returns those that are not: they go when their cells have, and are not picked themselves, `[n_channels]`.
    """
    bound = np.zeros(coupling.n_channels, bool)
    for outer in coupling.outers:
        cells = coupling.channel_of[outer.cells].ravel()
        for side in (outer.rows, outer.columns):
            factors = coupling.channel_of[side].ravel()
            order = np.argsort(factors, kind="stable")
            starts = np.flatnonzero(np.append(True, factors[order][1:] != factors[order][:-1]))
            picked = atom[cells[order]]
            low, high = np.minimum.reduceat(picked, starts), np.maximum.reduceat(picked, starts)
            whole = low == high
            atom[factors[order][starts][whole]] = low[whole]
            bound[factors[order][starts][~whole]] = True
    return bound


def _rows_of(channels: Ids, salts: Ids) -> tuple[Ids, Ids]:
    """`(channels that lie in one row only, a mark of that row)`; rows that are alike (of a batch) are one."""
    if channels.size > np.unique(channels).size:
        channels, first = np.unique(channels, axis=0, return_index=True)
        salts = salts[first]
    rows = np.broadcast_to(np.arange(channels.shape[0])[:, None], channels.shape)
    pairs = np.unique(np.stack([channels.ravel(), rows.ravel()]), axis=1)
    inside, first, count = np.unique(pairs[0], return_index=True, return_counts=True)
    return inside[count == 1], salts[pairs[1][first[count == 1]]]


def _crosses(coupling: Coupling, label: Ids, marks: list[tuple[Ids, Ids]]) -> bool:
    """Whether these rows would leave no cell with two channels, where there are such now."""
    for channels, mark in marks:
        group = coupling.group_of[channels]
        before = np.unique(np.stack([group, label[channels]]), axis=1).shape[1]
        after = np.unique(np.stack([group, label[channels] + mark]), axis=1).shape[1]
        if before < after == channels.size:
            return True
    return False
