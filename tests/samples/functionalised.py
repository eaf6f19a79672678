"""Ops that only functionalised programs have: writes through views."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.samples.sample import Plain, Sample

A = torch.ops.aten


def written(x: Tensor, y: Tensor, at: slice) -> Tensor:
    """`x` with `y` written over some of its channels, through a view."""
    copy = x.clone()
    copy[:, at] = y
    return copy * 1


def added(x: Tensor, y: Tensor, at: slice) -> Tensor:
    """`x` with `y` added to some of its channels, through a view."""
    copy = x.clone()
    copy[:, at].add_(y)
    return copy * 1


SAMPLES = (
    Sample(
        "native_dropout",
        lambda x: A.native_dropout.default(x, 0.5, False),
        {"x": (2, 6)},
        free="x0 x1",
        found=(0, 1, 2),
    ),
    Sample(
        "slice_scatter",
        lambda x, y: A.slice_scatter.default(x, y, 1, 1, 4),
        {"x": (2, 6, 5), "y": (2, 3, 5)},
        free="x0 x1 x2 y0 y1 y2",
        found=(0,),
    ),
    Sample(
        "slice_scatter from the end",
        lambda x, y: A.slice_scatter.default(x, y, -2, -3),
        {"x": (2, 6, 5), "y": (2, 3, 5)},
        free="x0 x1 x2 y0 y1 y2",
        found=(0, 1, 2),
    ),
    Sample(
        "slice_scatter with a step",
        lambda x, y: A.slice_scatter.default(x, y, 1, 0, 6, 2),
        {"x": (2, 6, 5), "y": (2, 3, 5)},
        free="x0 x2 y0 y2",
        held=("slice_scatter writes every n-th position",),
    ),
    Sample(
        "slice_scatter of untracked channels",
        lambda x, y: A.slice_scatter.default(x, y, 1, 1, 4),
        {"x": (2, 6, 5), "y": Plain((2, 3, 5))},
        held=("slice_scatter joins what is tracked with what is not",),
    ),
    Sample(
        "slice_scatter into an untracked dim",
        lambda x, y: A.slice_scatter.default(x.expand(2, 6, 5), y.expand(2, 3, 5), 1, 1, 4),
        {"x": (2, 1, 5), "y": (2, 1, 5)},
        free="x0 x2 y0 y2",
    ),
    Sample(
        "a write through a view",
        lambda x, y: written(x, y, slice(1, 4)),
        {"x": (2, 6, 5), "y": (2, 3, 5)},
        free="x0 x1 x2 y0 y1 y2",
        found=(0,),
    ),
    Sample(
        "a sum into a view, in place",
        lambda x, y: added(x, y, slice(1, 4)),
        {"x": (2, 6, 5), "y": (3, 1)},
        free="x0 x1 x2 y0",
        found=(0, 1, 2),
        sparse={"y": torch.ones(3, 1, dtype=torch.float64)},
    ),
    Sample(
        "batch_norm before a write through a view",
        lambda x, m, v: added(F.batch_norm(x, m, v), m[:3, None], slice(0, 3)),
        {"x": (2, 6, 5), "m": (6,), "v": torch.arange(6, dtype=torch.float64) + 1},
        free="x0 x1 x2 m0 v0",
        found=(0, 1, 2),
    ),
    Sample(
        "a parameter that is written in forward",
        lambda x, y: x.mul_(2) + y,
        {"x": (2, 6), "y": (2, 1)},
        held=("x is written in forward",),
    ),
    Sample(
        "select_scatter",
        lambda x, y: A.select_scatter.default(x, y, 1, 2),
        {"x": (2, 6, 5), "y": (2, 5)},
        free="x0 x2 y0 y1",
        held=("select_scatter writes one position",),
    ),
)
