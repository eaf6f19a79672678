"""Attention as people write it: whole heads and positions inside them go exactly, and as many as are dead.

A head is 4 wide and has 7 parameters a row in q, k and v (6 columns and a bias), 5 a column in o.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from tests.attention_nets import (
    FUSED,
    IN,
    MIXES,
    TOKENS,
    Attention,
    by_hand,
    by_width,
    cells,
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

HEAD, SCATTERED, OTHERS = [(1, -1)], [(0, 1), (1, 3), (2, 0)], [(0, 2), (1, 2), (2, 3)]
"""A whole head; one position of every head, each somewhere else; and others."""

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
@pytest.mark.parametrize("layout", ["separate", *FUSED])
def test_a_whole_head_goes_in_every_layout(layout: str, change: Change) -> None:
    assert lost(change(lively(Attention(layout, by_hand)))) == WHOLE_HEAD


@pytest.mark.parametrize("change", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_a_whole_head_goes_however_it_is_computed(mix: Callable[..., Tensor], change: Change) -> None:
    assert lost(change(lively(Attention("separate", mix)))) == WHOLE_HEAD


@pytest.mark.parametrize("part", POSITIONS)
@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES)
def test_positions_inside_heads_go_each_head_its_own(mix: Callable[..., Tensor], part: str) -> None:
    """The scale stays what it was: made up for in q where the op takes it from the width, else in the graph."""
    change, count = POSITIONS[part]
    scale_in_code = mix is by_width and part in "qk"
    net = change(lively(Attention("separate, free", mix)))
    assert lost(net, "graph" if scale_in_code else "class") == count


@pytest.mark.parametrize("part", POSITIONS)
def test_one_number_for_two_widths_becomes_two_in_the_code(part: str) -> None:
    """`self.width` is what q, k and v are viewed by: where one becomes narrower, no number says so; the code does."""
    change, count = POSITIONS[part]
    assert lost(change(lively(Attention("separate", by_hand)))) == count
    both = silence_(silence_(lively(Attention("separate", by_hand)), "k", SCATTERED), "v", OTHERS, 0.4)
    assert lost(both) == 3 * 2 * 7 + 3 * (7 + 5)


@pytest.mark.parametrize("layout", FUSED)
def test_positions_of_a_fused_layer_go_together(layout: str) -> None:
    """One layer's rows are cut into three equal parts: q and k lose as many positions as v, or nobody does."""
    net = lively(Attention(layout, sdpa))
    silence_(silence_(net, "q", SCATTERED), "v", SCATTERED if layout == "interleaved" else OTHERS, 0.4)
    assert lost(net) == 3 * (3 * 7 + 5)
    alone = silence_(lively(Attention(layout, sdpa)), "q", SCATTERED)
    result = shrunk(alone, X, shapes=SHAPES)
    row = cells(alone.rows("q")[1], SCATTERED)[0]
    assert result.plan.empty
    assert "kept, so that all rows are as long (attention_nets.py:" in result.plan.explain("qkv.weight", row)


def test_every_head_loses_as_many_positions_as_the_one_with_the_fewest() -> None:
    uneven = silence_(lively(Attention("separate, free", sdpa)), "q", [*SCATTERED, (0, 2), (2, 3)])
    assert lost(uneven) == 3 * 2 * 7
    none_of_one = silence_(lively(Attention("separate, free", sdpa)), "q", [(0, 1), (0, 2), (2, 0)])
    result = shrunk(none_of_one, X, shapes=SHAPES)
    assert result.plan.empty
    assert "kept, so that all rows are as long" in result.plan.explain("q.weight", 1)


@pytest.mark.parametrize("layout", ["separate", "chunk"])
def test_a_head_and_positions_of_the_others(layout: str) -> None:
    """The dead head's positions do not count for those that stay."""
    net = silence_(lively(Attention(layout, sdpa)), "v", HEAD, 0.5)
    silence_(silence_(net, "q", [(0, 1), (2, 0)]), "v", [(0, 3), (2, 0)], 0.2)
    assert lost(net) == WHOLE_HEAD + 2 * (3 * 7 + 5)


def test_layers_without_biases() -> None:
    """The op's own scale is made up for in q's weight alone."""
    assert lost(silence_(lively(Attention("separate, free", sdpa, bias=False)), "q", SCATTERED)) == 3 * 2 * 6
    assert lost(deafen_(lively(Attention("chunk", by_hand, bias=False)), HEAD)) == 4 * (3 * 6 + 5)


def test_one_head_stays_where_all_are_dead() -> None:
    net = deafen_(lively(Attention("separate", sdpa)), [(0, -1), (1, -1), (2, -1)])
    result = shrunk(net, X, shapes=SHAPES, healthy=0.0)
    assert min(p.numel() for p in result.model.parameters()) > 0
    assert result.model.heads >= 1


# weights that do not add to one


def _mask(tokens: int = TOKENS) -> Tensor:
    """Causal, and the second sequence padded on the left: its first rows see nothing."""
    mask = torch.ones(2, 1, tokens, tokens, dtype=torch.bool).tril()
    mask[1, :, :, :3] = False
    return mask


def _with_mask(m: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def _with_least(m: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1) * 0.5).masked_fill(~mask, -1e4).softmax(-1) @ v


def _hidden(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The first token sees nothing: sdpa answers 0 there."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril(-1))


def _sink(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = q @ k.transpose(-2, -1) * 0.5
    return torch.cat([weights, torch.zeros_like(weights[..., :1])], -1).softmax(-1)[..., :-1] @ v


def _damped(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1)).softmax(-1) * 0.9 @ v


def _over_queries(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1)).softmax(-2) @ v


NOT_ONE = {"hidden": _hidden, "sink": _sink, "damped": _damped, "over queries": _over_queries}


@pytest.mark.parametrize("mix", NOT_ONE.values(), ids=NOT_ONE)
def test_trap_15_a_constant_v_stays_where_weights_do_not_add_to_one(mix: Any) -> None:
    shapes = ((1, 0), (3, 0))
    constant = silence_(lively(Attention("separate", mix)), "v", HEAD, 0.7)
    assert shrunk(constant, X, shapes=shapes).plan.empty
    zero = silence_(lively(Attention("separate", mix)), "v", HEAD)
    result = shrunk(zero, X, shapes=shapes)
    assert result.params_before - result.params_after == WHOLE_HEAD


def agree(net: nn.Module, slim: nn.Module, *inputs: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(slim(*inputs), net(*inputs), rtol=1e-5, atol=1e-5)


def test_trap_15_a_users_mask_may_hide_every_key() -> None:
    """sdpa answers 0 in such a row: a constant v stays, a v of zeros goes; padded batches agree."""
    constant = silence_(lively(Attention("separate", _with_mask)), "v", HEAD, 0.7)
    result = surgery.shrink(constant, (X, _mask()), prove=False)
    assert result.plan.empty
    zero = silence_(lively(Attention("separate", _with_mask)), "v", HEAD)
    result = surgery.shrink(zero, (X, _mask()))
    assert result.params_before - result.params_after == WHOLE_HEAD
    longer = torch.randn(2, IN, TOKENS + 4)
    for x, mask in ((X, _mask()), (longer, _mask(TOKENS + 4)), (longer[:1], _mask(TOKENS + 4)[1:])):
        agree(zero, result.model, x, mask)


def test_a_constant_v_goes_under_a_mask_that_is_finite() -> None:
    """Rows of which all keys are hidden by a large number still add to one."""
    net = silence_(lively(Attention("separate", _with_least)), "v", HEAD, 0.7)
    result = surgery.shrink(net, (X, _mask()))
    assert result.params_before - result.params_after == WHOLE_HEAD
    agree(net, result.model, torch.randn(2, IN, TOKENS + 4), _mask(TOKENS + 4))
