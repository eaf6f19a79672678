"""Picking: the channels with the lowest scores, so many of each group, in patterns that rectangles allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from surgery.coupling import Coupling
from surgery.deciding.atoms import atoms_of
from surgery.layout import Bools, Ids

Floats = npt.NDArray[np.float64]

CLOSE = 1e-9
"""How far a share may be off for its rounding."""


@dataclass(frozen=True)
class Ranking:
    """Everything that can be picked, and the order in which it goes.

    Attributes:
        coupling: The coupling.
        atom_of: For every channel the one that stands for all that are picked with it, `[n_channels]`.
        sizes: Channels of each group, `[n_groups]`.
        atoms: What can be picked, by such channels, `[n_atoms]`.
        group: Its group, `[n_atoms]`.
        share: The share of its cell that is gone when it goes, above 0 and at most 1, `[n_atoms]`.
        cell: How many atoms its cell holds, `[n_atoms]`.
        width: How many channels of its own group it holds, `[n_atoms]`.
        score: Its score beside those of other groups: the mean over its channels, of scores whose mean over each group
            is 1; of comparable ones as they are, `[n_atoms]`.
        worth: The sum of the scores of all its channels as they were given, `[n_atoms]`.
        total: Of each group the worth of all its atoms, those that stay included, `[n_groups]`.
        comparable: Whether scores of different groups can be held against each other as they were given.
    """

    coupling: Coupling
    atom_of: Ids
    sizes: Ids
    atoms: Ids
    group: Ids
    share: Floats
    cell: Ids
    width: Ids
    score: Floats
    worth: Floats
    total: Floats
    comparable: bool = False

    @staticmethod
    def of(coupling: Coupling, scores: Floats, held: Bools | None = None, *, comparable: bool = False) -> Ranking:
        """The ranking by some scores.

        Args:
            coupling: The coupling.
            scores: One per channel, bigger is kept; NaN: no opinion, and what nobody has one of stays, `[n_channels]`.
            held: Channels that have to stay, `[n_channels]`; those that are pinned do anyway.
            comparable: Whether scores of different groups can be held against each other as they are.
        """
        n = coupling.n_channels
        atom_of, cells, bound = atoms_of(coupling)
        real = ~coupling.virtual & ~bound
        members = np.flatnonzero(real)
        n_groups = int(coupling.group_of.max(initial=-1)) + 1
        sizes = np.bincount(coupling.group_of[members], minlength=n_groups)
        atoms = np.unique(atom_of[members])
        scored = members[~np.isnan(scores[members])]
        total = np.bincount(atom_of[scored], scores[scored], n)
        # an atom with a channel that stays, stays; and one that nobody scored
        free = np.bincount(atom_of[scored], minlength=n) > 0
        free[atom_of[coupling.pin_of >= 0]] = False
        if held is not None:
            free[atom_of[held]] = False
        # one key per (group, cell); the same share of every cell goes
        _, cell_of = np.unique(np.stack([coupling.group_of[atoms], cells[atoms]]), axis=1, return_inverse=True)
        cell_of = cell_of.ravel()
        order = np.lexsort((total[atoms], cell_of))
        order = order[free[atoms[order]]]
        cell_sizes = np.bincount(cell_of, minlength=1)
        starts = np.searchsorted(cell_of[order], np.arange(cell_sizes.size))
        rank = np.arange(order.size) - starts[cell_of[order]]
        picked, cell = atoms[order], cell_sizes[cell_of[order]]
        own = members[coupling.group_of[members] == coupling.group_of[atom_of[members]]]
        alike = scores[scored] if comparable else _alike(coupling.group_of, scores, scored, sizes)
        count = np.bincount(atom_of[scored], minlength=n)
        return Ranking(
            coupling=coupling,
            atom_of=atom_of,
            sizes=sizes,
            atoms=picked,
            group=coupling.group_of[picked],
            share=(rank + 1) / cell,
            cell=cell,
            width=np.bincount(atom_of[own], minlength=n)[picked],
            score=np.bincount(atom_of[scored], alike, n)[picked] / np.maximum(count[picked], 1),
            worth=total[picked].astype(np.float64),
            total=np.bincount(coupling.group_of[atoms], np.maximum(total[atoms], 0), n_groups).astype(np.float64),
            comparable=comparable,
        )

    def chosen(self, shares: Floats, taken: Bools | None = None) -> Bools:
        """The channels that go where these shares of the groups do, `[n_channels]`.

        Args:
            shares: By group; every cell gives up as many whole atoms as fit into its share, `[n_groups]`.
            taken: Channels that will stay although they are chosen (carriers), `[n_channels]`: so many more go, of all
                but the last.
        """
        if taken is not None:
            more = np.bincount(self.coupling.group_of[taken], minlength=self.sizes.size)
            sizes = np.maximum(self.sizes, 1)
            shares = np.minimum(shares + more / sizes, (sizes - 1) / sizes)
        going = self.share * self.cell <= shares[self.group] * self.cell + CLOSE
        chosen: Bools = np.isin(self.atom_of, self.atoms[going]) & ~self.coupling.virtual
        return chosen


def _alike(group_of: Ids, scores: Floats, scored: Ids, sizes: Ids) -> Floats:
    """The scores of some channels over the mean of their group's."""
    groups = group_of[scored]
    total = np.bincount(groups, np.abs(scores[scored]), sizes.size)
    mean = total / np.maximum(np.bincount(groups, minlength=sizes.size), 1)
    alike: Floats = scores[scored] / np.where(mean > 0, mean, 1.0)[groups]
    return alike


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
    ranking = Ranking.of(coupling, scores)
    sizes = ranking.sizes
    keep = np.maximum(np.ceil(sizes * keep_ratio - CLOSE).astype(np.int64), 1)
    keep = np.minimum(-(-keep // round_to) * round_to, sizes)
    return ranking.chosen((sizes - keep) / np.maximum(sizes, 1), taken)
