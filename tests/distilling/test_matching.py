"""Which channels of the teacher a student's are: whatever hands them out, and after several cuts."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune

import surgery
from surgery.distilling.matching import Kept
from surgery.errors import InputError
from surgery.plans import Plan
from tests.nets import lively


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.act = nn.ReLU(inplace=True)  # called twice, on other channels each time

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.second(self.act(self.norm(self.first(x)))) + x)


class Residual(nn.Module):
    """Every hidden width is 12, so that no shape gives away which channels are which."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.blocks = nn.ModuleList(Block(12) for _ in range(2))
        self.joined = nn.Conv2d(24, 12, 1)
        self.flat = nn.Flatten()
        self.hidden = nn.Linear(12 * 16, 12)
        self.out = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        first = self.blocks[0](self.stem(x))
        both = torch.cat((first, self.blocks[1](first)), 1)
        return self.out(F.relu(self.hidden(self.flat(self.joined(both)))))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 16)
        self.norm = nn.RMSNorm(16)
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))
        self.out = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.embed(x))
        batch, tokens, _ = hidden.shape
        q, k, v = (one(hidden).view(batch, tokens, 2, -1).transpose(1, 2) for one in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, -1)
        return self.out(hidden + self.o(mixed))


FEATURES = ["stem", "blocks.0", "blocks.1", "blocks.0.act", "blocks.1.first", "joined", "flat", "hidden"]
IMAGES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def error(teacher: nn.Module, student: nn.Module, plan: Plan | list[Plan], features: list[str], x: Tensor) -> float:
    """The error of the features alone."""
    distillation = surgery.Distillation(teacher, weight=0.0, features=features, plan=plan)
    with distillation.watching(student):
        return float(distillation(student(x), (x,), task_loss=torch.zeros(())).detach())


@pytest.mark.parametrize("feature", FEATURES)
def test_a_features_channels_are_found(feature: str) -> None:
    dense = lively(Residual()).double()
    plan = surgery.choose(dense, IMAGES, keep_ratio=0.6)
    student = plan.apply(dense, IMAGES)
    assert error(plan.mask(dense), student, plan, [feature], IMAGES) < 1e-20


def test_after_several_cuts() -> None:
    dense = lively(Residual()).double()
    first = surgery.choose(dense, IMAGES, keep_ratio=0.8)
    slim = first.apply(dense, IMAGES)
    second = surgery.choose(slim, IMAGES, keep_ratio=0.6)
    slimmer = second.apply(slim, IMAGES)
    distillation = surgery.Distillation(dense, features=FEATURES, plan=first)
    distillation.follow_(second)
    with distillation.watching(slimmer):
        distillation(slimmer(IMAGES), (IMAGES,))
    keep = distillation._matches["stem", 0]
    assert keep is not None
    masked = first.mask(dense)
    both = Kept.by([first, second])
    with torch.no_grad():  # the second cut's zeros, in the places that they have in the dense model
        for zeros in second.zeros:
            size, left = Kept.by([first]).positions[zeros.name, zeros.dim]
            assert masked.get_parameter(zeros.name).shape[zeros.dim] == size
            masked.get_parameter(zeros.name).index_fill_(zeros.dim, torch.tensor(left[list(zeros.positions)]), 0)
    assert both.positions["stem.weight", 0][1].tolist() == keep.keep.tolist()
    assert error(masked, slimmer, [first, second], FEATURES, IMAGES) < 1e-20
    with pytest.raises(InputError, match="was made for"):
        error(dense, slimmer, [second, first], ["stem"], IMAGES)


def test_queries_that_the_cut_multiplied_are_compared_as_they_were() -> None:
    masked, x = lively(Attention()).double(), torch.randn(2, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        for layer in (masked.q, masked.k):  # three of the eight channels of each head
            for row in (1, 2, 5, 8, 11, 15):
                layer.weight[row] = 0
                layer.bias[row] = 0
    result = surgery.shrink(masked, x)
    assert any(scale.name == "q.weight" for scale in result.plan.scales)
    for feature in ("q", "k", "o"):
        assert error(masked, result.model, result.plan, [feature], x) < 1e-20


def test_a_norm_whose_gain_the_cut_multiplied_hands_out_what_it_did() -> None:
    masked, x = lively(Attention()).double(), torch.randn(2, 6, 5, dtype=torch.float64)
    with torch.no_grad():
        for row in (0, 3, 7):
            masked.embed.weight[row] = masked.o.weight[row] = 0
            masked.embed.bias[row] = masked.o.bias[row] = 0
    result = surgery.shrink(masked, x)
    assert any(scale.name == "norm.weight" for scale in result.plan.scales)
    for feature in ("norm", "embed", "o"):
        assert error(masked, result.model, result.plan, [feature], x) < 1e-20


def test_a_teacher_in_masks_and_in_autocast() -> None:
    dense = lively(Residual())
    plan = surgery.choose(dense, IMAGES.float(), keep_ratio=0.6)
    student = plan.apply(dense, IMAGES.float())
    masked = plan.mask(dense)
    prune.identity(masked.stem, "weight")
    prune.identity(masked.blocks[0].first, "weight")
    with torch.autocast("cpu", torch.bfloat16):
        found = error(masked, student, plan, FEATURES, IMAGES.float())
    assert found < 1e-4  # rounding to bfloat16


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.out = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.out(hidden if hidden.sum() > 0 else -hidden)


def test_a_teacher_whose_code_cannot_be_followed_is_named() -> None:
    x = torch.randn(2, 3)
    straight = lively(nn.Sequential(OrderedDict(first=nn.Linear(3, 8), act=nn.ReLU(), out=nn.Linear(8, 2))))
    plan = surgery.choose(straight, x, keep_ratio=0.5)
    with pytest.raises(InputError, match=r"cannot be followed: .* the teacher \(Branching\)"):
        error(lively(Branching()), plan.apply(straight, x), plan, ["first"], x)


def test_a_plan_of_another_model_is_refused() -> None:
    dense = lively(Residual()).double()
    plan = surgery.choose(dense, IMAGES, keep_ratio=0.6)
    student = plan.apply(dense, IMAGES)
    with pytest.raises(InputError, match="the plan leaves"):
        error(dense, student, surgery.choose(dense, IMAGES, keep_ratio=0.4), ["stem"], IMAGES)
    other = Residual().double()
    other.stem = nn.Conv2d(3, 14, 3, padding=1).double()
    other.blocks = nn.ModuleList()
    other.joined = nn.Conv2d(14, 12, 1).double()
    other.forward = lambda x: other.out(other.hidden(other.flat(other.joined(other.stem(x)))))  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"the plan was made for stem\.\w+ of 12 on dim 0, the teacher's is \[14"):
        error(other, student, plan, ["stem"], IMAGES)
    with pytest.raises(InputError, match=r"plan=result\.plan"):
        error(dense, student, [], ["stem"], IMAGES)


class Pooled(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(size)
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.pool(self.conv(x)).mean((2, 3)))


def test_features_that_differ_by_more_than_channels_are_refused() -> None:
    dense, x = lively(Pooled(2)), torch.randn(2, 3, 4, 4)
    plan = surgery.choose(dense, x, keep_ratio=0.5)
    with pytest.raises(InputError, match=r"'pool' hands out \[2, 4, 2, 2\], .* more than channels"):
        error(dense, lively(Pooled(3)), plan, ["pool"], x)
