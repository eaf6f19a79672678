"""Falcon's fused queries, keys and values: the code takes keys and values by numbers, from the end of the heads.

12 channels, heads of 5: a group is so many query heads, a key head and a value head, one after the other.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from tests.exactness import parameters, shrunk
from tests.nets import lively

X = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(6))
LONGER = ((1, 0), (3, 0), (2, 4))
WIDTH = 5


class MultiQuery(nn.Module):
    """One key head for all of 4 query heads; `front` has it before them, counted from the front."""

    def __init__(self, *, front: bool = False) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.front = 4, WIDTH, front
        self.qkv, self.out = nn.Linear(12, 6 * WIDTH), nn.Linear(4 * WIDTH, 12)

    def split(self, fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fused = fused.view(*fused.shape[:2], self.num_heads + 2, self.head_dim)
        if self.front:
            return fused[..., 2:, :], fused[..., [0], :], fused[..., [1], :]
        return fused[..., :-2, :], fused[..., [-2], :], fused[..., [-1], :]

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        q, k, v = (part.transpose(1, 2) for part in self.split(self.qkv(x)))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(*x.shape[:2], self.num_heads * self.head_dim))


class Grouped(nn.Module):
    """Two groups of 2 query heads; keys and values are laid out for the heads of their group."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.head_dim = 2, WIDTH
        self.qkv, self.out = nn.Linear(12, 2 * 4 * WIDTH), nn.Linear(4 * WIDTH, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        fused = self.qkv(x).view(*x.shape[:2], -1, self.each + 2, self.head_dim)
        q = fused[:, :, :, :-2]
        k, v = (torch.broadcast_to(fused[:, :, :, [n]], q.shape) for n in (-2, -1))
        q, k, v = (part.flatten(2, 3).transpose(1, 2) for part in (q, k, v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def unread(net: nn.Module, heads: list[int]) -> nn.Module:
    """A lively net of which nobody reads some query heads."""
    net = lively(net)
    with torch.no_grad():
        net.out.weight.view(12, -1, WIDTH)[:, heads] = 0
    return net


@pytest.mark.parametrize("front", [False, True])
def test_an_unread_query_head_goes(front: bool) -> None:
    net = unread(MultiQuery(front=front), [1])
    result = shrunk(net, X, shapes=LONGER)
    assert result.model.num_heads == 3
    assert parameters(net) - parameters(result.model) == 13 * WIDTH + 12 * WIDTH


@pytest.mark.parametrize("front", [False, True])
def test_half_of_the_width_is_chosen_where_one_key_head_serves_all(front: bool) -> None:
    """Only query heads could go; the scale is made up for in their rows of the fused layer."""
    net = lively(MultiQuery(front=front))
    result = shrunk(surgery.choose(net, X).mask(net), X, shapes=LONGER)
    assert result.model.head_dim == 3
    assert parameters(net) - parameters(result.model) == 2 * (6 * 13 + 4 * 12)


def test_the_key_and_the_value_head_stay_when_nobody_reads_any_head() -> None:
    net = unread(MultiQuery(), [0, 1, 2, 3])
    result = shrunk(net, X, shapes=LONGER, healthy=0.0)
    assert result.model.num_heads == 1
    assert result.model.qkv.out_features == 3 * result.model.head_dim


@pytest.mark.parametrize(("heads", "left"), [([0, 1], 4 * WIDTH), ([1, 2], 6 * WIDTH), ([1], 8 * WIDTH)])
def test_a_group_goes_or_as_many_query_heads_of_each(heads: list[int], left: int) -> None:
    result = shrunk(unread(Grouped(), heads), X, shapes=LONGER)
    assert result.model.qkv.out_features == left


class Both(MultiQuery):
    """Numbers from both ends: no head may go without one of them being another."""

    def split(self, fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fused = fused.view(*fused.shape[:2], 6, WIDTH)
        q, both = fused[..., 1:-1, :], fused[..., [0, -1], :]
        return q, both[..., :1, :], both[..., 1:, :]


def test_numbers_from_both_ends_keep_all_heads() -> None:
    result = shrunk(unread(Both(), [1]), X, shapes=LONGER)
    assert result.model.qkv.out_features == 6 * WIDTH
