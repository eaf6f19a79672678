"""What has to go: nets so simple that it can be counted, with random widths, settings and zeros."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import surgery
from tests.nets import lively
from tests.random_judge import FUZZ, assert_exact, quick

ACTIVATIONS = (nn.ReLU, nn.Identity, nn.GELU, nn.Sigmoid, nn.Hardswish)


@dataclass(frozen=True)
class Block:
    """Convolution, norm, activation; which rows, gains and columns are zero, and whether single weights are."""

    width: int
    kernel: int
    padded: bool
    bias: bool
    norm: bool
    activation: int
    rows: frozenset[int]
    gains: frozenset[int]
    columns: frozenset[int]
    scattered: bool


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
    scattered=st.booleans(),
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
            if block.scattered:
                drawn = torch.rand(conv.weight.shape, generator=torch.Generator().manual_seed(block.width))
                conv.weight.data.mul_(drawn < 0.5)

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
            params += (
                o * i * k * k + (o if conv.bias is not None else 0) + (2 * o if isinstance(norm, nn.BatchNorm2d) else 0)
            )
    o, i = slim.head.weight.shape
    assert result.macs_after == macs + x.shape[0] * o * i
    assert result.params_after == params + o * i + o


@settings(quick, max_examples=FUZZ or 20)
@given(st.lists(blocks, min_size=1, max_size=4), st.sampled_from((0.5, 0.3, 0.8)))
def test_a_chain_keeps_the_share_that_was_asked_for(plans: list[Block], keep_ratio: float) -> None:
    plain = [replace(b, rows=frozenset(), gains=frozenset(), columns=frozenset(), scattered=False) for b in plans]
    net, example = Chain(plain).eval(), torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    plan = surgery.choose(net, example, keep_ratio=keep_ratio)
    borders = [b.padded and b.kernel > 1 for b in plans[1:]] + [False]
    for index, (block, border) in enumerate(zip(plans, borders, strict=True)):
        kept = len(plan.axis(f"convs.{index}.weight").keep)
        carriers = kept - max(math.ceil(block.width * keep_ratio - 1e-9), 1)
        assert 0 <= carriers <= border, f"convs.{index}: {plan}"
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
    net, example = (
        Stage(width, inner, depth, rows).eval(),
        torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(3)),
    )
    result = surgery.shrink(net, example, prove=False)
    assert_exact(net, result.plan, result.model, (example,))
    # every padded reader may want one channel of its own to carry the others' constants
    assert result.plan.axis("stem.weight").removed >= min(dead, width - 1) - depth
    assert result.plan.axis("stem.weight").removed <= dead


@settings(quick, max_examples=FUZZ or 10)
@given(st.integers(2, 4), st.integers(2, 4), st.integers(1, 3), st.frozensets(st.integers(0, 15), max_size=12))
def test_each_conv_group_keeps_as_many_as_the_fullest(
    conv_groups: int, inputs: int, outputs: int, rows: frozenset[int]
) -> None:
    wide, narrow = conv_groups * inputs, conv_groups * outputs
    net = nn.Sequential(
        nn.Conv2d(3, wide, 1), nn.ReLU(), nn.Conv2d(wide, narrow, 3, groups=conv_groups), nn.Conv2d(narrow, 2, 1)
    )
    zero_(lively(net, seed=wide)[0].weight, rows)
    example = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(3))
    result = surgery.shrink(net, example, prove=False)
    assert_exact(net, result.plan, result.model, (example,))
    alive = torch.tensor([row not in rows for row in range(wide)]).reshape(conv_groups, inputs).sum(1)
    # a conv group with nothing alive goes as a whole, its outputs being constant
    left = max(int((alive > 0).sum()), 1)
    assert len(result.plan.axis("0.weight").keep) == left * max(int(alive.max()), 1)
    assert result.model[2].groups == left
