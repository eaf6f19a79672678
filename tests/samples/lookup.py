"""Tables that are read by data."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.samples.sample import Sample

INDICES = torch.tensor([[3, 1, 0], [2, 2, 4]])

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
)
