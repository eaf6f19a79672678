"""Attention with something to it: each kind loses what is dead, exactly; what mixes stays, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from tests.attention_kinds import (
    KEY_WIDTH,
    Grouped,
    across_channels,
    cosine,
    linear,
    normed,
    relative,
    rotary,
    talking,
)
from tests.attention_nets import IN, TOKENS, Attention, deafen_, silence_
from tests.exactness import shrunk
from tests.nets import lively, zero_

X = torch.randn(2, IN, TOKENS, generator=torch.Generator().manual_seed(3))
LONGER = ((1, 0), (3, 0), (2, 5))
FLAT = ((1, 0), (3, 0))
HEAD, SCATTERED = [(1, -1)], [(0, 1), (1, 3), (2, 0)]
ROWS, COLUMNS = 7, 5
WHOLE_HEAD = 4 * (3 * ROWS + COLUMNS)


def lost(net: nn.Module, kind: str = "class", *, shapes: Iterable[tuple[int, int]] = LONGER) -> int:
    """Parameters that went, all of them exactly."""
    result = shrunk(net, X, shapes=shapes, kind=kind)
    return result.params_before - result.params_after


@pytest.mark.parametrize("sdpa", [False, True])
def test_a_relative_position_bias_loses_the_heads_column(sdpa: bool) -> None:
    column = 2 * TOKENS - 1
    assert lost(deafen_(relative(sdpa=sdpa), HEAD), shapes=FLAT) == WHOLE_HEAD + column
    assert lost(silence_(relative(sdpa=sdpa), "v", HEAD, 0.7), shapes=FLAT) == WHOLE_HEAD + column
    narrow = silence_(silence_(relative(sdpa=sdpa), "q", SCATTERED), "v", SCATTERED)
    assert lost(narrow, shapes=FLAT) == 3 * (3 * ROWS + COLUMNS)


def test_talking_heads() -> None:
    """Heads are mixed before and after the softmax: v and o may lose one that q and k keep, and the other way round."""
    out = 4 * (ROWS + COLUMNS) + 3 + 1  # of v and o; a row of what mixes afterwards, and its bias
    assert lost(deafen_(talking(), HEAD)) == out
    unheard = talking()
    zero_(unheard.before.weight, [1], dim=1)
    assert lost(unheard) == 4 * 2 * ROWS + 3
    assert lost(deafen_(unheard, HEAD)) == WHOLE_HEAD + (3 + 1) + 3
    assert lost(silence_(deafen_(talking(), SCATTERED), "q", SCATTERED)) == 3 * (3 * ROWS + COLUMNS)


def test_rotary_positions() -> None:
    """Heads go, positions of v, too; those of q and k are turned by angles that the code makes for a fixed width."""
    assert lost(deafen_(rotary(), HEAD)) == WHOLE_HEAD
    assert lost(deafen_(rotary(), SCATTERED)) == 3 * (ROWS + COLUMNS)
    pairs = [(h, p) for h in range(3) for p in (1, 3)]
    result = shrunk(silence_(rotary(), "q", pairs), X, shapes=LONGER)
    assert result.plan.empty


NORMS: dict[str, Callable[[], Attention]] = {
    "RMSNorm": lambda: normed(nn.RMSNorm),
    "RMSNorm, eps": lambda: normed(nn.RMSNorm, eps=1e-2),
    "LayerNorm": lambda: normed(nn.LayerNorm),
}


@pytest.mark.parametrize("make", NORMS.values(), ids=NORMS)
def test_norms_of_q_and_k_inside_heads(make: Callable[[], Attention]) -> None:
    """Heads and positions of v go; what the norm averages over is exact or stays with that reason."""
    assert lost(deafen_(make(), HEAD)) == WHOLE_HEAD
    assert lost(silence_(make(), "v", HEAD, 0.7)) == WHOLE_HEAD
    narrow = surgery.shrink(deafen_(make(), SCATTERED), X)
    assert narrow.kind == "class"
    assert narrow.proof is not None
    assert narrow.proof.passed
    assert narrow.params_before - narrow.params_after == 3 * (ROWS + COLUMNS)
    aligned = [(h, 1) for h in range(3)]
    net = silence_(silence_(make(), "q", aligned), "k", aligned)
    result = surgery.shrink(net, X)
    assert result.proof is not None
    assert result.proof.passed
    if result.plan.empty:
        assert "averages over this axis (q_norm)" in result.plan.explain("q_norm.weight", 1)
    scattered = silence_(silence_(make(), "q", SCATTERED), "k", SCATTERED)
    assert lost(scattered) == 0, "one gain for all heads: the same positions or none"
    gainless = make()
    with torch.no_grad():  # q is zero there, but the norm still reads what it is made of
        gainless.q_norm.weight[2] = 0
        if isinstance(gainless.q_norm, nn.LayerNorm):
            gainless.q_norm.bias[2] = 0
    assert lost(gainless) == 0


def test_linear_attention() -> None:
    assert lost(deafen_(linear(), HEAD)) == WHOLE_HEAD
    assert lost(silence_(linear(), "q", SCATTERED)) == 3 * 2 * ROWS
    assert lost(silence_(linear(), "k", SCATTERED, -0.3)) == 3 * 2 * ROWS, "ReLU makes it zero"
    assert lost(silence_(linear(), "q", SCATTERED, 0.3)) == 0, "a constant counts"
    assert lost(silence_(linear(), "v", SCATTERED, 0.5)) == 0, "the weights add to less than one"


def test_attention_over_channels() -> None:
    """Heads go with their temperature; inside one, channels meet in a softmax."""
    assert lost(deafen_(across_channels(), HEAD)) == WHOLE_HEAD + 1
    assert lost(silence_(across_channels(), "v", HEAD)) == WHOLE_HEAD + 1
    result = shrunk(silence_(across_channels(), "v", SCATTERED), X, shapes=LONGER)
    assert result.plan.empty
    assert "stays" in result.plan.explain("v.weight", 1)


def test_cosine_attention() -> None:
    assert lost(deafen_(cosine(), HEAD)) == WHOLE_HEAD + 1
    assert lost(silence_(cosine(), "v", HEAD, 0.7)) == WHOLE_HEAD + 1
    assert lost(deafen_(cosine(), SCATTERED)) == 3 * (ROWS + COLUMNS)


# grouped queries: 5 wide; 7 parameters a row of q, k, v; 5 a column of o


def heads_(net: Grouped, layer: str, heads: Iterable[int], bias: float = 0.0) -> Grouped:
    """Zero whole heads of a layer: columns of o, rows of others."""
    at = [h * KEY_WIDTH + i for h in heads for i in range(KEY_WIDTH)]
    module = getattr(net, layer)
    zero_(module.weight, at, dim=1 if layer == "o" else 0)
    if layer != "o":
        with torch.no_grad():
            module.bias[at] = bias
    return net


def rows_(net: Grouped, layer: str, rows: list[int], bias: float = 0.0) -> Grouped:
    module = getattr(net, layer)
    zero_(module.weight, rows)
    with torch.no_grad():
        module.bias[rows] = bias
    return net


def grouped(how: str, per: int, shared: int, *, causal: bool = False) -> Grouped:
    net = lively(Grouped(how, per, shared, causal=causal))
    assert isinstance(net, Grouped)
    return net


HOWS = ("enable_gqa", "expand", "repeat_interleave", "broadcast")
SIZES = [("expand", 2, 2), ("expand", 2, 3), *((how, 3, 2) for how in HOWS)]
"""How, query heads per key head, and key heads."""

QUERY = KEY_WIDTH * (ROWS + COLUMNS)


@pytest.mark.parametrize(("how", "per", "shared"), SIZES)
def test_a_key_head_goes_with_all_of_its_query_heads(how: str, per: int, shared: int) -> None:
    count = KEY_WIDTH * 2 * ROWS + per * QUERY
    assert lost(heads_(grouped(how, per, shared), "o", range(per, 2 * per))) == count
    assert lost(heads_(grouped(how, per, shared, causal=True), "v", [1], 0.7)) == count


@pytest.mark.parametrize(("how", "per", "shared"), SIZES)
def test_one_query_head_of_every_key_head_goes_wherever_it_is(how: str, per: int, shared: int) -> None:
    places = [s * per + (s + 1) % per for s in range(shared)]
    assert lost(heads_(grouped(how, per, shared), "o", places)) == shared * QUERY
    result = shrunk(heads_(grouped(how, per, shared), "o", places[:1]), X, shapes=LONGER)
    assert result.plan.empty, "they must stay as many for each"
    assert "stays" in result.plan.explain("q.weight", places[0] * KEY_WIDTH)


@pytest.mark.parametrize("how", ["enable_gqa", "broadcast"])
def test_one_key_head_for_all(how: str) -> None:
    """Multi-query: any query head may go alone."""
    assert lost(heads_(grouped(how, 4, 1), "o", [0, 3])) == 2 * QUERY


@pytest.mark.parametrize("how", ["enable_gqa", "repeat_interleave"])
def test_positions_of_grouped_heads(how: str) -> None:
    """Different ones for different key heads, the same ones for the query heads of one."""
    same = [1, 5 + 1, 10 + 3, 15 + 3]
    assert lost(rows_(grouped(how, 2, 2), "q", same)) == ROWS * (4 + 2)
    assert lost(rows_(grouped(how, 2, 2), "k", [1, 5 + 3])) == ROWS * (4 + 2)
    assert lost(rows_(grouped(how, 2, 2), "q", [1, 5 + 2, 10 + 3, 15 + 3])) == 0
    assert lost(rows_(grouped(how, 2, 2), "v", [1, 5 + 3], 0.6)) == ROWS * 2 + COLUMNS * 4


# torch's own modules: their code asserts their sizes

WIDE = torch.randn(2, 12, TOKENS, generator=torch.Generator().manual_seed(4))
MEMORY = torch.randn(2, 12, 9, generator=torch.Generator().manual_seed(5))
HEAD_OF_12 = 4 * (3 * 13 + 12)
NEURONS = 8 * (12 + 1 + 12)


def kill_(attention: nn.MultiheadAttention, what: str) -> None:
    """Head 1: nobody reads it ("o"), or its values are constant ("v")."""
    at = torch.arange(4, 8)
    with torch.no_grad():
        if what == "o":
            attention.out_proj.weight[:, at] = 0
        else:
            attention.in_proj_weight[24 + at] = 0
            attention.in_proj_bias[24 + at] = 0.7


class Tokens(nn.Module):
    """`[b, c, n]` in, tokens to the body, a head."""

    def __init__(self, body: nn.Module, **options: Any) -> None:
        super().__init__()
        self.body, self.options = body, options
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        x = x.transpose(1, 2)
        if isinstance(self.body, nn.MultiheadAttention):
            return self.head(self.body(x, x, x, **self.options)[0])
        return self.head(self.body(x) if memory is None else self.body(x, memory.transpose(1, 2)))


def test_trap_22_multihead_attention_becomes_a_graph() -> None:
    """It asserts its embed_dim; keep_class leaves it whole, and says so."""
    for what in ("o", "v"):
        net = lively(Tokens(nn.MultiheadAttention(12, 3, batch_first=True), need_weights=False))
        kill_(net.body, what)
        result = shrunk(net, WIDE, kind="graph", shapes=LONGER)
        assert result.params_before - result.params_after == HEAD_OF_12
        assert "cannot run narrower" in str(result)
        whole = shrunk(net, WIDE, keep_class=True, shapes=LONGER)
        assert whole.plan.empty
        assert "cannot run narrower" in whole.plan.explain("body.in_proj_weight", 4)


def test_multihead_attention_whose_weights_are_asked_for_and_dropped() -> None:
    """`self.attn(x, x, x)[0]` averages its weights over heads all the same, for nobody."""
    net = lively(Tokens(nn.MultiheadAttention(12, 3, batch_first=True)))
    kill_(net.body, "o")
    result = surgery.shrink(net, WIDE)
    assert result.proof is not None
    assert result.proof.passed
    assert result.params_before - result.params_after == HEAD_OF_12
    net = lively(Tokens(nn.MultiheadAttention(12, 3, batch_first=True)))
    for h in range(3):  # another position of every head
        zero_(net.body.in_proj_weight, [4 * h + h, 24 + 4 * h + h])
        zero_(net.body.in_proj_bias, [4 * h + h, 24 + 4 * h + h])
    result = shrunk(net, WIDE, kind="graph", shapes=LONGER)
    assert result.params_before - result.params_after == 3 * (3 * 13 + 12)


@pytest.mark.parametrize("first", [False, True])
def test_transformer_encoder_layer(first: bool) -> None:
    net = lively(Tokens(nn.TransformerEncoderLayer(12, 3, 20, batch_first=True, norm_first=first)))
    kill_(net.body.self_attn, "o")
    zero_(net.body.linear1.weight, range(8))
    assert lost_of(net, WIDE, kind="graph") == HEAD_OF_12 + NEURONS
    assert lost_of(net, WIDE, keep_class=True) == NEURONS


def lost_of(net: nn.Module, *inputs: Tensor, **options: Any) -> int:
    result = shrunk(net, inputs, shapes=LONGER, **options)
    return result.params_before - result.params_after


@pytest.mark.slow
def test_transformer_decoder_layer() -> None:
    net = lively(Tokens(nn.TransformerDecoderLayer(12, 3, 20, batch_first=True)))
    kill_(net.body.self_attn, "o")
    kill_(net.body.multihead_attn, "v")
    zero_(net.body.linear2.weight, range(8), dim=1)
    assert lost_of(net, WIDE, MEMORY, kind="graph") == 2 * HEAD_OF_12 + NEURONS
    assert lost_of(net, WIDE, MEMORY, keep_class=True) == NEURONS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_transformer() -> None:
    net = lively(Tokens(nn.Transformer(12, 3, 1, 1, 20, batch_first=True)))
    encoder, decoder = net.body.encoder.layers[0], net.body.decoder.layers[0]
    kill_(encoder.self_attn, "o")
    kill_(decoder.self_attn, "v")
    kill_(decoder.multihead_attn, "o")
    zero_(encoder.linear1.weight, range(8))
    zero_(decoder.linear1.weight, range(8))
    assert lost_of(net, WIDE, MEMORY, kind="graph") == 3 * HEAD_OF_12 + 2 * NEURONS
    assert lost_of(net, WIDE, MEMORY, keep_class=True) == 2 * NEURONS
