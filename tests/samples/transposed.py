"""Transposed convolutions, every argument varied."""

from __future__ import annotations

import torch.nn.functional as F

from tests.samples.convolution import rows
from tests.samples.sample import Plain, Sample

SAMPLES = (
    Sample(
        "conv_transpose2d whose groups have an untracked weight",
        lambda x, w: F.conv_transpose2d(x, w, groups=2),
        {"x": (3, 8, 5, 7), "w": Plain((8, 5, 2, 3))},
        free="x0",
        held=("conv_transpose2d slides over it", "the weight's input channels are fixed"),
    ),
    Sample(
        "conv_transpose2d whose grouped weight has fixed columns",
        lambda x, w: F.conv_transpose2d(x, w.expand(8, 5, 2, 3), groups=2),
        {"x": (3, 8, 5, 7), "w": (8, 1, 2, 3)},
        free="x0 x1 w0",
        held=("conv_transpose2d slides over it", "a convolution's kernel"),
    ),
    Sample(
        "conv_transpose2d",
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=(2, 3), padding=1, output_padding=(1, 0), dilation=(2, 1)),
        {"x": (2, 6, 4, 5), "w": (6, 7, 3, 4), "b": (7,)},
        free="x0 x1 w0 w1 b0",
        held=("conv_transpose2d slides over it", "a convolution's kernel"),
        found=(0, 2),
        sparse={"w": rows(6, 7, 3, 4, inputs=0)},
        resized={"x": (2, 6, 3, 7)},
    ),
    Sample(
        "conv_transpose2d in groups",
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, groups=2),
        {"x": (3, 8, 4, 5), "w": (8, 5, 2, 3), "b": (10,)},
        free="x0 x1 w0 w1:10 b0",
        held=("conv_transpose2d slides over it", "a convolution's kernel"),
        found=(0, 2, 5, 6, 7),
        sparse={"w": rows(8, 5, 2, 3, inputs=0)},
    ),
    Sample(
        "conv_transpose2d depthwise",
        lambda x, w: F.conv_transpose2d(x, w, groups=6),
        {"x": (2, 6, 4, 5), "w": (6, 1, 2, 3)},
        free="x0 x1 w0",
        held=("conv_transpose2d slides over it", "a convolution's kernel"),
        found=(0,),
    ),
    Sample(
        "conv_transpose2d 1x1",
        F.conv_transpose2d,
        {"x": (2, 6, 4, 5), "w": (6, 7, 1, 1), "b": (7,)},
        free="x0 x1 w0 w1 b0",
        held=("conv_transpose2d slides over it",),
        found=(0, 1, 2),
        sparse={"w": rows(6, 7, 1, 1, inputs=0)},
    ),
    Sample(
        "conv_transpose2d 1x1 with a stride",
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2),
        {"x": (2, 6, 4, 5), "w": (6, 7, 1, 1), "b": (7,)},
        free="x0 x1 w0 w1 b0",
        held=("conv_transpose2d slides over it",),
        found=(0, 2),
        sparse={"w": rows(6, 7, 1, 1, inputs=0)},
    ),
    Sample(
        "conv_transpose2d 1x1 with output padding",
        lambda x, w, b: F.conv_transpose2d(x, w, b, output_padding=1, dilation=2),
        {"x": (2, 6, 4, 5), "w": (6, 7, 1, 1), "b": (7,)},
        free="x0 x1 w0 w1 b0",
        held=("conv_transpose2d slides over it",),
        found=(0, 2),
        sparse={"w": rows(6, 7, 1, 1, inputs=0)},
    ),
    Sample(
        "conv_transpose1d unbatched",
        lambda x, w, b: F.conv_transpose1d(x, w, b, stride=2, output_padding=1),
        {"x": (6, 4), "w": (6, 5, 3), "b": (5,)},
        free="x0 w0 w1 b0",
        held=("conv_transpose1d slides over it", "a convolution's kernel"),
        found=(0, 2),
        pattern="x0",
        along=0,
        sparse={"w": rows(6, 5, 3, inputs=0)},
    ),
    Sample(
        "conv_transpose3d",
        lambda x, w: F.conv_transpose3d(x, w, padding=(0, 1, 0)),
        {"x": (2, 4, 3, 5, 6), "w": (4, 7, 2, 3, 1)},
        free="x0 x1 w0 w1",
        held=("conv_transpose3d slides over it", "a convolution's kernel"),
        found=(0, 2),
        sparse={"w": rows(4, 7, 2, 3, 1, inputs=0)},
    ),
    Sample(
        "conv_transpose2d of an untracked input, in groups",
        lambda x, w, b: F.conv_transpose2d(x, w, b, groups=2),
        {"x": Plain((3, 8, 4, 5)), "w": (8, 5, 2, 3), "b": (10,)},
        free="w1:10 b0",
        held=("a convolution's kernel", "conv_transpose2d meets channels that are fixed"),
    ),
)
