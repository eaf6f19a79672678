"""Who zeroed what, who keeps it alive, and whether agreeing would help."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from surgery.deciding.parts import GroupCut
from tests import nets


class Branches(nn.Module):
    """Two 1x1 convolutions are added: [3 -> 6] each; then a head of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.left(x) + self.right(x)))


def stranded_of(net: nn.Module, x: Tensor) -> GroupCut:
    found = surgery.analyze(net, x).stranded
    assert found is not None
    (group,) = found
    return group


def test_every_layer_that_keeps_some_alive_is_named_with_how_many() -> None:
    net = nets.zero_rows_(nets.lively(Branches()), left=[0, 1, 2, 3], right=[0, 4])
    group = stranded_of(net, nets.image())
    assert (group.channels, group.removed, group.stranded, group.alignable, group.pinned) == (6, 1, 4, 4, 0)
    assert group.keep_alive == (("right.weight", 3), ("left.weight", 1))


def test_masks_that_agree_strand_nothing() -> None:
    net = nets.zero_rows_(nets.lively(Branches()), left=[0, 1], right=[0, 1])
    assert surgery.analyze(net, nets.image()).stranded == ()


def test_pinned_channels_are_not_alignable_and_nobody_is_blamed() -> None:
    class Out(Branches):
        def forward(self, x: Tensor) -> Tensor:
            return self.left(x) + self.right(x)

    net = nets.zero_rows_(nets.lively(Out()), left=[0, 1], right=[0])
    group = stranded_of(net, nets.image())
    assert (group.stranded, group.alignable, group.pinned, group.keep_alive) == (2, 0, 2, ())
    assert group.blockers == (("pinned: it is an output of the model (the model)", 2),) or "output" in str(
        group.blockers
    )


def test_a_carrier_that_another_layer_writes_to_is_stranded_and_a_mere_carrier_is_not() -> None:
    class Padded(nn.Module):
        def __init__(self, *, residual: bool) -> None:
            super().__init__()
            self.residual = residual
            self.stem, self.block, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.block(x)
            return self.head(x + y if self.residual else y)

    for residual in (False, True):
        net = nets.zero_rows_(nets.lively(Padded(residual=residual)), stem=[1, 2])
        if residual:
            assert stranded_of(net, nets.image()).keep_alive == (("block.weight", 2),)
        else:
            analysis = surgery.analyze(net, nets.image())
            assert (analysis.dead, analysis.stranded) == (1, ())


def test_a_table_keeps_channels_alive_too() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.mix, self.head = nn.Embedding(7, 6), nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
            return self.head(self.table(tokens) + self.mix(x))

    net = nets.zero_rows_(nets.lively(Tokens()), mix=[0, 1, 4])
    nets.zero_(net.table.weight, [0], dim=1)
    (group,) = surgery.analyze(net, (torch.tensor([[1, 2], [3, 4]]), torch.randn(2, 2, 3))).stranded or ()
    assert (group.removed, group.stranded, group.alignable) == (1, 2, 2)
    assert group.keep_alive == (("table.weight", 2),)


def test_old_plans_without_the_new_fields_are_read() -> None:
    net = nets.zero_rows_(nets.lively(Branches()), left=[0, 1], right=[0])
    plan = surgery.analyze(net, nets.image()).plan
    assert plan is not None
    assert surgery.Plan.from_json(plan.to_json()) == plan
    old = plan.to_json().replace(',"alignable":1,"pinned":0', "").replace(',"alignable":0,"pinned":0', "")
    assert "alignable" not in old
    read = surgery.Plan.from_json(old)
    assert [(g.stranded, g.alignable) for g in read.groups if g.stranded] == [(1, 0)]
