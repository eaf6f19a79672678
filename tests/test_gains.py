"""What aligning is said to free is what it frees: to the parameter and to the MAC."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import surgery
from surgery import gains
from tests import nets
from tests.deciding.test_stranded import Branches
from tests.test_aligning_rectangles import Grouped, Inverted

X = nets.image()


def residual() -> nn.Module:
    net = nets.lively(nets.Residual())
    return nets.zero_rows_(net, stem=[0, 2, 3, 4, 5, 6], a2=[0, 1, 2, 3, 4, 5], b2=[0, 1, 2, 6, 7, 8], a1=[1, 2])


def assert_promise_kept(net: nn.Module, x: Tensor) -> gains.Gains:
    """The totals against the real thing: mask, shrink, count."""
    told = surgery.analyze(net, x).aligning
    assert told is not None
    alone = surgery.shrink(net, x, prove=False, keep_class=True)
    assert (told.params, told.macs) == (alone.params_after, alone.macs_after)
    for agreement in ("any", "average"):
        plan = surgery.align(net, x, agreement=agreement)
        real = surgery.shrink(plan.mask(net), x, prove=False, keep_class=True)
        gain = getattr(told, agreement)
        assert gain.params == alone.params_after - real.params_after
        assert gain.macs == alone.macs_after - real.macs_after
    return told


def test_closed_form_of_two_branches() -> None:
    """Each channel: 2 x (3 weights and a bias), 2 columns of the head; at 9 x 9 and batch 2, 162 positions."""
    net = nets.zero_rows_(nets.lively(Branches()), left=[0, 1, 2, 3], right=[0, 4])
    told = assert_promise_kept(net, X)
    assert told.any == gains.Gain(4, 4 * (2 * 4 + 2), 4 * 162 * (3 + 3 + 2))
    assert told.average == gains.Gain(2, 2 * (2 * 4 + 2), 2 * 162 * (3 + 3 + 2))
    (alone,) = told.groups
    assert (alone.name, alone.params, alone.macs) == ("left.weight", told.any.params, told.any.macs)


@pytest.mark.parametrize(
    "make",
    [
        residual,
        lambda: nets.zero_rows_(nets.lively(Inverted()), expand=[0, 1, 5], depthwise=[1, 5, 6]),
        lambda: nets.zero_rows_(nets.lively(Grouped()), left=[0, 1, 4], right=[2]),
        lambda: nets.zero_rows_(nets.lively(Branches()), left=range(6), right=[1]),
    ],
)
def test_the_promise_is_kept(make: Callable[[], nn.Module]) -> None:
    assert_promise_kept(make(), X)


def test_each_group_alone_is_what_it_frees_alone() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.high = Branches(), Branches()
            self.low.head = nn.Conv2d(6, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.high(self.low(x))

    def masked() -> nn.Module:
        rows = {"low__left": [0, 1], "low__right": [2], "high__left": [0, 1, 2], "high__right": [3, 4]}
        return nets.zero_rows_(nets.lively(Two()), **rows)

    net = masked()
    told = assert_promise_kept(net, X)
    assert [group.name for group in told.groups] == ["high.left.weight", "low.left.weight"], "the largest first"
    before = surgery.shrink(net, X, prove=False, keep_class=True)
    for group, rows in zip(told.groups, ({"high": range(5)}, {"low": range(3)}), strict=True):
        by_hand = masked()
        for name, both in rows.items():
            nets.zero_rows_(by_hand, **{f"{name}__left": both, f"{name}__right": both})
        after = surgery.shrink(by_hand, X, prove=False, keep_class=True)
        assert group.params == before.params_after - after.params_after
        assert group.macs == before.macs_after - after.macs_after


def test_code_that_cannot_run_narrower_frees_nothing() -> None:
    class Literal(Branches):
        def forward(self, x: Tensor) -> Tensor:
            y = self.left(x) + self.right(x)
            return self.head(y.view(x.shape[0], 6, 9, 9))

    told = assert_promise_kept(nets.zero_rows_(nets.lively(Literal()), left=[0, 1], right=[0]), X)
    assert (told.any.params, told.any.macs) == (0, 0)
    assert [(group.params, group.macs) for group in told.groups] == [(0, 0)]


def test_code_that_would_silently_compute_something_else_frees_nothing() -> None:
    class Scaled(Branches):
        def forward(self, x: Tensor) -> Tensor:
            y = self.left(x) + self.right(x)
            return self.head(y * y.shape[1] ** -0.5)

    told = assert_promise_kept(nets.zero_rows_(nets.lively(Scaled()), left=[0, 1], right=[0]), X)
    assert [(group.params, group.macs) for group in told.groups] == [(0, 0)]


def test_where_nothing_disagrees_there_is_nothing_to_gain() -> None:
    assert surgery.analyze(nets.lively(Branches()), X).aligning is None
    net = nets.zero_rows_(nets.lively(Branches()), left=[0], right=[0])
    assert surgery.analyze(net, X).aligning is None


def test_many_groups_are_not_all_tried_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gains, "GROUPS_TRIED", 0)
    net = nets.zero_rows_(nets.lively(Branches()), left=[0, 1, 2, 3], right=[0, 4])
    told = assert_promise_kept(net, X)
    assert (told.groups, told.untried) == ((), 1)
    assert told.any.channels == 4


def test_the_report_of_an_analysis_says_it_all() -> None:
    net = nets.zero_rows_(nets.lively(Branches()), left=[0, 1, 2, 3], right=[0, 4])
    text = str(surgery.analyze(net, X))
    for line in (
        "4 stranded channels in 1 group: zeroed in some layer, and still here",
        "  left.weight: 4 of 6 channels are stranded",
        "    right.weight keeps 3 of 6 channels alive",
        "    left.weight keeps 1 of 6 channels alive",
        "    aligned alone: 40 parameters (76.9 %) and 5,184 macs (80.0 %), 4 channels",
        "  average (as many channels as the layers zeroed on average): 20 parameters (38.5 %) and 2,592 macs (40.0 %), "
        "2 channels",
        "  any (every channel that any layer zeroed): 40 parameters (76.9 %) and 5,184 macs (80.0 %), 4 channels",
    ):
        assert f"{line}\n" in text, line


def test_shrink_points_to_it() -> None:
    net = nets.zero_rows_(nets.lively(Branches()), left=[0, 1, 2, 3], right=[0, 4])
    text = str(surgery.shrink(net, X))
    assert "stranded in all: 4; for 4 of them masks disagree: `surgery align` makes them agree" in text


def test_a_resnet18_masked_layer_by_layer() -> None:
    """Every convolution halved on its own at 64 px: what is promised comes true."""
    from torchvision.models import resnet18

    net = nets.lively(resnet18(num_classes=10))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            prune.ln_structured(module, "weight", 0.5, n=2, dim=0)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    analysis = surgery.analyze(net, x)
    told = analysis.aligning
    assert told is not None
    assert [group.name.split(".")[0] for group in told.groups] == ["layer4", "layer3", "layer2", "conv1"]
    assert [g.params for g in told.groups] == sorted((g.params for g in told.groups), reverse=True)
    plan = surgery.align(net, x)
    real = surgery.shrink(plan.mask(net), x)
    assert real.proof is not None
    assert real.proof.passed
    assert told.average.params == told.params - real.params_after
    assert told.average.macs == told.macs - real.macs_after
    # half of every stream goes, but for carriers
    assert 256 <= len(plan.axis("layer4.1.conv2.weight").keep) <= 260
    assert told.any.params > told.average.params > 0
    for group in analysis.stranded or ():
        assert max(count for _, count in group.keep_alive) <= group.channels // 2
