from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

from surgery.deciding.importance import importance_scores
from surgery.deciding.pick import Ranking
from surgery.deciding.steps import Limits, Steps, protected
from surgery.deciding.study import Study
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.masks import bake


def study() -> Study:
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.GELU(), nn.Linear(12, 3))
    return Study.of(bake(model), Inputs.of(torch.randn(2, 6)))


STUDY = study()
GROUPS = {
    width: int(STUDY.coupling.group_of[STUDY.coupling.channel_of[STUDY.coupling.axes[name, 0].ids[0]]])
    for width, name in ((16, "0.weight"), (12, "2.weight"))
}
RANKING = Ranking.of(STUDY.coupling, importance_scores(STUDY, "l2"))


def widths(steps: Steps, count: int) -> tuple[int, int]:
    shares = steps.shares(count)
    return tuple(round(width * (1 - shares[group])) for width, group in GROUPS.items())  # type: ignore[return-value]


def test_all_groups_narrow_by_the_same_share_down_to_one_channel() -> None:
    steps = Steps.of(RANKING, Limits())
    assert len(steps.group) == 15 + 11
    for count in range(len(steps.group) + 1):
        wide, narrow = widths(steps, count)
        assert abs(wide / 16 - narrow / 12) <= 1 / 12 + 1e-9
    assert widths(steps, len(steps.group)) == (1, 1)


@pytest.mark.parametrize(
    ("limits", "smallest"),
    [(Limits(4), (4, 4)), (Limits(5), (5, 5)), (Limits(1, 3), (3, 3)), (Limits(1, 0.5), (8, 6)), (Limits(4, 5), (8, 8)),
     (Limits(100), (16, 12)), (Limits(1, 14), (14, 12))],
)  # fmt: skip
def test_widths_are_as_the_limits_say(limits: Limits, smallest: tuple[int, int]) -> None:
    steps = Steps.of(RANKING, limits, global_=True)
    assert widths(steps, len(steps.group)) == smallest
    for count in range(len(steps.group)):
        for width, whole in zip(widths(steps, count), (16, 12), strict=True):
            assert width == whole or width % limits.round_to == 0


def test_one_order_over_all_groups_is_by_scores_over_the_mean_of_their_group() -> None:
    scores = importance_scores(STUDY, "l2")
    steps = Steps.of(RANKING, Limits(), global_=True)
    relative = []
    for group in GROUPS.values():
        own = np.sort(scores[STUDY.coupling.group_of == group])
        relative += [(score / own.mean(), group) for score in own[:-1]]
    assert steps.group.tolist() == [group for _, group in sorted(relative)]


def test_stops_are_where_all_groups_have_come_as_far() -> None:
    steps = Steps.of(RANKING, Limits(4), together=True)
    assert [widths(steps, int(stop)) for stop in steps.stops] == [(16, 12), (12, 12), (12, 8), (8, 8), (8, 4), (4, 4)]


def test_a_step_back_is_the_width_before() -> None:
    steps = Steps.of(RANKING, Limits(4))
    shares = steps.shares(len(steps.group))
    for _ in range(3):
        shares = steps.back(shares, GROUPS[16])
    assert shares[GROUPS[16]] == 0
    assert shares[GROUPS[12]] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0, 1), "round_to is 0"), ((1, 0), "min_keep is 0"), ((1, 1.5), "min_keep is 1.5"),
        ((1, 0.0), "min_keep is 0.0"), ((1, True), "min_keep is True"),
    ],
)  # fmt: skip
def test_limits_out_of_range_are_refused(settings: tuple[int, float], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Limits(*settings)


@pytest.mark.parametrize(
    ("names", "held"),
    [
        (["0"], {"0.weight:0", "0.weight:1", "2.weight:1"}),
        (["2.weight"], {"0.weight:0", "2.weight:0", "2.weight:1", "4.weight:1"}),
        ("4.*", {"2.weight:0", "4.weight:0", "4.weight:1"}),
        (["[24]"], {"0.weight:0", "2.weight:0", "2.weight:1", "4.weight:0", "4.weight:1"}),
        (["1"], set()),
        ([], set()),
    ],
)
def test_what_is_protected_keeps_its_shapes(names: list[str] | str, held: set[str]) -> None:
    channels = protected(STUDY.model, STUDY.coupling, names)
    axes = STUDY.coupling.axes.values()
    whole = {str(a) for a in axes if "weight" in a.name and channels[STUDY.coupling.channel_of[a.ids]].all()}
    assert whole == held


def test_a_name_that_nothing_has_is_told_with_near_ones() -> None:
    model = nn.Sequential()
    model.add_module("encoder", nn.Linear(3, 4))
    model.add_module("head", nn.Linear(4, 2))
    coupling = Study.of(model, Inputs.of(torch.randn(2, 3))).coupling
    told = "protect names 'encodr', which Sequential has not\n  -> did you mean encoder"
    with pytest.raises(InputError, match=re.escape(told)):
        protected(model, coupling, ["head", "encodr"])
    with pytest.raises(InputError, match=re.escape("-> it has encoder, head")):
        protected(model, coupling, ["zzz*"])
