"""Rows and columns that have units of their own, where they meet a unit for every pair; what is laid out for others."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from tests.samples.sample import Sample

SAMPLES = (
    Sample(
        "a bias with heads and width, added to heads",
        lambda x, w: x.view(2, 3, 4) + w,
        {"x": (2, 12), "w": (3, 4)},
        free="x0 x1 w0 w1",
    ),
    Sample(
        "a gain with groups, heads and width",
        lambda x, w: x.view(2, 2, 3, 4) * w,
        {"x": (2, 24), "w": (2, 3, 4)},
        free="x0 x1 w0 w1 w2",
    ),
    Sample(
        "a gain with two of three",
        lambda x, w: x.view(2, 2, 3, 4) * w,
        {"x": (2, 24), "w": (3, 4)},
        free="x0 x1 w0 w1",
    ),
    Sample(
        "heads, contracted with a weight that has heads and width",
        lambda x, w: torch.einsum("bnd,jnd->bnj", x.view(2, 3, 4), w),
        {"x": (2, 12), "w": (5, 3, 4)},
        free="x0 x1 w0 w1 w2",
    ),
    Sample(
        "heads, each by a block of its own",
        lambda x, w, b: torch.baddbmm(b[:, None], x.view(2, 3, 4).transpose(0, 1), w),
        {"x": (2, 12), "w": (3, 4, 5), "b": (3, 5)},
        free="x0 x1 w0 w1 w2 b0 b1",
    ),
    Sample(
        "rows contracted, columns going on",
        lambda x, w: torch.einsum("bnd,nk->bdk", x.view(2, 3, 4), w),
        {"x": (2, 12), "w": (3, 5)},
        free="x0 x1:3 w0 w1",
    ),
    Sample(
        "columns contracted, rows going on",
        lambda x, w: torch.einsum("bnd,dk->bnk", x.view(2, 3, 4), w),
        {"x": (2, 12), "w": (4, 5)},
        free="x0 x1:3 w1",
        held=("einsum meets an operand whose dim cannot shrink",),
    ),
    Sample(
        "laid out for channels",
        lambda x, y: x * y.expand(3, 6),
        {"x": (3, 6), "y": (3, 1)},
        free="x0 x1 y0",
    ),
    Sample(
        "laid out for heads, and chosen by them",
        lambda x, y: torch.where(y.unsqueeze(1).expand(2, 4, 5) > 0, x, 0.5),
        {"x": (2, 4, 5), "y": (2, 5)},
        free="x0 x1 x2 y0 y1",
    ),
    Sample(
        "laid out and contracted by a layer",
        lambda x, w: F.linear(x.expand(3, 6), w),
        {"x": (3, 1), "w": (5, 6)},
        free="x0 w0 w1",
    ),
    Sample(
        "zeros, contracted by a layer",
        lambda x, w: x + F.linear(torch.zeros(3, 6, dtype=torch.float64), w),
        {"x": (3, 5), "w": (5, 6)},
        free="x1 w0 w1",
        held=("add meets an operand whose dim 0 cannot shrink",),
    ),
)
