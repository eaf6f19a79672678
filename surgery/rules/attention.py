"""Scaled dot-product attention: queries meet keys along their width, the weights that come of it meet values."""

from __future__ import annotations

from typing import Any

import torch

from surgery.calls import Call, KnownCall, Value
from surgery.coupling import ScaledUse
from surgery.known import Known
from surgery.layout import Layout, covered
from surgery.registry import rule
from surgery.rules.contraction import Equation, Side, contract
from surgery.rules.copies import copied
from surgery.rules.pointwise import merge

BATCH = "abefghijkl"


@rule("aten.scaled_dot_product_attention.default", sizes=("enable_gqa",))
def attention(
    call: Call,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Layout:
    """`q [..., h, n, d], k [..., h, m, d], v [..., h, m, e] -> [..., h, n, e]`; one key head may serve several others.

    An explicit scale stays what it is; without one the width of the queries is in it. `enable_gqa` says no more than
    the numbers of heads do: it may go where one query head is left for every key head.
    """
    keys, values = (_for_all_heads(call, v.layout, query.shape) if enable_gqa else v.layout for v in (key, value))
    lead = BATCH[: query.layout.rank - 2]
    scores, mixed = Equation(lead + "nd", lead + "md", lead + "nm"), Equation(lead + "nm", lead + "mv", lead + "nv")
    wide = Side.of(call, scores, query, scores.left)
    met = contract(call, scores, wide, Side.of(call, scores, key, scores.right, keys), weights=False)
    if scale is None:
        _note_scale(call, query)
    if attn_mask is not None:
        met = merge(call, [met, attn_mask.layout], met.shape)
    tokens = [len(lead), len(lead) + 1] if is_causal else [len(lead) + 1]
    met = call.hold(met, tokens, f"{call.name}: its softmax runs over this axis")
    weights = Side.of(call, mixed, Value(call.node, met), mixed.left)
    weights.value = None  # no node holds the weights
    out = contract(call, mixed, weights, Side.of(call, mixed, value, mixed.right, values), weights=False)
    return Layout(call.shape, out.blocks)


def _note_scale(call: Call, query: Value) -> None:
    block = query.layout.block_of(query.layout.rank - 1)
    if block is not None:
        call.ledger.scaled.append(ScaledUse(call.node, query.node, block.reshape(-1, block.shape[-1])))


def _for_all_heads(call: Call, layout: Layout, query: tuple[int, ...]) -> Layout:
    """Key or value heads, each as often as there are query heads for it."""
    heads = layout.rank - 3
    times = query[heads] // layout.shape[heads]
    if times == 1 or layout.shape[heads] == 1:  # one for all is broadcast
        return layout
    shape = tuple(s * times if d == heads else s for d, s in enumerate(layout.shape))
    block = layout.block_of(heads)
    if block is None:
        return Layout(shape, layout.blocks)
    rows = [d for d in covered(block) if d <= heads]
    cells = copied(call, block.reshape(*block.shape[: heads + 1], 1, *block.shape[heads + 1 :]), heads + 1, times, rows)
    merged = cells.reshape([s * times if d == heads else s for d, s in enumerate(block.shape)])
    return Layout(shape, (*(other for other in layout.blocks if other is not block), merged))


@attention.known
def _known_attention(
    call: KnownCall,
    query: Known,
    key: Known,
    value: Known,
    attn_mask: Known | None = None,
    enable_gqa: bool = False,
    **_: Any,
) -> Known:
    """Zero values give zero; a value that is the same for all tokens stays what it is where the weights add to one."""
    value = _repeated(value, call.shape) if enable_gqa else value
    rank = len(value.shape)
    number, varies = value.widened(call.dtype), value.varies
    first = number.narrow(rank - 2, 0, 1)
    steady = (~varies & (number == first)).all(rank - 2, keepdim=True)
    if not _adds_to_one(attn_mask):
        steady = steady & (first == 0)
    return Known.of(call.shape, torch.where(steady, first, 0.0), ~steady)


def _repeated(known: Known, shape: tuple[int, ...]) -> Known:
    heads = len(known.shape) - 3
    times = shape[heads] // known.shape[heads]
    full = tuple(s * times if d == heads else s for d, s in enumerate(known.shape))
    return known.map(lambda a: a.repeat_interleave(times, heads) if a.shape[heads] > 1 else a, full)


def _adds_to_one(mask: Known | None) -> bool:
    """Whether no row of the mask can hide every key (the op answers 0 there)."""
    if mask is None:
        return True
    if not mask.everything:
        return False
    seen = mask.value if mask.value.dtype == torch.bool else mask.value > -torch.inf
    return bool(seen.any(-1).all())
