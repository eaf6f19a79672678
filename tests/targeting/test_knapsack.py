from __future__ import annotations

import itertools

import numpy as np
import pytest

from surgery.targeting.knapsack import cheapest
from surgery.targeting.loss import Widths
from surgery.targeting.table import Table


def instance(seed: int, groups: int = 4, options: int = 5) -> tuple[Widths, Table]:
    """Groups whose widths lose ever more for ever less, as they do."""
    generator = np.random.default_rng(seed)
    loss = np.cumsum(np.sort(generator.uniform(0, 1, (groups, options)), axis=1), axis=1)
    loss[:, 0] = 0
    change = -np.cumsum(generator.uniform(0, 0.05, (groups, options)), axis=1)
    change -= change[:, 2:3]
    share = np.tile(np.linspace(0, 0.8, options), groups)
    group = np.repeat(np.arange(groups), options)
    widths = Widths(group, share, (100 * (1 - share)).astype(np.int64), loss.ravel())
    return widths, Table(0.6, change.ravel(), 0)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("latency", [0.45, 0.55, 0.65])
def test_within_the_latency_and_off_the_best_by_less_than_a_step(seed: int, latency: float) -> None:
    widths, table = instance(seed)
    of = [np.flatnonzero(widths.group == group) for group in range(4)]
    picked = cheapest(widths, table, latency)
    assert (widths.group[picked] == np.arange(4)).all()
    fitting = [
        sum(widths.loss[place] for place in places)
        for places in itertools.product(*of)
        if table.base + sum(table.change[place] for place in places) <= latency
    ]
    if not fitting:
        assert table.change[picked].sum() == pytest.approx(sum(table.change[places].min() for places in of))
        return
    assert table.base + table.change[picked].sum() <= latency + 1e-9
    step = max(np.diff(widths.loss[places]).max() for places in of)
    assert min(fitting) - 1e-9 <= widths.loss[picked].sum() <= min(fitting) + step


def test_blocks_that_are_all_alike_take_no_time() -> None:
    """An integer program searches among equal choices for minutes."""
    options, groups = 190, 48
    share = np.linspace(0, 0.99, options)
    kept = (1536 * (1 - share)).astype(np.int64)
    widths = Widths(
        np.repeat(np.arange(groups), options), np.tile(share, groups), np.tile(kept, groups),
        np.tile(-np.log(1 - share), groups),
    )  # fmt: skip
    table = Table(0.5, np.tile((0.5 - share) / groups, groups), 0)
    picked = cheapest(widths, table, 0.5)
    assert np.ptp(widths.share[picked]) <= 0.0106  # all alike, but for the one between two widths
    assert table.base + table.change[picked].sum() == pytest.approx(0.5, abs=1e-3)


def test_what_loses_nothing_goes_as_far_as_it_helps() -> None:
    group, share = np.array([0, 0, 1, 1]), np.array([0, 0.5, 0, 0.5])
    widths = Widths(group, share, np.array([8, 4, 8, 4]), np.array([0.0, 0.0, 0.0, 1.0]))
    assert cheapest(widths, Table(1.0, np.array([0, -0.3, 0, -0.3]), 0), 0.9).tolist() == [1, 2]
