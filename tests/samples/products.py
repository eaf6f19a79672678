"""Products of two activations, and of an activation and stacked weights, as matmul, bmm, baddbmm and einsum."""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from tests.samples.sample import Plain, Sample


def by_expert(x: Tensor, w: Tensor) -> Tensor:
    """Three tokens for the first expert, one for the second."""
    import_module("transformers.integrations.moe")  # which registers the op
    grouped: Tensor = torch.ops.transformers.grouped_mm_fallback(x, w, torch.tensor([3, 4], dtype=torch.int32))
    return grouped


ACTIVATIONS = (
    Sample(
        "every token by the weight of its expert",
        by_expert,
        {"x": (4, 6), "w": (2, 6, 5)},
        free="x1 w1 w2",
        held=("grouped_mm_fallback counts its positions", "grouped_mm_fallback adds it up"),
    ),
    Sample(
        "matmul of two activations",
        torch.matmul,
        {"x": (2, 3, 6), "y": (2, 6, 5)},
        free="x0 x1 x2 y0 y1 y2",
        found=(),
        pattern="x2",
        along=2,
    ),
    Sample(
        "matmul of heads",
        lambda q, k: q.view(2, 5, 3, 4).transpose(1, 2) @ k.view(2, 7, 3, 4).permute(0, 2, 3, 1),
        {"q": (2, 5, 12), "k": (2, 7, 12)},
        free="q0 q1 q2 k0 k1 k2",
        pattern="q2",
    ),
    Sample(
        "matmul of heads with one key head for all",
        lambda q, k: q.view(2, 5, 3, 4).transpose(1, 2) @ k.unsqueeze(1).transpose(-2, -1),
        {"q": (2, 5, 12), "k": (2, 7, 4)},
        free="q0 q1 q2 k0 k1 k2",
        pattern="q2",
    ),
    Sample(
        "matmul with an untracked operand",
        torch.matmul,
        {"x": (2, 3, 6), "y": Plain((2, 6, 5))},
        free="x1",
        held=("matmul meets an operand whose dim cannot shrink",),
        found=(),
        pattern="x2",
        along=2,
    ),
    Sample(
        "a row of zeros in a product",
        torch.matmul,
        {"x": (2, 6, 3), "y": (2, 3, 5)},
        free="x0 x1 x2 y0 y1 y2",
        found=(0,),
    ),
    Sample(
        "bmm",
        torch.bmm,
        {"x": (2, 6, 3), "y": (2, 3, 5)},
        free="x0 x1 x2 y0 y1 y2",
        found=(0,),
    ),
    Sample(
        "baddbmm",
        torch.baddbmm,
        {"b": (2, 6, 5), "x": (2, 6, 3), "y": (2, 3, 5)},
        free="b0 b1 b2 x0 x1 x2 y0 y1 y2",
        found=(),
    ),
    Sample(
        "baddbmm with factors and one row for all",
        lambda b, x, y: torch.baddbmm(b, x, y, beta=0.5, alpha=2),
        {"b": (1, 1, 5), "x": (2, 6, 3), "y": (2, 3, 5)},
        free="b2 x0 x1 x2 y0 y1 y2",
    ),
    Sample(
        "channel attention",
        lambda q, k, v: (q.transpose(1, 2) @ k).softmax(-1) @ v.transpose(1, 2),
        {"q": (2, 5, 6), "k": (2, 5, 4), "v": (2, 5, 4)},
        free="q0 q1 q2 k0 k1 v0 v1",
        held=("softmax runs over this axis",),
        pattern="v1",
        along=2,
    ),
    Sample(
        "linear attention",
        lambda q, k, v: q @ (k.transpose(1, 2) @ v),
        {"q": (2, 5, 6), "k": (2, 7, 6), "v": (2, 7, 4)},
        free="q0 q1 q2 k0 k1 k2 v0 v1 v2",
        found=(0,),
        pattern="v2",
        along=2,
    ),
)


def heads(x: Tensor, n: int) -> Tensor:
    """`[b, n, h · d] -> [b, h, n, d]`."""
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


EXPLICIT = (
    Sample(
        "attention by softmax",
        lambda q, k, v: (
            ((heads(q, 3) @ heads(k, 3).transpose(-2, -1) * 0.5).softmax(-1) @ heads(v.expand(2, 7, 15), 3))
            .transpose(1, 2)
            .flatten(2)
        ),
        {"q": Plain((2, 5, 12)), "k": Plain((2, 7, 12)), "v": (1, 1, 15)},
        free="v2:5",
        found=(0, 1, 2),
        pattern="v2",
        along=2,
    ),
    Sample(
        "attention by softmax, all tracked",
        lambda q, k, v: (heads(q, 3) @ heads(k, 3).transpose(-2, -1) * 0.5).softmax(-1) @ heads(v, 3),
        {"q": (1, 5, 12), "k": (1, 7, 12), "v": (1, 7, 15)},
        free="q1 q2 k2 v2",
        held=("softmax runs over this axis",),
        pattern="v2",
    ),
)

WEIGHTS = (
    Sample(
        "einsum with a weight",
        lambda x, w: torch.einsum("bni,oi->bno", x, w),
        {"x": (2, 3, 6), "w": (5, 6)},
        free="x0 x1 x2 w0 w1",
        pattern="x2",
    ),
    Sample(
        "einsum with a weight the other way round, and an ellipsis",
        lambda x, w: torch.einsum("...i,io->...o", x, w),
        {"x": (2, 3, 6), "w": (6, 5)},
        free="x0 x1 x2 w0 w1",
        pattern="x2",
    ),
    Sample(
        "einsum to heads",
        lambda x, w: torch.einsum("bni,hdi->bhnd", x, w),
        {"x": (2, 3, 6), "w": (4, 5, 6)},
        free="x0 x1 x2 w0 w1 w2",
        pattern="x2",
    ),
    Sample(
        "einsum from heads",
        lambda x, w: torch.einsum("bhnd,hdo->bno", x, w),
        {"x": (2, 3, 5, 4), "w": (3, 4, 6)},
        free="x0 x1 x2 x3 w0 w1 w2",
    ),
    Sample(
        "einsum that only sums",
        lambda x, w: torch.einsum("bnij,io->bno", x, w),
        {"x": (2, 3, 6, 4), "w": (6, 5)},
        free="x0 x1 x2 w0 w1",
        held=("einsum adds it up",),
    ),
    Sample(
        "einsum without a sum",
        lambda x, w: torch.einsum("bni,i->bni", x, w),
        {"x": (2, 3, 6), "w": (6,)},
        free="x0 x1 x2 w0",
        pattern="x2",
        found=(0,),
        along=2,
    ),
    Sample(
        "einsum of three",
        lambda x, y, w: torch.einsum("bi,bj,ijo->bo", x, y, w),
        {"x": (2, 6), "y": (2, 3), "w": (6, 3, 5)},
        held=("einsum bi,bj,ijo->bo has no rule",),
    ),
    Sample(
        "einsum of a diagonal",
        lambda x, w: torch.einsum("bii,oi->bo", x, w),
        {"x": (2, 6, 6), "w": (5, 6)},
        held=("einsum bii,oi->bo has no rule",),
    ),
    Sample(
        "stacked experts by bmm",
        torch.bmm,
        {"x": (3, 4, 6), "w": (3, 6, 5)},
        free="x0 x1 x2 w0 w1 w2",
        pattern="x2",
    ),
    Sample(
        "stacked experts by einsum",
        lambda x, w: torch.einsum("bni,eio->bneo", x, w),
        {"x": (2, 3, 6), "w": (4, 6, 5)},
        free="x0 x1 x2 w0 w1 w2",
        pattern="x2",
    ),
)

SAMPLES = (*ACTIVATIONS, *EXPLICIT, *WEIGHTS)
