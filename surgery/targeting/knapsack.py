"""The knapsack: of all widths of all groups those that lose least within a latency."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

from surgery.errors import CheckError
from surgery.layout import Ids
from surgery.targeting.loss import Widths
from surgery.targeting.table import Table

CERTAIN = 1e-6
"""How far from 0 and 1 the solver's numbers may be off for their rounding."""


def cheapest(widths: Widths, table: Table, latency: float) -> Ids:
    """One width for each group, such that all together lose least and are predicted to take no more than `latency`.

    The linear program of a multiple-choice knapsack (Sinha and Zoltners 1979; for pruning Shen et al. 2022, Structural
    pruning via latency-saliency knapsack). Its optimum lies between two widths in one group at most; that group takes
    the faster one, and what room is left is filled. The integer program wins little more, and where blocks are alike
    it takes minutes.

    Args:
        widths: All widths of all groups.
        table: What each saves.
        latency: A share of the dense model's latency.

    Returns:
        The places of the widths, one for each group; the fastest, where nothing fits.

    Raises:
        CheckError: The solver failed.
    """
    groups, of = np.unique(widths.group, return_inverse=True)
    count = widths.group.size
    order = np.lexsort((table.change, of))
    fastest: Ids = order[np.searchsorted(of[order], np.arange(groups.size))]
    room = latency - table.base
    if room <= table.change[fastest].sum():
        return fastest
    scale = max(float(widths.loss.max(initial=0)), np.finfo(float).tiny)
    solved = linprog(
        widths.loss / scale - TIES * table.change,
        A_ub=table.change[None, :],
        b_ub=[room],
        A_eq=coo_array((np.ones(count), (of, np.arange(count))), (groups.size, count)),
        b_eq=np.ones(groups.size),
        bounds=(0, None),
        method="highs",
    )
    if solved.x is None:
        raise CheckError(
            f"no widths were found for {latency:.1%} of the latency: {solved.message}", "give a budget of MACs"
        )
    part = np.flatnonzero(solved.x > CERTAIN)
    part = part[np.lexsort((table.change[part], of[part]))]  # the faster of two comes first
    picked: Ids = part[np.searchsorted(of[part], np.arange(groups.size))]
    return _filled(picked, widths, table, of, room)


def _filled(picked: Ids, widths: Widths, table: Table, of: Ids, room: float) -> Ids:
    """The widths with what room there is used, for what wins most of it."""
    picked = picked.copy()
    while True:
        slower = table.change - table.change[picked][of]
        won = np.where(slower <= room - table.change[picked].sum(), widths.loss[picked][of] - widths.loss, 0.0)
        best = int(won.argmax())
        if won[best] <= 0:
            return picked
        picked[of[best]] = best


TIES = 1e-7
"""Of widths that lose the same (nothing, say) the wider is taken: no more goes than the latency asks for."""
