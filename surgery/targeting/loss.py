"""What narrowing a group is taken to cost, in a measure that groups can be compared by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surgery.deciding.pick import CLOSE, Floats, Ranking
from surgery.deciding.steps import Limits, Steps
from surgery.layout import Ids


@dataclass(frozen=True)
class Widths:
    """Every width that every group can have, the whole group first.

    Attributes:
        group: The group, `[n_widths]`.
        share: The share of it that is gone, `[n_widths]`.
        kept: The channels that stay, `[n_widths]`.
        loss: What that costs, `[n_widths]`.
    """

    group: Ids
    share: Floats
    kept: Ids
    loss: Floats

    @staticmethod
    def of(ranking: Ranking, limits: Limits, weight: Floats) -> Widths:
        """The widths that some limits allow.

        The loss of a group is -log of the share of its importance that stays, times its weight. Where little goes, that
        is the share that goes; a group of which nearly nothing is left costs more than many that each give up a little.
        Of comparable scores it is the sum of those that go, as they are.

        Args:
            ranking: What can be picked, and what it is worth within its group.
            limits: What the widths have to be.
            weight: What all of a group is worth, `[n_groups]`.
        """
        steps = Steps.of(ranking, limits)
        groups = np.unique(steps.group)
        group, share = np.append(groups, steps.group), np.append(np.zeros(groups.size), steps.share)
        order = np.lexsort((share, group))
        group, share = group[order], share[order]
        kept, loss = np.zeros(group.size, np.int64), np.zeros(group.size)
        for one in groups:
            inside = ranking.group == one
            by_share = np.argsort(ranking.share[inside], kind="stable")
            gone = np.cumsum(np.append(0.0, np.maximum(ranking.worth[inside][by_share], 0)))
            channels = np.cumsum(np.append(0, ranking.width[inside][by_share]))
            here = group == one
            until = np.searchsorted(ranking.share[inside][by_share], share[here] + CLOSE, side="right")
            kept[here] = ranking.sizes[one] - channels[until]
            left = 1 - gone[until] / max(ranking.total[one], gone[-1], np.finfo(float).tiny)
            worth = -np.log(np.maximum(left, NOTHING_LEFT)) * weight[one]
            loss[here] = gone[until] if ranking.comparable else worth
        return Widths(group, share, kept, loss)

    def shares(self, picked: Ids, n_groups: int) -> Floats:
        """The share of every group that is gone at these widths, one of each group, `[n_groups]`."""
        shares = np.zeros(n_groups)
        shares[self.group[picked]] = self.share[picked]
        return shares


NOTHING_LEFT = 1e-6
"""The share of its importance that a group has left, at least, whose last channels score nothing."""
