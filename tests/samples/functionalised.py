"""Ops that only functionalised programs have: writes through views."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.samples.sample import Plain, Sample

A = torch.ops.aten


def written(x: Tensor, y: Tensor, at: slice) -> Tensor:
    """`x` with `y` written over some of its channels, through a view."""
    copy = x.clone()
    copy[:, at] = y
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
        "select_scatter",
        lambda x, y: A.select_scatter.default(x, y, 1, 2),
        {"x": (2, 6, 5), "y": (2, 5)},
        free="x0 x2 y0 y1",
        held=("select_scatter writes one position",),
    ),
)
