"""Attention as people write it: whole heads and positions inside them go exactly, and as many as are dead.

A head is 4 wide and has 7 parameters a row in q, k and v (6 columns and a bias), 5 a column in o.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.attention_nets import (
    IN,
    FUSED,
    MIXES,
    TOKENS,
    Attention,
    by_hand,
    by_width,
    deafen_,
    sdpa,
    silence_,
)
from tests.exactness import shrunk
from tests.nets import lively

X = torch.randn(2, IN, TOKENS, generator=torch.Generator().manual_seed(3))
SHAPES = ((1, 0), (3, 0), (2, 5))
"""Other batches, and 5 tokens more."""

Change = Callable[[Attention], Attention]

HEAD, SCATTERED = [(1, -1)], [(0, 1), (1, 3), (2, 0)]
"""A whole head; one position of every head, each somewhere else."""

WHOLE_HEAD = 4 * (3 * 7 + 5)
HEADS: dict[str, Change] = {
    "o does not read it": lambda net: deafen_(net, HEAD),
    "v is zero": lambda net: silence_(net, "v", HEAD),
    "v is a constant": lambda net: silence_(net, "v", HEAD, 0.7),
}
POSITIONS: dict[str, tuple[Change, int]] = {
    "q": (lambda net: silence_(net, "q", SCATTERED), 3 * 2 * 7),
    "k": (lambda net: silence_(net, "k", SCATTERED), 3 * 2 * 7),
    "v": (lambda net: silence_(net, "v", SCATTERED), 3 * (7 + 5)),
    "v, constant": (lambda net: silence_(net, "v", SCATTERED, 0.7), 3 * (7 + 5)),
    "o": (lambda net: deafen_(net, SCATTERED), 3 * (7 + 5)),
}


def lost(net: Attention, kind: str = "class") -> int:
    """Parameters that went, all of them exactly."""
    result = shrunk(net, X, shapes=SHAPES, kind=kind)
    return result.params_before - result.params_after


@pytest.mark.parametrize("change", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("layout", ("separate", *FUSED))
def test_a_whole_head_goes_in_every_layout(layout: str, change: Change) -> None:
    assert lost(change(lively(Attention(layout, by_hand)))) == WHOLE_HEAD


@pytest.mark.parametrize("change", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_a_whole_head_goes_however_it_is_computed(mix: Callable[..., torch.Tensor], change: Change) -> None:
    assert lost(change(lively(Attention("separate", mix)))) == WHOLE_HEAD


@pytest.mark.parametrize("part", POSITIONS)
@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_positions_inside_heads_go_each_head_its_own(mix: Callable[..., torch.Tensor], part: str) -> None:
    """The scale stays what it was: made up for in q where the op takes it from the width, else in the graph."""
    change, count = POSITIONS[part]
    scale_in_code = mix is by_width and part in "qk"
    net = change(lively(Attention("separate, free", mix)))
    assert lost(net, "graph" if scale_in_code else "class") == count


@pytest.mark.parametrize("part", POSITIONS)
def test_one_number_for_two_widths_asks_for_a_graph(part: str) -> None:
    """`self.width` is what q, k and v are viewed by: where one of them becomes narrower, code has no number for it."""
    change, count = POSITIONS[part]
    assert lost(change(lively(Attention("separate", by_hand))), "graph") == count
    both = silence_(silence_(lively(Attention("separate", by_hand)), "k", SCATTERED), "v", [(0, 2), (1, 2), (2, 3)], 0.4)
    assert lost(both) == 3 * 2 * 7 + 3 * (7 + 5)
