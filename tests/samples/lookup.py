"""Tables that are read by data."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.samples.sample import Sample

INDICES = torch.tensor([[3, 1, 0], [2, 2, 4]])

A = torch.ops.aten
SAMPLES = (
    Sample(
        "embedding hands out its columns and keeps its rows",
        lambda w, i: F.embedding(i, w),
        {"w": (5, 6), "i": INDICES},
        free="w1",
        held=("its values are positions", "embedding picks rows by number"),
        found=(0, 1, 2),
        pattern="w1",
        along=2,
    ),
    Sample(
        "embedding of one column",
        lambda w, i: F.embedding(i, w),
        {"w": (5, 1), "i": INDICES},
        held=("its values are positions", "embedding picks rows by number"),
        pattern="w0",
        along=2,
    ),
    Sample(
        "one_hot",
        lambda x: F.one_hot((x > 0).long(), 2)[..., 1],
        {"x": (3, 6)},
        free="x0 x1",
        found=(0, 1, 2),
    ),
    Sample(
        "bucketize",
        torch.bucketize,
        {"x": (3, 6), "b": torch.tensor([-1.0, 0.0, 0.5], dtype=torch.float64)},
        free="x0 x1",
        held=("bucketize looks numbers up in it",),
        found=(0, 1, 2),
        pattern="x1",
    ),
    Sample(
        "isin",
        A.isin.Tensor_Tensor,
        {"x": (3, 6), "b": torch.tensor([-1.0, 0.0, 0.5], dtype=torch.float64)},
        free="x0 x1",
        held=("isin looks numbers up in it",),
        found=(0, 1, 2),
    ),
    Sample(
        "searchsorted",
        torch.searchsorted,
        {"b": torch.tensor([-1.0, 0.0, 0.5], dtype=torch.float64), "x": (3, 6)},
        free="x0 x1",
        held=("searchsorted looks numbers up in it",),
    ),
    Sample(
        "searchsorted, a list for each row",
        lambda b, x: torch.searchsorted(b.sort(1)[0], x),
        {"b": (3, 5), "x": (3, 6)},
        free="b0 x0 x1",
        held=("sort runs over this axis", "searchsorted looks numbers up in it"),
    ),
)
