"""Widths that are alike in every layer: dead channels are kept back for it, and the function stays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.deciding.widths import share_of_most
from tests.nets import zero_


class Block(nn.Module):
    def __init__(self, inner: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(24, 72), nn.Linear(24, 24)
        self.up, self.down = nn.Linear(24, inner), nn.Linear(inner, 24)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.down(torch.relu(self.up(x)))


class Tower(nn.Module):
    """Three blocks; the last has another inner width than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(inner) for inner in (20, 20, 32))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


TOKENS = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))


def masked() -> Tower:
    torch.manual_seed(0)
    tower = Tower().eval()
    for block, neurons, heads in zip(tower.blocks, (9, 4, 15), (2, 1, 1), strict=True):
        zero_(block.down.weight, range(neurons), dim=1)
        zero_(block.out.weight, range(6 * heads), dim=1)
    return tower


def widths(model: nn.Module) -> list[tuple[int, int]]:
    return [(block.up.out_features, block.out.in_features) for block in model.blocks]


def test_the_same_part_is_as_wide_in_every_layer() -> None:
    free = surgery.shrink(masked(), TOKENS)
    assert widths(free.model) == [(11, 12), (16, 18), (17, 18)]
    even = surgery.shrink(masked(), TOKENS, uniform=True)
    assert widths(even.model) == [(16, 18), (16, 18), (17, 18)]
    assert even.proof is not None
    assert even.proof.passed
    reasons = " ".join(even.plan.explain("blocks.0.up.weight", index) for index in range(9))
    assert "kept, so that this part is as wide in every layer" in reasons


def test_uniform_widths_are_multiples_too() -> None:
    even = surgery.shrink(masked(), TOKENS, uniform=True, round_to=5)
    assert [width for width, _ in widths(even.model)] == [20, 20, 20]


def test_what_is_chosen_comes_out_uniform() -> None:
    tower = masked()
    plan = surgery.choose(tower, TOKENS, keep_ratio=0.5, uniform=True)
    assert widths(plan.apply(tower, TOKENS)) == [(10, 12), (10, 12), (16, 12)]


@pytest.mark.parametrize(
    ("width", "size", "alike", "wanted"),
    [
        ([3, 5, 9], [10, 10, 10], [[0, 1]], [5, 5, 9]),
        ([3, 5, 9], [10, 10, 10], [], [3, 5, 9]),
        ([3, 8], [10, 20], [[0, 1]], [4, 8]),  # of other sizes: the same share
        ([3, 7], [10, 20], [[0, 1]], [4, 7]),  # rounded up: 3.5 of 10
        ([1, 3], [3, 9], [[0, 1]], [1, 3]),  # thirds are not exact
        ([10, 2], [10, 4], [[0, 1]], [10, 4]),
    ],
)
def test_the_share_of_the_one_that_keeps_most(
    width: list[int], size: list[int], alike: list[list[int]], wanted: list[int]
) -> None:
    groups = [np.array(group) for group in alike]
    assert share_of_most(np.array(width), np.array(size), groups).tolist() == wanted
