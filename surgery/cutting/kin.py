"""Which units may stand for each other in a slim program, though they are not of one channel."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from surgery.coupling import Coupling
from surgery.layout import Bools, Ids, distinct


class Kin:
    """Which units may stand for each other: those of one channel, and a copy or a cell for what it is a copy of."""

    def __init__(self, coupling: Coupling, channel: Ids) -> None:
        self.channel, self.coupling = channel, coupling

    def same(self, a: Ids, b: Ids) -> bool:
        """Whether the units at all positions may stand for each other (broadcast)."""
        left, right = np.broadcast_arrays(self.channel[a], self.channel[b])
        apart = (left != right) & (left >= 0) & (right >= 0)
        if not apart.any():
            return True
        n = self.coupling.n_channels
        left, right = left[apart].astype(np.int64), right[apart].astype(np.int64)
        one_head = (self.heads[left] == self.heads[right]) & (self.heads[left] >= 0)
        return bool((one_head | self._paired(left * n + right) | self._paired(right * n + left)).all())

    def _paired(self, keys: Ids) -> Bools:
        """Which keys are among the pairs, which are in order: there are many, and this is asked at every op."""
        if not self.pairs.size:
            return np.zeros(keys.shape, bool)
        at = np.minimum(np.searchsorted(self.pairs, keys), self.pairs.size - 1)
        paired: Bools = self.pairs[at] == keys
        return paired

    @cached_property
    def heads(self) -> Ids:
        """For channels that are whole rows, which row, by all tables that have such rows; -1 for others.

        Where one head is left, the widths of its parts meet, which the heads of all kept apart.
        """
        of, n = self.coupling.channel_of, self.coupling.n_channels
        found = [(of[row.ravel()], of[table[:, 0]]) for row, table in self._rows if table.shape[1] > 1]
        rows, tables = (np.concatenate([*(pair[i] for pair in found), np.empty(0, np.int64)]) for i in (0, 1))
        graph = coo_array((np.ones(rows.size, np.int8), (rows, n + tables)), shape=(2 * n, 2 * n))
        heads = np.full(n, -1, np.int64)
        heads[rows] = connected_components(graph, directed=False)[1][rows]
        return heads

    @cached_property
    def _rows(self) -> list[tuple[Ids, Ids]]:
        """Units of rows, `[rows, 1]`, and what is as many rows."""
        return [
            (lonely, array)
            for uniform in self.coupling.uniforms
            for lonely in uniform.arrays
            if lonely.shape[1] == 1 and lonely.shape[0] > 1
            for array in uniform.arrays
        ]

    @cached_property
    def pairs(self) -> Ids:
        """`child * n_channels + parent` of every cell and copy, and of everything in a row and the unit of the row."""
        of, n = self.coupling.channel_of, self.coupling.n_channels
        found = [of[made.copies].ravel() * n + of[made.originals].ravel() for made in self.coupling.copies]
        for outer in self.coupling.outers:
            found += [of[outer.cells].ravel() * n + of[side].ravel() for side in (outer.rows, outer.columns)]
        for row, table in self._rows:
            found.append(of[table].ravel() * n + np.broadcast_to(of[row], table.shape).ravel())
        return distinct(np.concatenate([*found, np.empty(0, np.int64)]))
