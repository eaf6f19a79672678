from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from surgery.deciding.pick import Ranking
from surgery.deciding.steps import Limits
from surgery.deciding.study import Study
from surgery.inputs import Inputs
from surgery.targeting.aiming import readers_of
from surgery.targeting.loss import Widths


def ranking() -> tuple[Study, Ranking]:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    study = Study.of(net.eval(), Inputs.of(torch.randn(3, 4)))
    scores = np.full(study.coupling.n_channels, np.nan)
    for name, size in (("0.weight", 6), ("2.weight", 8)):
        axis = study.coupling.axes[name, 0]
        scores[study.coupling.channel_of[axis.ids]] = np.arange(1, size + 1)
    return study, Ranking.of(study.coupling, scores)


def test_a_group_loses_the_log_of_what_stays_of_its_worth() -> None:
    _, found = ranking()
    widths = Widths.of(found, Limits(), np.ones(found.sizes.size))
    for size in (6, 8):
        (group,) = (g for g in np.unique(widths.group) if found.sizes[g] == size)
        own = widths.group == group
        assert widths.kept[own].tolist() == list(range(size, 0, -1))
        total = size * (size + 1) / 2
        gone = np.append(0, np.cumsum(np.arange(1, size)))
        np.testing.assert_allclose(widths.loss[own], -np.log(1 - gone / total))
        np.testing.assert_allclose(found.total[group], total)


def test_weights_scale_it_and_limits_leave_widths_out() -> None:
    _, found = ranking()
    widths = Widths.of(found, Limits(4, 2), np.full(found.sizes.size, 3.0))
    eight = widths.group == next(g for g in np.unique(widths.group) if found.sizes[g] == 8)
    assert widths.kept[eight].tolist() == [8, 4]
    assert widths.loss[eight][1] == pytest.approx(-3 * np.log(1 - 10 / 36))


def test_who_reads_a_group_is_counted() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.right = nn.Linear(3, 5), nn.Linear(5, 2), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x).relu()
            out: torch.Tensor = self.left(x) + self.right(x)
            return out

    study = Study.of(Two().eval(), Inputs.of(torch.randn(2, 3)))
    axis = study.coupling.axes["first.weight", 0]
    group = study.coupling.group_of[study.coupling.channel_of[axis.ids]][0]
    assert readers_of(study)[group] == 2
