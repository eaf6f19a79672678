"""Scaled dot-product attention: masks, causality, scale, key heads that serve several query heads."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.samples.sample import Plain, Sample

HEADS = {"q": (1, 3, 5, 4), "k": (1, 3, 7, 4), "v": (1, 3, 7, 6)}
"""Queries, keys and values `[b, h, n, d]`."""

FREE = "q1 q2 q3 k1 k3 v1 v3"
SOFTMAX = (
    "scaled_dot_product_attention: its softmax runs over this axis",
    "scaled_dot_product_attention meets an operand whose dim cannot shrink",
)


def split(x: Tensor, heads: int) -> Tensor:
    """`[b, n, h · d] -> [b, h, n, d]`."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


SHARED = {"q": (1, 5, 24), "k": (1, 7, 8), "v": (1, 7, 12)}
"""Two key heads for six query heads."""

HIDING = torch.ones(5, 7, dtype=torch.bool).tril(1)
HIDING_ALL = HIDING & (torch.arange(5) > 0)[:, None]
"""The first query sees no key at all: the op answers 0."""

PLAIN = (
    Sample(
        "attention",
        F.scaled_dot_product_attention,
        HEADS,
        free=FREE,
        held=SOFTMAX,
        found=(),
        pattern="v2",
    ),
    Sample(
        "attention with values that are the same for all tokens",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v.expand(2, 3, 7, 6)),
        {"q": Plain((2, 3, 5, 4)), "k": Plain((2, 3, 7, 4)), "v": (1, 1, 1, 6)},
        free="v3",
        found=(0, 1, 2),
        pattern="v3",
        along=3,
    ),
    Sample(
        "attention with a mask",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v.expand(2, 3, 7, 6), HIDING),
        {"q": Plain((2, 3, 5, 4)), "k": Plain((2, 3, 7, 4)), "v": (1, 1, 1, 6)},
        free="v3",
        found=(0, 1, 2),
        pattern="v3",
        along=3,
    ),
    Sample(
        "attention with a mask that hides all keys from a query",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v.expand(2, 3, 7, 6), HIDING_ALL),
        {"q": Plain((2, 3, 5, 4)), "k": Plain((2, 3, 7, 4)), "v": (1, 1, 1, 6)},
        free="v3",
        found=(0,),
        pattern="v3",
        along=3,
    ),
    Sample(
        "attention with a bias that hides all keys from a query",
        lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v.expand(2, 3, 7, 6), torch.zeros(5, 7, dtype=q.dtype).masked_fill(~HIDING_ALL, -math.inf)
        ),
        {"q": Plain((2, 3, 5, 4)), "k": Plain((2, 3, 7, 4)), "v": (1, 1, 1, 6)},
        free="v3",
        found=(0,),
        pattern="v3",
        along=3,
    ),
    Sample(
        "attention with a mask of the user's",
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v.expand(2, 3, 7, 6), m),
        {"q": Plain((2, 3, 5, 4)), "k": Plain((2, 3, 7, 4)), "v": (1, 1, 1, 6), "m": Plain((2, 1, 5, 7))},
        free="v3",
        found=(0, 1, 2),
        pattern="v3",
        along=3,
    ),
    Sample(
        "attention that is causal",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v.expand(2, 3, 7, 6), is_causal=True),
        {"q": Plain((2, 3, 5, 4)), "k": Plain((2, 3, 7, 4)), "v": (1, 1, 1, 6)},
        free="v3",
        found=(0, 1, 2),
        pattern="v3",
        along=3,
    ),
    Sample(
        "attention with a scale",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3),
        HEADS,
        free=FREE,
        held=SOFTMAX,
        pattern="v3",
    ),
    Sample(
        "attention with a learnt bias per head",
        F.scaled_dot_product_attention,
        HEADS | {"m": (1, 3, 1, 1)},
        free=f"{FREE} m1",
        held=SOFTMAX,
        pattern="v3",
    ),
    Sample(
        "attention without heads",
        F.scaled_dot_product_attention,
        {"q": (2, 5, 4), "k": (2, 7, 4), "v": (2, 7, 6)},
        free="q0 q1 q2 k0 k2 v0 v2",
        held=SOFTMAX,
        pattern="v2",
    ),
    Sample(
        "attention of split channels",
        lambda q, k, v: (
            F.scaled_dot_product_attention(split(q, 3), split(k, 3), split(v, 3)).transpose(1, 2).flatten(2)
        ),
        {"q": (1, 5, 12), "k": (1, 7, 12), "v": (1, 7, 18)},
        free="q1 q2 k2 v2",
        held=SOFTMAX,
        pattern="v2",
    ),
)

GROUPED = (
    Sample(
        "attention with enable_gqa",
        lambda q, k, v: F.scaled_dot_product_attention(split(q, 6), split(k, 2), split(v, 2), enable_gqa=True),
        SHARED,
        free="q1 q2 k2 v2",
        held=SOFTMAX,
        pattern="v2",
    ),
    Sample(
        "attention with enable_gqa and one key head",
        lambda q, k, v: F.scaled_dot_product_attention(split(q, 6), split(k, 1), split(v, 1), enable_gqa=True),
        {"q": (1, 5, 24), "k": (1, 7, 4), "v": (1, 7, 6)},
        free="q1 q2 k2 v2",
        held=SOFTMAX,
        pattern="v2",
    ),
    Sample(
        "attention with key heads repeated",
        lambda q, k, v: F.scaled_dot_product_attention(
            split(q, 6), *(split(x, 2).repeat_interleave(3, 1) for x in (k, v))
        ),
        SHARED,
        free="q1 q2 k2 v2",
        held=SOFTMAX,
        pattern="v2",
    ),
    Sample(
        "attention with key heads expanded",
        lambda q, k, v: F.scaled_dot_product_attention(
            split(q, 6), *(split(x, 2)[:, :, None].expand(-1, -1, 3, -1, -1).flatten(1, 2) for x in (k, v))
        ),
        SHARED,
        free="q1 q2 k2 v2",
        held=SOFTMAX,
        pattern="v2",
    ),
)

SAMPLES = (*PLAIN, *GROUPED)
