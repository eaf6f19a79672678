"""Attention in the shapes that people write it, each tiny: 6 channels in, 3 heads of width 4, 5 channels out.

Inputs are `[batch, channels, tokens]`, so that tests which grow the dims from 2 on grow the sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

IN, HEADS, WIDTH, OUT, TOKENS = 6, 3, 4, 5, 7

FUSED = ("chunk", "split", "unbind", "index", "heads, 3, width", "interleaved")
APART = ("separate", "separate, free")

Mix = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


def fused_rows(layout: str, heads: int, width: int) -> np.ndarray:
    """Rows of a fused layer, `[3, heads, width]` for q, k and v."""
    rows = np.arange(3 * heads * width)
    if layout == "heads, 3, width":
        return rows.reshape(heads, 3, width).transpose(1, 0, 2)
    if layout == "interleaved":
        return rows.reshape(heads, width, 3).transpose(2, 0, 1)
    return rows.reshape(3, heads, width)


class Attention(nn.Module):
    """q, k and v in separate layers or one fused in any layout; `mix` makes `[b, h, n, d]` of q, k, v.

    Every size that the code writes is an attribute, and there is one width for q, k and v; but where they are "free".
    """

    def __init__(
        self, layout: str, mix: Mix, *, bias: bool = True, parts: dict[str, nn.Module | nn.Parameter] | None = None
    ) -> None:
        super().__init__()
        self.heads, self.width, self.layout, self.mix = HEADS, WIDTH, layout, mix
        self.inner = HEADS * WIDTH
        if layout in APART:
            self.q, self.k, self.v = (nn.Linear(IN, self.inner, bias=bias) for _ in range(3))
        else:
            self.qkv = nn.Linear(IN, 3 * self.inner, bias=bias)
        self.o = nn.Linear(self.inner, OUT)
        for name, part in (parts or {}).items():
            setattr(self, name, part)

    def apart(self, x: Tensor) -> tuple[Tensor, ...]:
        """q, k and v as `[b, h, n, d]`."""
        b, n, _ = x.shape
        if self.layout in APART:
            whole = self.q(x), self.k(x), self.v(x)
        elif self.layout == "chunk":
            whole = self.qkv(x).chunk(3, -1)
        elif self.layout == "split":
            whole = self.qkv(x).split(self.inner, -1)
        elif self.layout == "unbind":
            return self.qkv(x).view(b, n, 3, self.heads, self.width).permute(2, 0, 3, 1, 4).unbind(0)
        elif self.layout == "index":
            qkv = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            return qkv[0], qkv[1], qkv[2]
        elif self.layout == "heads, 3, width":
            return self.qkv(x).view(b, n, self.heads, 3 * self.width).transpose(1, 2).chunk(3, -1)
        else:
            return self.qkv(x).view(b, n, self.heads, self.width, 3).transpose(1, 2).unbind(-1)
        width = -1 if self.layout == "separate, free" else self.width
        return tuple(part.view(b, n, self.heads, width).transpose(1, 2) for part in whole)

    def forward(self, x: Tensor, *more: Tensor) -> Tensor:
        q, k, v = self.apart(x.transpose(1, 2))
        y = self.mix(self, q, k, v, *more)
        return self.o(y.transpose(1, 2).flatten(2))

    def rows(self, part: str) -> tuple[nn.Linear, np.ndarray]:
        """The layer that makes q, k or v, and its rows `[heads, width]`."""
        if self.layout in APART:
            return getattr(self, part), np.arange(self.inner).reshape(self.heads, self.width)
        return self.qkv, fused_rows(self.layout, self.heads, self.width)["qkv".index(part)]


def by_hand(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax written out; the scale is a number of the module."""
    return (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v


def by_width(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax written out, divided by the root of what the width is."""
    return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v


def by_attribute(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The scale is made of the attribute that is the width, too."""
    return (q @ k.transpose(-2, -1) * m.width**-0.5).softmax(-1) @ v


def sdpa(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def scaled(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, scale=0.4)


def causal(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def causal_by_hand(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A lower triangle, as GPT-2 has it."""
    n = q.shape[-2]
    hidden = torch.ones(n, n, dtype=torch.bool).triu(1)
    return (q @ k.transpose(-2, -1) * 0.5).masked_fill(hidden, -torch.inf).softmax(-1) @ v


def einsummed(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("bhid,bhjd->bhij", q, k).mul(0.5).softmax(-1)
    return torch.einsum("bhij,bhjd->bhid", weights, v)


def batched(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Heads become part of the batch: bmm."""
    b, h, n, _ = q.shape
    q, k, v = (t.reshape(b * h, n, -1) for t in (q, k, v))
    return torch.bmm(torch.bmm(q, k.transpose(1, 2)).mul(0.5).softmax(-1), v).view(b, h, n, -1)


MIXES: dict[str, Mix] = {
    "by hand": by_hand,
    "by width": by_width,
    "by attribute": by_attribute,
    "sdpa": sdpa,
    "sdpa, scaled": scaled,
    "causal": causal,
    "causal by hand": causal_by_hand,
    "einsum": einsummed,
    "bmm": batched,
}


def cells(rows: np.ndarray, places: Iterable[tuple[int, int]]) -> list[int]:
    """Rows of `(head, position)`; position -1 is the whole head."""
    found: list[int] = []
    for head, position in places:
        found += rows[head].tolist() if position < 0 else [int(rows[head, position])]
    return found


def silence_(net: Attention, part: str, places: Iterable[tuple[int, int]], bias: float | None = 0.0) -> Attention:
    """Zero rows of q, k or v at `(head, position)`; their biases become `bias` (None: stay)."""
    layer, rows = net.rows(part)
    at = cells(rows, places)
    with torch.no_grad():
        layer.weight[at] = 0
        if bias is not None and layer.bias is not None:
            layer.bias[at] = bias
    return net


def deafen_(net: Attention, places: Iterable[tuple[int, int]]) -> Attention:
    """Zero columns of o."""
    at = cells(np.arange(net.inner).reshape(net.heads, net.width), places)
    with torch.no_grad():
        net.o.weight[:, at] = 0
    return net
