"""Random nets with random zeros: what comes out computes the same, and everything dead is gone.

`SURGERY_FUZZ=2000 pytest tests/test_random_nets.py` draws as many, new ones each time; without it the draw is fixed.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import surgery
from surgery.cutting.cut import cut_
from surgery.masks import bake
from tests.exactness import BOUND_FLOAT32, BOUND_FLOAT64, assert_plain, fingerprint, outputs, redrawn
from tests.nets import lively
from tests.random_nets import RandomNet, Recipe, recipes

FUZZ = int(os.environ.get("SURGERY_FUZZ", "0"))
INSENSITIVE = 1e-3
"""Outputs that vary by less than this share of their largest value are judged by their size: they say less."""

quick = settings(
    max_examples=FUZZ or 50,
    deadline=None,
    print_blob=True,
    derandomize=not FUZZ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
many = settings(quick, max_examples=FUZZ or 500)

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Verdict:
    """How far apart two nets are, over the spread; and the least spread over the largest value, of any output."""

    float64: float
    float32: float
    noise: float
    sensitivity: float


def shapes_taken(masked: nn.Module, example: Inputs) -> list[tuple[int, int]]:
    """`(batch, growth)` that the masked net accepts: batch 1 and 3, and the first other resolution that it takes."""

    def taken(batch: int, grow: int) -> bool:
        try:
            outputs(masked, redrawn(example, 0, batch=batch, grow=grow), torch.float32)
        except (RuntimeError, ValueError, IndexError):
            return False
        return True

    larger = [(2, grow) for grow in (4, 8, 3) if taken(2, grow)]
    return [(3, 0), *([(1, 0)] if taken(1, 0) else []), *larger[:1]]


def judge(masked: nn.Module, slim: nn.Module, slim64: nn.Module, example: Inputs) -> Verdict:
    """The worst distance over several shapes, two fresh inputs each."""
    masked64 = copy.deepcopy(masked).double()
    worst64 = worst32 = noise = 0.0
    sensitivity = float("inf")
    for batch, grow in shapes_taken(masked, example):
        inputs = [redrawn(example, 10 * batch + grow + seed, batch=batch, grow=grow) for seed in (1, 2)]
        truths = [outputs(masked64, args, torch.float64) for args in inputs]
        spreads, scales = [], []
        for a, b in zip(*truths, strict=True):
            largest = max(float(a.abs().max()), float(b.abs().max()), 1e-30)
            spreads.append(float((a - b).abs().max()) / largest)
            scales.append(largest * (spreads[-1] if spreads[-1] >= INSENSITIVE else 1.0))
        sensitivity = min(sensitivity, *spreads)
        for args, truth in zip(inputs, truths, strict=True):
            wide = outputs(slim64, args, torch.float64)
            narrow, own = outputs(slim, args, torch.float32), outputs(masked, args, torch.float32)
            assert [o.shape for o in wide] == [o.shape for o in truth] == [o.shape for o in narrow]
            for index, scale in enumerate(scales):
                worst64 = max(worst64, float((wide[index] - truth[index]).abs().max()) / scale)
                worst32 = max(worst32, float((narrow[index] - own[index]).abs().max()) / scale)
                noise = max(noise, float((own[index] - truth[index]).abs().max()) / scale)
    return Verdict(worst64, worst32, noise, sensitivity)


def assert_exact(masked: nn.Module, plan: surgery.Plan, slim: nn.Module, example: Inputs) -> Verdict:
    """The plan on a float64 copy is the masked net to 1e-9 of the spread; the slim net is it to rounding."""
    verdict = judge(masked, slim, cut_(copy.deepcopy(masked).double(), plan), example)
    assert verdict.float64 <= BOUND_FLOAT64, verdict
    assert verdict.float32 <= max(BOUND_FLOAT32, 4 * verdict.noise), verdict
    return verdict


def same_tensors(a: nn.Module, b: nn.Module) -> None:
    """Two nets hold the same tensors, bit by bit."""
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, tensor in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[name], tensor, rtol=0, atol=0, msg=name)


def has_parameters(net: RandomNet) -> bool:
    return any(True for _ in net.parameters())


def check_shrink(recipe: Recipe) -> None:
    net, example = recipe.net()
    if not has_parameters(net):
        return
    note(net.program(len(example)))
    before = fingerprint(net)
    result = surgery.shrink(net, example, prove=False)
    assert fingerprint(net) == before, "the given net was changed"
    assert_plain(net, result.model)
    masked = bake(net)
    verdict = assert_exact(masked, result.plan, result.model, example)
    event("sensitive" if verdict.sensitivity >= INSENSITIVE else "insensitive")
    event("something removed" if result.plan.removed_channels else "nothing removed")

    again = surgery.shrink(result.model, example, prove=False)
    assert again.plan.removed_channels == 0, f"a second shrink removes more: {again.plan}"

    restored = surgery.Plan.from_json(result.plan.to_json())
    assert restored == result.plan
    same_tensors(result.model, restored.apply(net))


def check_choose(recipe: Recipe, keep_ratio: float, round_to: int) -> None:
    net, example = recipe.net(zeros=False)
    if not has_parameters(net):
        return
    note(net.program(len(example)))
    plan = surgery.choose(net, example, keep_ratio=keep_ratio, round_to=round_to)
    for group in plan.groups:
        assert group.channels - group.removed >= 1
        assert group.removed <= group.channels - int(group.channels * keep_ratio), "a ratio to keep is a minimum"
    masked = plan.mask(net)
    result = surgery.shrink(masked, example, round_to=round_to, prove=False)
    assert_exact(masked, result.plan, result.model, example)
    applied = plan.apply(net)
    assert_exact(masked, plan, applied, example)
    if surgery.shrink(net, example, prove=False).plan.empty:  # no part of the net is dead by itself
        for planned, found in zip(plan.axes, result.plan.axes, strict=True):
            assert len(found.keep) <= len(planned.keep), f"shrink(mask(m)) keeps more of {planned.name} than was chosen"
    event("something chosen" if plan.removed_channels else "nothing chosen")


@quick
@given(recipes())
def test_a_random_net_is_shrunk_exactly(recipe: Recipe) -> None:
    check_shrink(recipe)


@settings(quick, max_examples=FUZZ or 25)
@given(recipes(), st.sampled_from((0.5, 0.25, 0.75)), st.sampled_from((1, 1, 2, 4)))
def test_what_is_chosen_is_cut_exactly(recipe: Recipe, keep_ratio: float, round_to: int) -> None:
    check_choose(recipe, keep_ratio, round_to)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@many
@given(recipes())
def test_many_random_nets_are_shrunk_exactly(recipe: Recipe) -> None:
    check_shrink(recipe)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@many
@given(recipes(), st.sampled_from((0.5, 0.25, 0.75)), st.sampled_from((1, 1, 2, 4)))
def test_much_that_is_chosen_is_cut_exactly(recipe: Recipe, keep_ratio: float, round_to: int) -> None:
    check_choose(recipe, keep_ratio, round_to)


# What has to go: nets so simple that it can be counted


ACTIVATIONS = (nn.ReLU, nn.Identity, nn.GELU, nn.Sigmoid, nn.Hardswish)


@dataclass(frozen=True)
class Block:
    """Convolution, perhaps a norm, activation: which of its channels are written by zero rows or have a gain of 0."""

    width: int
    kernel: int
    padded: bool
    bias: bool
    norm: bool
    activation: int
    rows: frozenset[int]
    gains: frozenset[int]
    columns: frozenset[int]


blocks = st.builds(
    Block,
    width=st.integers(2, 9),
    kernel=st.sampled_from((1, 3)),
    padded=st.booleans(),
    bias=st.booleans(),
    norm=st.booleans(),
    activation=st.integers(0, len(ACTIVATIONS) - 1),
    rows=st.frozensets(st.integers(0, 8)),
    gains=st.frozensets(st.integers(0, 8), max_size=3),
    columns=st.frozensets(st.integers(0, 8), max_size=3),
)


def zero_(weight: Tensor, positions: Iterable[int], dim: int = 0) -> None:
    """Zero those of the positions that there are."""
    there = torch.tensor([p for p in positions if p < weight.shape[dim]], dtype=torch.int64)
    weight.data.index_fill_(dim, there, 0)


class Chain(nn.Module):
    """Blocks one after the other, a pool, a linear layer."""

    def __init__(self, plans: list[Block]) -> None:
        super().__init__()
        widths = [3, *(block.width for block in plans)]
        self.convs = nn.ModuleList(
            nn.Conv2d(i, b.width, b.kernel, padding=b.kernel // 2 if b.padded else 0, bias=b.bias)
            for i, b in zip(widths, plans, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b.width) if b.norm else nn.Identity() for b in plans)
        self.activations = nn.ModuleList(ACTIVATIONS[b.activation]() for b in plans)
        self.head = nn.Linear(widths[-1], 4)
        lively(self, seed=sum(widths))
        for block, conv, norm in zip(plans, self.convs, self.norms, strict=True):
            zero_(conv.weight, block.rows)
            zero_(conv.weight, block.columns, dim=1)
            if block.norm:
                zero_(norm.weight, block.gains)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm, activation in zip(self.convs, self.norms, self.activations, strict=True):
            x = activation(norm(conv(x)))
        return self.head(x.mean((2, 3)))

    def resting(self, index: int) -> Tensor:
        """What the channels of a block are where their rows are zero, `[width]`."""
        conv: nn.Conv2d = self.convs[index]
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        return self.activations[index](self.norms[index](bias[None, :, None, None])).flatten()


def least_removed(net: Chain, index: int, kept_rows: list[int], weight: Tensor, *, border: bool) -> int:
    """How many channels of a block have to go, given which rows of its reader stay.

    Those that a zero row or a gain of 0 makes constant, and those that no row reads that stays; less one where nothing
    else would be left, and less one that carries the constants over the border of a padded reader.
    """
    conv, norm = net.convs[index], net.norms[index]
    constant = (conv.weight == 0).flatten(1).all(1)
    if isinstance(norm, nn.BatchNorm2d):
        constant = constant | (norm.weight == 0)
    read = (weight[kept_rows] != 0).flatten(2 if weight.dim() > 2 else 1)
    read = (read.any(2) if weight.dim() > 2 else read).any(0)
    dead = constant | ~read
    carried = border and bool((constant & read & (net.resting(index) != 0)).any())
    return int(dead.sum()) - max(int(carried), int(dead.all()))


@settings(quick, max_examples=FUZZ or 40)
@given(st.lists(blocks, min_size=1, max_size=4))
def test_what_is_dead_in_a_chain_is_gone(plans: list[Block]) -> None:
    net, example = Chain(plans).eval(), torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    result = surgery.shrink(net, example, prove=False)
    assert_exact(net, result.plan, result.model, (example,))
    weights = [*(conv.weight for conv in net.convs[1:]), net.head.weight]
    names = [*(f"convs.{i}.weight" for i in range(1, len(plans))), "head.weight"]
    borders = [b.padded and b.kernel > 1 for b in plans[1:]] + [False]
    for index, (weight, name, border) in enumerate(zip(weights, names, borders, strict=True)):
        rows = list(result.plan.axis(name, 0).keep) if weight.shape[0] > 1 else [0]
        gone = result.plan.axis(f"convs.{index}.weight").removed
        assert gone >= least_removed(net, index, rows, weight, border=border), f"convs.{index}: {result.plan}"
    assert_counted(net, result, example)


def assert_counted(net: Chain, result: surgery.Result, example: Tensor) -> None:
    """Parameters and multiply-accumulates are what the widths that are left say."""
    slim = result.model
    macs = params = 0
    x = example
    with torch.no_grad():
        for conv, norm, activation in zip(slim.convs, slim.norms, slim.activations, strict=True):
            o, i, k, _ = conv.weight.shape
            assert (conv.out_channels, conv.in_channels) == (o, i)
            x = activation(norm(conv(x)))
            macs += x.shape[0] * x.shape[2] * x.shape[3] * o * i * k * k
            params += o * i * k * k + (o if conv.bias is not None else 0) + (2 * o if isinstance(norm, nn.BatchNorm2d) else 0)
    o, i = slim.head.weight.shape
    assert result.macs_after == macs + x.shape[0] * o * i
    assert result.params_after == params + o * i + o


@settings(quick, max_examples=FUZZ or 20)
@given(st.lists(blocks, min_size=1, max_size=4), st.sampled_from((0.5, 0.3, 0.8)))
def test_a_chain_keeps_the_share_that_was_asked_for(plans: list[Block], keep_ratio: float) -> None:
    plain = [replace(b, rows=frozenset(), gains=frozenset(), columns=frozenset()) for b in plans]
    net, example = Chain(plain).eval(), torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    plan = surgery.choose(net, example, keep_ratio=keep_ratio)
    for index, block in enumerate(plans):
        kept = len(plan.axis(f"convs.{index}.weight").keep)
        assert kept == max(math.ceil(block.width * keep_ratio - 1e-9), 1), f"convs.{index}: {plan}"
    masked = plan.mask(net)
    result = surgery.shrink(masked, example, prove=False)
    assert [axis.keep for axis in result.plan.axes] == [axis.keep for axis in plan.axes]
    assert_exact(masked, result.plan, result.model, (example,))
    assert_counted(net, result, example)


class Stage(nn.Module):
    """A residual stage: a stem and so many blocks write one stream, which a padded convolution of each block reads."""

    def __init__(self, width: int, inner: int, depth: int, rows: frozenset[int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.first = nn.ModuleList(nn.Conv2d(width, inner, 3, padding=1) for _ in range(depth))
        self.second = nn.ModuleList(nn.Conv2d(inner, width, 1) for _ in range(depth))
        self.head = nn.Linear(width, 4)
        lively(self, seed=width + inner)
        for writer in (self.stem, *self.second):
            zero_(writer.weight, rows)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for first, second in zip(self.first, self.second, strict=True):
            x = x + second(torch.relu(first(x)))
        return self.head(x.mean((2, 3)))


@settings(quick, max_examples=FUZZ or 10)
@given(st.integers(3, 9), st.integers(2, 5), st.integers(1, 3), st.frozensets(st.integers(0, 8), max_size=8))
def test_what_is_dead_in_a_residual_stage_is_gone(width: int, inner: int, depth: int, rows: frozenset[int]) -> None:
    dead = sum(row < width for row in rows)
    net, example = Stage(width, inner, depth, rows).eval(), torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(3))
    result = surgery.shrink(net, example, prove=False)
    assert_exact(net, result.plan, result.model, (example,))
    # every padded reader may want one channel of its own to carry the others' constants
    assert result.plan.axis("stem.weight").removed >= min(dead, width - 1) - depth
    assert result.plan.axis("stem.weight").removed <= dead
