"""What the zoo allows for rounding: a channel in each group, half a head where their number is odd."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import surgery
from benchmarks import zoo_row
from tests.attention_nets import IN, TOKENS, Attention, sdpa


def test_one_channel_more_in_a_group_of_channels() -> None:
    net = nn.Sequential(nn.Linear(4, 10, bias=False), nn.ReLU(), nn.Linear(10, 6, bias=False))
    found = zoo_row.rounding_of(net, surgery.analyze(net, torch.randn(2, 4)))
    assert found == pytest.approx(1 / 10)


def test_half_a_head_where_their_number_is_odd() -> None:
    """Of 3 heads 2 stay: a sixth of every layer of the attention more than half."""
    net = Attention("separate", sdpa, bias=False)
    assert net.heads == 3
    tokens = torch.randn(2, IN, TOKENS)
    found = zoo_row.rounding_of(net, surgery.analyze(net, tokens))
    assert found == pytest.approx(1 / 6, abs=0.02)
