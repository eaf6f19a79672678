"""Windows cut out of a tensor, and put together again."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.samples.sample import Sample

A = torch.ops.aten

SAMPLES = (
    Sample(
        "im2col",
        lambda x: F.unfold(x, (2, 3), stride=2),
        {"x": (2, 6, 5, 7)},
        free="x0 x1",
        held=("im2col slides over it",),
        found=tuple(range(18)),
        resized={"x": (2, 6, 8, 8)},
    ),
    Sample(
        "im2col with zero padding",
        lambda x: F.unfold(x, 2, padding=1),
        {"x": (2, 6, 5, 7)},
        free="x0 x1",
        held=("im2col slides over it",),
        found=(0, 1, 2, 3),
    ),
    Sample(
        "im2col unbatched",
        lambda x: F.unfold(x, 2),
        {"x": (6, 5, 7)},
        free="x0",
        held=("im2col slides over it",),
        found=tuple(range(12)),
        pattern="x0",
        along=0,
    ),
    Sample(
        "col2im",
        lambda x: F.fold(x, (3, 4), 2),
        {"x": (2, 12, 6)},
        free="x0 x1:3",
        held=("col2im adds windows up",),
        found=(),
    ),
    Sample(
        "col2im of one kernel element",
        lambda x: F.fold(x, (2, 3), 1),
        {"x": (2, 5, 6)},
        free="x0 x1",
        held=("col2im adds windows up",),
        found=(0,),
    ),
    Sample(
        "col2im to one channel",
        lambda x: F.fold(x, (3, 4), 2),
        {"x": (2, 4, 6)},
        free="x0",
        held=("col2im adds windows up", "col2im makes one channel of it"),
    ),
    Sample(
        "im2col and back",
        lambda x: F.fold(F.unfold(x, 2), (3, 4), 2),
        {"x": (2, 5, 3, 4)},
        free="x0 x1",
        held=("im2col slides over it",),
        found=(0,),
    ),
    Sample(
        "unfold",
        lambda x: x.unfold(2, 2, 1),
        {"x": (2, 6, 5)},
        free="x0 x1",
        held=("unfold cuts windows out of it",),
        found=(0, 1, 2),
    ),
    Sample(
        "unfold of channels",
        lambda x: x.unfold(-2, 2, 2),
        {"x": (2, 6, 5)},
        free="x0 x2",
        held=("unfold cuts windows out of it",),
        found=(),
    ),
    Sample(
        "as_strided",
        lambda x: x.as_strided((2, 3), (6, 2)),
        {"x": (2, 6)},
        held=("as_strided reads it by its place in memory",),
    ),
)
