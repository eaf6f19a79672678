"""Masks that disagree, made to agree: which channels go, that it is exact, and what is left as it was."""

from __future__ import annotations

import copy
import logging
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from surgery.aligning import aligned
from surgery.errors import InputError
from surgery.inputs import Inputs
from tests import nets
from tests.deciding.test_stranded import Branches
from tests.exactness import assert_exact, fingerprint

X = nets.image()


def branches(**rows: list[int]) -> Branches:
    net = nets.lively(Branches())
    assert isinstance(net, Branches)
    nets.zero_rows_(net, **rows)
    return net


def gone(plan: surgery.Plan, name: str) -> set[int]:
    axis = plan.axis(name)
    return set(range(axis.size)) - set(axis.keep)


def assert_aligned(net: nn.Module, plan: surgery.Plan, x: Tensor, round_to: int = 1) -> None:
    """The net stays as it is; the plan's cut is what shrink makes of the plan's mask, and exact."""
    before = fingerprint(net)
    masked, slim = plan.mask(net), plan.apply(net, x)
    assert fingerprint(net) == before
    result = surgery.shrink(masked, x, round_to=round_to)
    assert result.proof is not None
    assert result.proof.passed
    for (name, a), (other, b) in zip(slim.state_dict().items(), result.model.state_dict().items(), strict=True):
        assert name == other
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert_exact(masked, result.plan, slim, x)
    assert surgery.Plan.from_json(plan.to_json()) == plan


def test_any_takes_what_any_producer_zeroed() -> None:
    net = branches(left=[0, 1, 2], right=[0, 4])
    plan = surgery.align(net, X, agreement="any")
    assert gone(plan, "left.weight") == gone(plan, "right.weight") == {0, 1, 2, 4}
    assert_aligned(net, plan, X)


def test_average_takes_as_many_as_were_zeroed_on_average_the_lowest_norms_first() -> None:
    net = branches(left=[0, 1, 2, 3], right=[0, 4])
    with torch.no_grad():  # right counts a thousand times less where norms are compared as they are
        for index, scale in enumerate((0, 3, 1, 2, 0, 2)):
            net.right.weight[index] = scale * 1e-3
        net.left.weight[4] = 5.0
        net.left.weight[5] = 1.0
    plan = surgery.align(net, X)  # (4 + 2) / 2 = 3: channel 0, dead already, and the two that matter least
    assert gone(plan, "left.weight") == {0, 2, 3}
    assert_aligned(net, plan, X)


def test_no_layer_dominates() -> None:
    """Right writes a thousand times louder, and its masks still count as much as left's."""
    net = branches(left=[0, 1], right=[2, 3])
    with torch.no_grad():
        for weight, scale, weak in ((net.left.weight, 1.0, (2, 3)), (net.right.weight, 1000.0, (0, 1))):
            for index in range(6):
                if weight[index].any():
                    weight[index] = scale * (0.1 if index == weak[0] else 1.0)
    assert gone(surgery.align(net, X), "left.weight") == {0, 2}


def test_the_average_is_rounded_down_and_dead_channels_stay_dead() -> None:
    net = branches(left=[0, 1, 5], right=[5])
    assert gone(surgery.align(net, X), "left.weight") in ({0, 5}, {1, 5})
    net = branches(left=[0, 5], right=[5])  # (2 + 1) / 2: the one that is dead
    done = aligned(net, Inputs.of(X))
    assert gone(done.plan, "left.weight") == {5}
    assert done.more == 0
    assert "no channel more goes than shrink would remove" in str(done)
    assert "agreement='any' aligns all" in str(done)


@pytest.mark.parametrize("agreement", ["any", "average"])
def test_what_is_constant_for_another_reason_is_not_zeroed(agreement: str) -> None:
    """Channels that read nothing but constants are dead as they are: to zero their weights would move the outputs."""

    class Behind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.branches = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1), Branches()

        def forward(self, x: Tensor) -> Tensor:
            return self.branches(self.second(F.relu(self.first(x))))

    net = nets.lively(Behind())
    nets.zero_rows_(net, first=[0], branches__left=[0, 1], branches__right=[0, 2])
    with torch.no_grad():
        net.first.bias[0] = 2.0
        net.second.weight[1, 1:] = 0  # reads channel 0 of first alone
    masked = surgery.align(net, X, agreement=agreement).mask(net)
    torch.testing.assert_close(masked.second.weight, net.second.weight, rtol=0, atol=0)
    torch.testing.assert_close(masked.first.weight, net.first.weight, rtol=0, atol=0)
    assert_aligned(net, surgery.align(net, X, agreement=agreement), X)


def test_groups_whose_masks_agree_are_left_to_shrink() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches, self.up, self.down = Branches(), nn.Conv2d(2, 9, 1), nn.Conv2d(9, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(F.relu(self.up(self.branches(x))))

    net = nets.zero_rows_(nets.lively(Two()), branches__left=[0, 1], branches__right=[2, 3], up=[4, 7])
    plan = surgery.align(net, X, agreement="any")
    assert gone(plan, "up.weight") == {4, 7}
    assert gone(plan, "branches.left.weight") == {0, 1, 2, 3}


def test_everything_zeroed_in_one_producer_leaves_one_channel() -> None:
    net = branches(left=list(range(6)), right=[1])
    plan = surgery.align(net, X, agreement="any")
    assert len(plan.axis("left.weight").keep) == 1
    assert_aligned(net, plan, X)
    assert len(surgery.align(net, X).axis("left.weight").keep) == 3  # (6 + 1) / 2


def test_a_group_of_a_single_channel_stays() -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 1), nn.Conv2d(1, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.a(x) + self.b(x))

    net = nets.zero_rows_(nets.lively(One()), a=[0])
    with pytest.raises(InputError, match="no channel is zeroed in One"):
        surgery.align(net, X)
    assert surgery.analyze(net, X).stranded == ()


def test_pinned_at_the_output_is_said_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Out(Branches):
        def forward(self, x: Tensor) -> Tensor:
            return self.left(x) + self.right(x)

    net = nets.zero_rows_(nets.lively(Out()), left=[0, 1], right=[0])
    with caplog.at_level(logging.WARNING, logger="surgery"):
        plan = surgery.align(net, X, agreement="any")
    assert plan.empty
    assert not plan.zeros
    assert "no masks disagree: the plan is what shrink would do" in caplog.text
    assert "2 zeroed channels stay for other reasons than masks that disagree (pinned" in caplog.text


def test_a_tied_weight_agrees_with_itself_and_the_others_follow() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.a, self.b, self.head = (nn.Linear(*s) for s in ((3, 6), (6, 6), (6, 6), (6, 2)))
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.b(F.relu(self.a(F.relu(self.stem(x))))))

    net = nets.zero_rows_(nets.lively(Tied()), a=[1, 3], stem=[1, 2])
    x = torch.randn(4, 3)
    plan = surgery.align(net, x, agreement="any")
    masked = plan.mask(net)
    assert masked.a.weight is masked.b.weight
    assert gone(plan, "a.weight") <= {1, 2, 3}
    assert plan.removed_channels > 1
    assert_aligned(net, plan, x)


def test_batchnorm_behind_and_a_carrier_over_the_border() -> None:
    net = nets.zero_rows_(nets.lively(nets.Residual()), stem=[0, 2, 3, 4], a2=[0, 1, 2, 3], b2=[0, 1, 2, 6, 7])
    for agreement in ("any", "average"):
        plan = surgery.align(net, X, agreement=agreement)
        assert plan.removed_channels > surgery.shrink(net, X).plan.removed_channels
        assert_aligned(net, plan, X)


def test_a_concatenation_has_nothing_to_align(caplog: pytest.LogCaptureFixture) -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(9, 6, 1), nn.Conv2d(15, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.cat((x, self.first(x)), 1)
            return self.head(torch.cat((x, self.second(x)), 1))

    net = nets.zero_rows_(nets.lively(Dense()), first=[0, 1], second=[3])
    with caplog.at_level(logging.WARNING, logger="surgery"):
        plan = surgery.align(net, X)
    assert caplog.text.count("no masks disagree: the plan is what shrink would do") == 1
    assert plan == surgery.shrink(net, X).plan


def test_masks_given_apart_are_in_the_plan() -> None:
    net = nets.lively(Branches())
    keep = {"left": torch.tensor([0, 0, 0, 1, 1, 1]), "right.weight": torch.tensor([0, 1, 1, 1, 0, 1])}
    plan = surgery.align(net, X, keep_masks=keep)
    assert len(gone(plan, "left.weight")) == 2
    masked = plan.mask(net)
    for weight, mask in ((masked.left.weight, keep["left"]), (masked.right.weight, keep["right.weight"])):
        assert not weight[mask == 0].any()
    assert_aligned(net, plan, X)


def test_masks_in_their_hooks() -> None:
    net = nets.lively(Branches())
    for layer, amount in ((net.left, 3), (net.right, 2)):
        nn.utils.prune.ln_structured(layer, "weight", amount, n=2, dim=0)
    before = copy.deepcopy(net.state_dict())
    plan = surgery.align(net, X)
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert len(gone(plan, "left.weight")) == 2
    slim = plan.apply(net, X)
    assert slim.left.out_channels == 4


def test_it_says_that_the_function_changes_and_by_how_much(caplog: pytest.LogCaptureFixture) -> None:
    net = branches(left=[0, 1, 2], right=[0, 4])
    with caplog.at_level(logging.WARNING, logger="surgery"):
        surgery.align(net, X, agreement="any")
    assert (
        "aligning (any) changes the function: it zeroes 3 more channels in every layer that writes them; fine-tune "
        "plan.mask(model), then shrink it" in caplog.text
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agreement": "all"}, "unknown agreement 'all': choose one of any, average"),
        ({"round_to": 0}, "round_to is 0: give a whole number of channels, at least 1"),
        (
            {},
            "no channel is zeroed in Branches: there are no masks to align: mask it first (torch.nn.utils.prune), or "
            "let surgery.choose pick the channels",
        ),
    ],
)
def test_refusals(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        surgery.align(nets.lively(Branches()), X, **options)  # type: ignore[arg-type]
    assert f"{caught.value.fact}: {caught.value.way_out}" == message


def test_nan_weights_are_refused() -> None:
    net = branches(left=[0])
    with torch.no_grad():
        net.left.weight[1] = float("nan")
    with pytest.raises(InputError, match=re.escape("left.weight")):
        surgery.align(net, X)


def test_channels_dead_for_another_reason_count_among_those_that_go() -> None:
    """Nobody reads channel 5, whatever its norm: with channel 0 that makes (3 + 1) / 2."""
    net = branches(left=[0, 1, 2], right=[0])
    nets.zero_(net.head.weight, [5], dim=1)
    assert gone(surgery.align(net, X), "left.weight") == {0, 5}


def test_a_channel_that_is_zero_everywhere_and_has_to_stay_is_left_alone() -> None:
    class Unbiased(Branches):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(F.relu(self.left(x) + self.right(x)), self.head.weight)

    net = nets.zero_rows_(nets.lively(Unbiased()), left=[0, 1], right=[0])
    with torch.no_grad():
        net.left.bias[:2] = net.right.bias[:2] = 1.0
    plan = surgery.align(net, X, agreement="any")
    assert gone(plan, "left.weight") == {1}
    head = plan.mask(net).head.weight
    assert head[:, 0].all()
    assert not head[:, 1].any(), "its constant has nowhere to go, so it is zeroed where it is read"
    assert_aligned(net, plan, X)
