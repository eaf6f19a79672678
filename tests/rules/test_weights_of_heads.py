"""Heads in weights of three dims, in biases of two, in conv groups and in lists: half of them go, exactly."""

from __future__ import annotations

import pytest
import torch

import surgery
from tests import weight_nets as nets
from tests.exactness import chosen, parameters, shrunk
from tests.nets import lively, zero_

X = torch.randn(2, 5, nets.DIM, generator=torch.Generator().manual_seed(1))
SHAPES = ((1, 0), (3, 0))


def left(plan: surgery.Plan, *axes: tuple[str, int]) -> list[int]:
    return [len(plan.axis(name, dim).keep) for name, dim in axes]


@pytest.mark.parametrize("shifted", [False, True])
def test_weights_of_three_dims_lose_heads_and_width(shifted: bool) -> None:
    """Where values are shifted by a constant, which no bias could take up, they are zeroed where they are read."""
    plan, slim = chosen(lively(nets.EinsumAttention(shifted=shifted)), X, shapes=SHAPES)
    assert ("o", 2) in {(zeros.name, zeros.dim) for zeros in plan.zeros} or not shifted
    assert left(plan, ("q", 1), ("k", 1), ("v", 1), ("o", 1), ("r", 1), ("content", 0)) == [2] * 6
    assert left(plan, ("q", 2), ("k", 2), ("v", 2), ("o", 2), ("r", 2), ("content", 1)) == [3] * 6
    assert slim.q.shape == (12, 2, 3)


def test_a_head_that_nobody_reads_goes_from_weights_of_three_dims() -> None:
    net = lively(nets.EinsumAttention())
    zero_(net.o, [1], dim=1)
    result = shrunk(net, X, shapes=SHAPES)
    assert result.params_before - result.params_after == 5 * 12 * 6 + 2 * 6


def test_stranded_heads_of_a_weight_of_three_dims_are_counted_along_their_dim() -> None:
    net = lively(nets.EinsumAttention())
    zero_(net.q, [1, 2], dim=1)
    analysis = surgery.analyze(net, X)
    (group,) = [group for group in analysis.plan.groups if "q:1" in group.axes]
    assert (group.channels, group.stranded) == (4, 2)


def test_viewed_heads_meet_biases_and_weights_that_have_heads_of_their_own() -> None:
    plan, slim = chosen(lively(nets.RelativeAttention()), X, shapes=SHAPES)
    assert left(plan, ("q.weight", 0), ("k.weight", 0), ("v.weight", 0), ("o.weight", 1)) == [12] * 4
    assert left(plan, ("content", 0), ("place", 0), ("r", 1)) == [2] * 3
    assert slim.heads == 2


def test_a_position_of_viewed_heads_goes_from_every_head_or_from_none() -> None:
    net = lively(nets.RelativeAttention())
    rows = [head * nets.WIDTH + 2 for head in range(nets.HEADS)]
    for layer in (net.q, net.k):
        zero_(layer.weight, rows)
    zero_(net.k.bias, rows)
    zero_(net.r, [2], dim=2)
    result = shrunk(net, X, shapes=SHAPES)
    assert left(result.plan, ("q.weight", 0), ("k.weight", 0), ("r", 2), ("place", 1)) == [20, 20, 5, 5]
    with torch.no_grad():
        net.r[:, 1, 2] = 1.0
    assert shrunk(net, X, shapes=SHAPES).plan.empty


def test_the_last_head_of_each_half_lies_beside_the_other() -> None:
    plan, slim = chosen(lively(nets.TwoHalves()), X, shapes=SHAPES)
    assert left(plan, ("q.weight", 0), ("other.weight", 0), ("gate.weight", 0), ("o.weight", 1)) == [6, 6, 1, 12]
    assert slim.heads == 1


def test_heads_that_are_conv_groups_become_narrower() -> None:
    plan, slim = chosen(lively(nets.GroupedAttention()), X, shapes=SHAPES)
    assert left(plan, ("q.weight", 0), ("k.weight", 0), ("v.weight", 0)) == [12] * 3
    assert (slim.v.groups, slim.v.out_channels) == (4, 12)


def test_values_of_heads_that_stay_become_narrower() -> None:
    net = lively(nets.NormedHeads())
    plan, slim = chosen(net, X, shapes=SHAPES)
    assert left(plan, ("q.weight", 0), ("k.weight", 0), ("v.weight", 0), ("o.weight", 1)) == [24, 12, 6, 12]
    assert "layer_norm averages over this axis" in plan.explain("q.weight", 0)
    assert parameters(slim) < parameters(net)


def test_a_state_of_zeros_follows_what_it_meets() -> None:
    plan, slim = chosen(lively(nets.GatedRecurrence()), X, shapes=SHAPES)
    assert left(plan, ("x.weight", 0), ("y.weight", 0), ("decay", 0), ("o.weight", 1)) == [12] * 4
    assert left(plan, ("gate", 0), ("gate_bias", 0)) == [2, 2]
    assert slim.heads == 2
