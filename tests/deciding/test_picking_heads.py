"""What is picked of attentions: whole heads where some can go, half of every head where none can."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import surgery
from tests.exactness import chosen

X = torch.randn(2, 5, 24)
SHAPES = ((1, 0), (3, 0))


class Mixing(nn.Module):
    """Queries in `heads`, keys and values in one head for all of them or one each, of a width that the tensors tell."""

    def __init__(self, heads: int, *, shared: bool, normed: bool = False) -> None:
        super().__init__()
        self.heads = heads
        kv = 8 if shared else heads * 8
        self.q, self.k, self.v = nn.Linear(24, heads * 8), nn.Linear(24, kv), nn.Linear(24, kv)
        self.kv_heads = kv // 8
        self.norm: nn.Module = nn.LayerNorm(heads * 8) if normed else nn.Identity()
        self.o, self.head = nn.Linear(heads * 8, 24), nn.Linear(24, 6)

    def forward(self, x: Tensor) -> Tensor:
        q = self.norm(self.q(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = (part.unflatten(-1, (self.kv_heads, -1)).transpose(1, 2) for part in (self.k(x), self.v(x)))
        weights = torch.softmax(q @ k.transpose(-1, -2) * 0.35, -1)
        y: Tensor = self.head(self.o((weights @ v).transpose(1, 2).flatten(2)))
        return y


def lively(net: Mixing) -> Mixing:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return net.eval()


def widths(net: nn.Module) -> tuple[int, ...]:
    assert isinstance(net, Mixing)
    return (net.q.out_features, net.k.out_features, net.v.out_features, net.o.in_features)


def halved(net: Mixing) -> tuple[int, ...]:
    plan, slim = chosen(lively(net), X, shapes=SHAPES)
    assert isinstance(plan, surgery.Plan)
    return widths(slim)


def test_whole_heads_go_where_each_has_its_own_key() -> None:
    plan, slim = chosen(lively(Mixing(4, shared=False)), X, shapes=SHAPES)
    assert widths(slim) == (16, 16, 16, 16)
    kept = next(axis.keep for axis in plan.axes if axis.name == "q.weight" and axis.dim == 0)
    assert {position // 8 for position in kept} == {kept[0] // 8, kept[8] // 8}


def test_one_key_head_for_all_becomes_narrower_with_every_query_head() -> None:
    assert halved(Mixing(4, shared=True)) == (16, 4, 4, 16)


def test_values_become_narrower_where_a_norm_over_all_heads_keeps_the_queries() -> None:
    assert halved(Mixing(4, shared=False, normed=True)) == (32, 32, 16, 16)


def test_a_single_head_of_two_biased_layers_loses_half_of_its_queries_and_keys() -> None:
    """Nothing reads a product of activations by a weight: what is chosen there has to be zero, biases included."""
    assert halved(Mixing(1, shared=False)) == (4, 4, 4, 4)
