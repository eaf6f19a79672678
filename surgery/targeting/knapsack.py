"""The knapsack: of all widths of all groups those that lose least within a latency."""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array, vstack

from surgery.errors import InputError
from surgery.layout import Ids
from surgery.targeting.loss import Widths
from surgery.targeting.table import Table

SECONDS = 20.0
"""The longest that the solver looks for something better; what it has by then differs by less than anyone measures."""

GAP = 1e-4
"""How far from the best possible loss, over it, is good enough."""


def cheapest(widths: Widths, table: Table, latency: float) -> Ids:
    """One width for each group, such that all together lose least and are predicted to take no more than `latency`.

    A multiple-choice knapsack, solved as a mixed-integer linear program by HiGHS (Shen et al. 2022, Structural pruning
    via latency-saliency knapsack). Where nothing fits, the fastest.

    Args:
        widths: All widths of all groups.
        table: What each saves.
        latency: A share of the dense model's latency.

    Returns:
        The places of the widths, one for each group.

    Raises:
        InputError: The solver gave up.
    """
    groups, of = np.unique(widths.group, return_inverse=True)
    count = widths.group.size
    one_each = coo_array((np.ones(count), (of, np.arange(count))), (groups.size, count))
    room = latency - table.base
    order = np.lexsort((table.change, of))
    fastest: Ids = order[np.searchsorted(of[order], np.arange(groups.size))]
    if room <= table.change[fastest].sum():
        return fastest
    within = coo_array(table.change[None, :])
    limits = LinearConstraint(
        vstack([one_each, within], format="csr"),
        np.append(np.ones(groups.size), -np.inf),
        np.append(np.ones(groups.size), room),
    )
    # of widths that lose the same (nothing), the fastest
    scale = max(float(widths.loss.max(initial=0)), np.finfo(float).tiny)
    cost = widths.loss / scale + 1e-7 * table.change
    solved = milp(
        cost,
        integrality=np.ones(count),
        bounds=Bounds(0, 1),
        constraints=limits,
        options={"mip_rel_gap": GAP, "time_limit": SECONDS},
    )
    if solved.x is None:
        raise InputError(f"no widths were found within {latency:.1%}: {solved.message}", "ask for a larger round_to")
    picked: Ids = np.flatnonzero(solved.x > 0.5)
    return picked
