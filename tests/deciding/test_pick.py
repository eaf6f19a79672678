"""What is picked is what can go: half of each row that must stay as wide as the others, and what is added to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from tests.exactness import parameters, shrunk
from tests.nets import lively

X = torch.randn(2, 12, 5, generator=torch.Generator().manual_seed(5))
LONGER = ((1, 0), (3, 0), (2, 4))
HEADS = 3


class Fixed(nn.Module):
    """Attention in which a bias from the outside fixes the heads: only their width can go."""

    def __init__(self, attend: Callable[[Fixed, Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.attend = attend
        self.q, self.k = nn.Linear(12, 12), nn.Linear(12, 12)
        self.extra = nn.Parameter(torch.zeros(12))
        self.out = nn.Linear(12, 12)

    def heads(self, x: Tensor) -> Tensor:
        """`[t, b, c] -> [b · h, t, w]`, as torch's own functional attention does."""
        return x.reshape(len(x), x.shape[1] * HEADS, -1).transpose(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        b, t, _ = x.shape
        q, k = self.attend(self, x.transpose(0, 1))
        near = -(torch.arange(t)[:, None] - torch.arange(t)).abs().to(x.dtype)
        bias = (near * torch.tensor([0.5, 1.0, 2.0]).to(x.dtype)[:, None, None]).repeat(b, 1, 1)
        weights = torch.baddbmm(bias, self.heads(q), self.heads(k).transpose(1, 2)).softmax(-1)
        return self.out(x + weights.view(b, HEADS, t, t).mean(1) @ x)


def biases_in_one(m: Fixed, x: Tensor) -> tuple[Tensor, Tensor]:
    bias, other = torch.cat((m.q.bias, m.k.bias)).chunk(2)
    return F.linear(x, m.q.weight, bias), F.linear(x, m.k.weight, other)


def biases_added_behind(m: Fixed, x: Tensor) -> tuple[Tensor, Tensor]:
    return x @ m.q.weight.t() + m.q.bias, x @ m.k.weight.t() + m.k.bias


def another_bias(m: Fixed, x: Tensor) -> tuple[Tensor, Tensor]:
    return m.q(x) + m.extra.view(1, 1, -1), m.k(x) - m.extra.expand(len(x), 1, -1)


@pytest.mark.parametrize("attend", [biases_in_one, biases_added_behind, another_bias])
def test_what_is_added_to_queries_and_keys_is_masked_with_them(
    attend: Callable[[Fixed, Tensor], tuple[Tensor, Tensor]],
) -> None:
    """Heads repeat with the batch: each loses half of its width, and of the same width as the others."""
    net = lively(Fixed(attend))
    plan = surgery.choose(net, X)
    assert plan.axis("q.weight").removed == plan.axis("k.weight").removed == 6
    slim = shrunk(plan.mask(net), X, shapes=LONGER).model
    assert slim.q.weight.shape == slim.k.weight.shape == (6, 12)
    kept = torch.zeros(12, dtype=torch.bool)
    kept[list(plan.axis("q.weight").keep)] = True
    assert kept.view(HEADS, 4).sum(1).tolist() == [2, 2, 2]


class Single(nn.Module):
    """One head by einsum: queries and keys have no rows, and neither is a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(12, 12) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        weights = torch.einsum("btc,bsc->bts", self.q(x), self.k(x)).softmax(-1)
        return self.out(torch.einsum("bts,bsc->btc", weights, self.v(x)))


def test_half_of_a_single_head_goes() -> None:
    net = lively(Single())
    plan = surgery.choose(net, X)
    result = shrunk(plan.mask(net), X, shapes=LONGER)
    assert [plan.axis(f"{name}.weight").removed for name in "qkv"] == [6, 6, 6]
    assert parameters(result.model) == 3 * 13 * 6 + 7 * 12


class Apart(nn.Module):
    """Weights `[hidden, heads, width]`, as XLNet has them: heads and width are dims of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Parameter(torch.zeros(12, HEADS, 4)) for _ in range(4))
        self.near = nn.Parameter(torch.zeros(HEADS, 4))
        self.out = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        q, k, v = (torch.einsum("bth,hnd->btnd", x, weight) for weight in (self.q, self.k, self.v))
        weights = torch.einsum("bind,bjnd->bnij", q + self.near, k).softmax(-1)
        mixed = torch.einsum("bnij,bjnd->bind", weights, v)
        return self.out(x + torch.einsum("bind,hnd->bih", mixed, self.o))


def test_weights_of_three_dims_are_masked_on_each() -> None:
    net = lively(Apart())
    plan = surgery.choose(net, X)
    slim = shrunk(plan.mask(net), X, shapes=LONGER).model
    assert {name: tuple(p.shape) for name, p in slim.named_parameters() if p.dim() == 3} == dict.fromkeys(
        "qkvo", (12, 2, 2)
    )
    assert slim.near.shape == (2, 2)


class FixedGroups(nn.Module):
    """Two value heads for four heads of attention weights that do not come from any layer: heads cannot go."""

    def __init__(self) -> None:
        super().__init__()
        self.v, self.out = nn.Linear(12, 12), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        b, t, _ = x.shape
        slopes = torch.tensor([0.5, 1.0, 2.0, 4.0]).to(x.dtype)
        weights = ((x @ x.transpose(1, 2))[:, None] * slopes[:, None, None]).softmax(-1)
        v = self.v(x).view(b, t, 2, -1).transpose(1, 2)
        v = v[:, :, None].expand(-1, -1, 2, -1, -1).reshape(b, 4, t, -1)
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, -1))


def test_heads_that_would_all_go_together_lose_half_of_their_width() -> None:
    net = lively(FixedGroups())
    plan = surgery.choose(net, X)
    slim = shrunk(plan.mask(net), X, shapes=LONGER).model
    assert (slim.v.out_features, slim.out.in_features) == (6, 12)


class HeadsOfGroups(nn.Module):
    """SqueezeBERT: every head is what one group of a grouped convolution makes, and no group can go."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Conv1d(12, 12, 1, groups=HEADS) for _ in range(3))
        self.out = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(len(x), HEADS, -1, x.shape[2]) for layer in (self.q, self.k, self.v))
        weights = (q.transpose(2, 3) @ k).softmax(-1)
        return self.out((weights @ v.transpose(2, 3)).transpose(1, 2).flatten(2))


def test_heads_that_stay_lose_half_of_their_width() -> None:
    net = lively(HeadsOfGroups())
    plan = surgery.choose(net, X)
    slim = shrunk(plan.mask(net), X, shapes=LONGER).model
    assert [layer.out_channels for layer in (slim.q, slim.k, slim.v)] == [6, 6, 6]
    assert [layer.groups for layer in (slim.q, slim.k, slim.v)] == [HEADS] * 3
