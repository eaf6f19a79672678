"""Aligned masks where channels do not go one by one: conv groups, depthwise kernels, carriers, rounded widths."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from tests import nets
from tests.test_aligning import X, assert_aligned, gone


class Inverted(nn.Module):
    """A MobileNet block: expand, padded depthwise, project."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.depthwise, self.project = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(F.relu6(self.depthwise(F.relu6(self.norm(self.expand(x))))))


def test_depthwise() -> None:
    net = nets.zero_rows_(nets.lively(Inverted()), expand=[0, 1, 5], depthwise=[1, 5, 6])
    plan = surgery.align(net, X, agreement="any")
    assert gone(plan, "depthwise.weight") == gone(plan, "expand.weight") == {0, 1, 5, 6}
    assert_aligned(net, plan, X)
    plan = surgery.align(net, X)
    assert len(gone(plan, "expand.weight")) == 3
    assert {1, 5} < gone(plan, "expand.weight")
    assert_aligned(net, plan, X)


class Grouped(nn.Module):
    """Two producers in front of a grouped convolution: as many channels go from each conv group."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.grouped, self.head = nn.Conv2d(8, 6, 3, groups=2), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.grouped(F.relu(self.left(x) + self.right(x)))))


def test_conv_groups_lose_as_many_each() -> None:
    net = nets.zero_rows_(nets.lively(Grouped()), left=[0, 1, 4, 5], right=[2, 6])
    plan = surgery.align(net, X, agreement="any")
    assert gone(plan, "left.weight") == {0, 1, 2, 4, 5, 6}
    assert_aligned(net, plan, X)
    net = nets.zero_rows_(nets.lively(Grouped()), left=[0, 1, 4], right=[2])  # three in the first, one in the second
    plan = surgery.align(net, X, agreement="any")
    assert len(gone(plan, "left.weight") & {0, 1, 2, 3}) == 1
    assert gone(plan, "left.weight") & {4, 5, 6, 7} == {4}
    # what has to stay for the rectangle is not zeroed, either
    masked = plan.mask(net)
    assert [bool(row.any()) for row in masked.right.weight].count(False) == 3  # 2 as before, and those that go
    assert_aligned(net, plan, X)


@pytest.mark.parametrize("agreement", ["any", "average"])
def test_widths_are_multiples(agreement: str) -> None:
    net = nets.lively(nets.Residual())
    nets.zero_rows_(net, stem=[0, 2, 3, 4, 5, 6], a2=[0, 1, 2, 3, 4, 5], b2=[0, 1, 2, 6, 7, 8])
    plan = surgery.align(net, X, agreement=agreement, round_to=4)
    assert len(plan.axis("stem.weight").keep) in (4, 8)
    assert_aligned(net, plan, X, round_to=4)


def test_a_whole_conv_group_that_is_dead_counts_as_gone() -> None:
    """(5 + 4) / 2 is what is dead already: no more goes, though rectangles would share it out among the conv groups."""
    net = nets.zero_rows_(nets.lively(Grouped()), left=[0, 1, 2, 3, 4], right=[0, 1, 2, 3])
    nets.zero_rows_(net, grouped=[0, 1, 2])
    alone = surgery.shrink(net, X).plan
    plan = surgery.align(net, X)
    assert gone(plan, "left.weight") == gone(alone, "left.weight")
    assert plan.mask(net).right.weight[4:].any(1).all()
    assert_aligned(net, surgery.align(net, X, agreement="any"), X)


@pytest.mark.parametrize(("more", "removed"), [([1, 5], {0, 1, 4, 5}), ([1, 2, 5, 6], {0, 2, 5, 6})])
def test_a_carrier_in_one_conv_group_keeps_a_channel_in_the_other(more: list[int], removed: set[int]) -> None:
    """What is dead is zero either way: 1 carries for 2, and 4 fills the other row; a lone constant needs no carrier."""
    net = nets.lively(Grouped())
    net.grouped.padding = (1, 1)
    nets.zero_rows_(net, left=[0, 4, *more], right=[0, 4])
    with torch.no_grad():
        for conv in (net.left, net.right):
            conv.bias[:4] = 0.3
            conv.bias[4:] = conv.bias[0] = -0.3
    assert gone(surgery.shrink(net, X).plan, "left.weight") == {0, 4}
    plan = surgery.align(net, X, agreement="any")
    assert gone(plan, "left.weight") == removed
    masked = plan.mask(net)
    assert not masked.right.weight[[0, 4, *more]].any()
    assert_aligned(net, plan, X)


def test_a_carrier_takes_a_place_in_a_rounded_width() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1)
            self.head = nn.Conv2d(16, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(x + self.block(x))

    net = nets.zero_rows_(nets.lively(Wide()), stem=range(8), block=[*range(7), 8])
    with torch.no_grad():
        net.block.weight[7] *= 1e-3
    plan = surgery.align(net, X, round_to=8)
    assert len(plan.carries) == 1
    assert len(plan.axis("stem.weight").keep) == 8
    assert_aligned(net, plan, X, round_to=8)
