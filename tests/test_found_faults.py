"""Faults that random nets found, each as the smallest net that shows it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import surgery
from tests.exactness import assert_exact, shrunk
from tests.nets import image, lively, zero_rows_


class Tapped(nn.Module):
    """One channel is taken by a number in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.head(y) + y[:, 4:5]


def test_a_slice_of_one_channel_takes_the_same_channel_after_the_cut() -> None:
    # a dim of size 1 carries no ids: nobody saw that 4:5 stayed, and that another channel arrived there
    shrunk(zero_rows_(lively(Tapped()), stem=[0, 1]), image())


class Windowed(nn.Module):
    """Takes its first channels and all rows of the image but the last, by attributes of its own."""

    def __init__(self, rows: int | None) -> None:
        super().__init__()
        self.stem, self.head, self.stop, self.rows = nn.Conv2d(3, 8, 1), nn.Conv2d(2, 2, 1), 2, rows

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.head(y[:, : self.stop] if self.rows is None else y[:, : self.stop, : self.rows])


@pytest.mark.parametrize("rows", [None, 3])
def test_a_slice_that_takes_all_that_is_left_is_dropped_by_python_and_no_mismatch(rows: int | None) -> None:
    # y[:, :2] of two channels is an alias, or nothing where another dim is sliced, too
    slim = shrunk(lively(Windowed(rows)), image())
    assert slim.plan.axis("stem.weight").keep == (0, 1)
    smaller = shrunk(zero_rows_(lively(Windowed(rows)), stem=[0]), image())
    assert smaller.plan.axis("stem.weight").keep == (1,)


def test_a_convolution_that_the_cut_makes_depthwise_is_no_mismatch() -> None:
    net = lively(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 12, 1, groups=2), nn.Conv2d(12, 2, 1)))
    zero_rows_(net, **{"1": [*range(1, 6), *range(7, 12)]})
    assert shrunk(net, image()).plan.axis("1.weight").keep == (0, 6)


class Constants(nn.Module):
    """The middle layer's first channel reads dead channels only: it is constant, and its row is not zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self.stem(x)))


def constants() -> nn.Module:
    net = zero_rows_(lively(Constants()), stem=[0, 1], middle=[3])
    with torch.no_grad():
        net.middle.weight[0, 2:] = 0
    return net


def test_a_plan_zeroes_no_row_that_was_not_zero() -> None:
    # zeroed, a channel that is constant through what it reads would be another constant than the one that was folded
    net = constants()
    plan = surgery.shrink(net, image(), prove=False).plan
    for name, tensor in plan.mask(net).state_dict().items():
        torch.testing.assert_close(tensor, net.state_dict()[name], rtol=0, atol=0)
    assert_exact(net, plan, plan.apply(net), image())


def test_minus_zero_is_zero_for_the_checksums_of_a_plan() -> None:
    # a mask that is multiplied in leaves -0, one that is written leaves 0
    net = lively(nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 2, 3)))
    prune.ln_structured(net[0], "weight", 0.5, n=2, dim=0)
    result = surgery.shrink(net, image(), prove=False)
    assert result.plan.folds
    torch.testing.assert_close(result.plan.apply(net)(image()), result.model(image()), rtol=0, atol=0)


class Padded(nn.Module):
    """Channels of zeros are laid beside the others, so many by a number in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 6, 1), nn.BatchNorm2d(9), nn.Conv2d(9, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(F.pad(self.stem(x), (0, 0, 0, 0, 1, 2)))))


def test_channels_that_the_code_pads_stay_and_the_others_go() -> None:
    plan = shrunk(zero_rows_(lively(Padded()), stem=[1, 4]), image(), keep_class=True).plan
    assert plan.axis("stem.weight").keep == (0, 2, 3, 5)
    assert plan.axis("norm.weight").keep == (0, 1, 3, 4, 6, 7, 8)


def test_rounding_keeps_no_more_than_it_needs_in_each_conv_group() -> None:
    net = lively(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1, groups=2), nn.Conv2d(4, 2, 1)))
    zero_rows_(net, **{"0": [1, 2, 3, 5, 6, 7]})
    keep = shrunk(net, image(), round_to=4).plan.axis("0.weight").keep
    assert [position // 4 for position in keep] == [0, 0, 1, 1]


class Beside(nn.Module):
    """A branch, of which one channel is left, beside another and the input itself."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.other, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat((self.branch(x), self.other(x), x), 1))


@pytest.mark.parametrize("dead", [[0, 1, 2], [1, 2, 3]])
def test_a_branch_of_a_concat_can_shrink_to_one_channel(dead: list[int]) -> None:
    assert shrunk(zero_rows_(lively(Beside()), branch=dead), image()).plan.axis("branch.weight").removed == 3


class Muted(nn.Module):
    """Nobody reads the middle of the second path."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 2, 1)
        self.stem, self.middle, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.last(self.middle(self.stem(x)))


def test_what_is_kept_only_because_a_layer_needs_one_channel_reads_nothing() -> None:
    net = lively(Muted())
    nn.init.zeros_(net.last.weight)
    plan = shrunk(net, image()).plan
    assert [len(plan.axis(f"{name}.weight").keep) for name in ("stem", "middle")] == [1, 1]


class Sidelined(nn.Module):
    """A grouped layer that nobody reads hangs on a stream of which little is alive."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.side = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 1, groups=6)
        self.head, self.last = nn.Conv2d(6, 2, 1), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.head(y) + self.last(self.side(y))


def test_a_rectangle_takes_what_is_alive_anyway_before_it_asks_for_more() -> None:
    net = zero_rows_(lively(Sidelined()), stem=[0, 1, 2, 3])
    nn.init.zeros_(net.last.weight)
    plan = shrunk(net, image()).plan
    assert plan.axis("stem.weight").keep == (4, 5)
    assert plan.axis("side.weight").keep == (8, 10)


def test_a_norm_without_tensors_knows_its_new_width() -> None:
    # its forward warns where num_features is another number than the channels that come
    net = zero_rows_(
        lively(nn.Sequential(nn.Conv2d(3, 8, 1), nn.InstanceNorm2d(8), nn.Conv2d(8, 2, 1))), **{"0": [1, 5]}
    )
    slim = shrunk(net, image()).model
    assert slim[1].num_features == 6


class Sideways(nn.Module):
    """Runs a layer whose result nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.idle, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.stem(x))
        self.idle(y)
        return self.head(y)


def test_a_layer_that_runs_for_nothing_is_cut_along() -> None:
    assert shrunk(zero_rows_(lively(Sideways()), stem=[0, 1, 2]), image()).plan.axis("stem.weight").removed == 3


class Unheard(nn.Module):
    """A layer with padding that runs twice, and whose results nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.idle, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        torch.relu(self.idle(y))
        self.idle(y)
        return self.head(self.middle(y))


def test_nothing_is_carried_into_a_channel_that_nobody_hears() -> None:
    # one channel of the idle layer stays, for a layer needs one; its weight is shared, and can take up no constant
    shrunk(zero_rows_(lively(Unheard()), stem=[0, 1, 2]), image())


def test_a_gate_that_leaves_one_channel_is_read() -> None:
    # its output has one position and carries no ids: nobody saw that it is read, and all that feeds it went
    net = lively(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.GLU(dim=1), nn.Conv2d(1, 3, 1)))
    assert surgery.shrink(net, image(), prove=False).plan.empty
    assert shrunk(zero_rows_(net, **{"0": [1]}), image()).plan.axis("0.weight").keep == (0, 2, 3)


def test_a_picture_shuffled_from_channels_is_read() -> None:
    net = lively(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.PixelShuffle(2)))
    assert surgery.shrink(net, image(), prove=False).plan.empty
    assert shrunk(zero_rows_(net, **{"0": [1]}), image()).plan.axis("0.weight").removed == 1
