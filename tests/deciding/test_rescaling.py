"""Attention that divides by the root of its width: made up for in the queries' layer, where nothing else reads it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention as attend

import surgery
from tests.exactness import shrunk
from tests.nets import lively

HEADS = 2


def split(x: Tensor) -> Tensor:
    """`[b, n, h · d] -> [b, h, n, d]`."""
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


class Attention(nn.Module):
    """Two heads of four; one position of the queries is zero in each. What is done with them is handed in."""

    def __init__(self, mixed: Callable[[Attention, Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        self.other, self.mixed = nn.Linear(8, 3), mixed

    def forward(self, x: Tensor) -> Tensor:
        return self.mixed(self, self.q(x), self.k(x), self.v(x))

    def joined(self, heads: Tensor) -> Tensor:
        """The heads side by side, and through the last layer."""
        made: Tensor = self.o(heads.transpose(1, 2).flatten(2))
        return made


def net(mixed: Callable[[Attention, Tensor, Tensor, Tensor], Tensor]) -> nn.Module:
    made = lively(Attention(mixed))
    with torch.no_grad():
        made.q.weight[[1, 6]] = 0
        made.q.bias[[1, 6]] = 0
    return made


def example() -> Tensor:
    return torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(7))


def removed(model: nn.Module) -> int:
    """How many channels of the queries go, the rest being exact."""
    plan = shrunk(model, example(), shapes=((1, 0), (3, 0))).plan
    return next((axis.removed for axis in plan.axes if axis.name == "q.weight" and axis.dim == 0), 0)


def test_the_queries_layer_makes_up_for_a_narrower_attention() -> None:
    assert removed(net(lambda m, q, k, v: m.joined(attend(split(q), split(k), split(v))))) == 2


@pytest.mark.parametrize(
    "turned",
    [lambda q, by: q * by, lambda q, by: by * q, lambda q, by: q / by],
    ids=["a product", "the other way about", "a quotient"],
)
def test_a_factor_goes_through_products_with_what_is_not_queries(turned: Callable[[Tensor, Tensor], Tensor]) -> None:
    by = torch.linspace(1, 2, 5)[:, None]  # by token
    assert removed(net(lambda m, q, k, v: m.joined(attend(split(turned(q, by)), split(turned(k, by)), split(v))))) == 2


def test_a_scale_of_its_own_stays_what_it_is() -> None:
    assert removed(net(lambda m, q, k, v: m.joined(attend(split(q), split(k), split(v), scale=0.4)))) == 2


@pytest.mark.parametrize(
    "mixed",
    [
        lambda m, q, k, v: m.joined(attend(split(q), split(k), split(v))) + m.other(q),
        lambda m, q, k, v: m.joined(attend(split(q), split(k), split(v))) + q.sum(-1, keepdim=True),
        lambda m, q, k, v: m.joined(attend(split(q), split(k), split(v))) + q[..., 2:].sum(-1, keepdim=True),
        lambda m, q, k, v: m.joined(attend(split(q), split(q), split(v))),
        lambda m, q, k, v: m.joined(attend(*map(split, (q, k, v))) + attend(*map(split, (q, k, v)), scale=0.7)),
        lambda m, q, k, v: m.joined(attend(split(q).tanh(), split(k), split(v))),
        lambda m, q, k, v: m.joined(attend(split(q * q), split(k), split(v))),
    ],
    ids=["another layer", "a sum", "a part", "the keys", "an attention with a scale", "a function between", "a square"],
)  # fmt: skip
def test_queries_that_somebody_else_reads_keep_their_width(
    mixed: Callable[[Attention, Tensor, Tensor, Tensor], Tensor],
) -> None:
    assert removed(net(mixed)) == 0


class Memory(nn.Module):
    """Keys and values that are learnt: each token counts in the softmax, whatever its value."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.o = nn.Linear(6, 8), nn.Linear(8, 3)
        self.keys, self.values = nn.Parameter(torch.randn(7, 8)), nn.Parameter(torch.randn(7, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.o(attend(self.q(x), self.keys[None], self.values[None]))


def test_a_token_of_zeros_is_still_looked_at() -> None:
    model = lively(Memory())
    model.values.data[[1, 4]] = 0
    assert shrunk(model, example(), shapes=((1, 0), (3, 0))).plan.removed_channels == 0


@pytest.mark.parametrize("eps", [None, 1e-2])
def test_a_norm_of_torch_s_own_is_narrowed_with_or_without_an_eps(eps: float | None) -> None:
    model = lively(nn.Sequential(nn.Linear(6, 6), nn.RMSNorm(6, eps=eps), nn.Linear(6, 3)))
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias):
            tensor[[1, 4]] = 0
    result = surgery.shrink(model, example())
    assert result.kind == "class"
    assert result.proof is not None
    assert result.proof.passed
    assert result.model[1].normalized_shape == (4,)
    assert result.plan.removed_channels == 2
