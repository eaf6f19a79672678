"""Convolutions, plain and transposed, every argument varied."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.samples.sample import Plain, Sample


def rows(*shape: int, inputs: int = 1) -> Tensor:
    """A weight whose output 0 reads the constant 0, output 1 all three constants, output 2 nothing, the others all.

    The constants are those of PATTERN; `inputs` is the weight's dim of input channels.
    """
    weight = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    by_row = weight.movedim(inputs, 1) if inputs else weight.transpose(0, 1)
    by_row[0, 1:] = 0
    by_row[1, 3:] = 0
    by_row[2] = 0
    return weight


PLAIN = (
    Sample(
        "conv2d",
        lambda x, w, b: F.conv2d(x, w, b, stride=(2, 1), dilation=(1, 2)),
        {"x": (2, 6, 7, 9), "w": (5, 6, 3, 4), "b": (5,)},
        free="x0 x1 w0 w1 b0",
        held=("conv2d slides over it", "a convolution's kernel"),
        found=(0, 1, 2),
        sparse={"w": rows(5, 6, 3, 4)},
        resized={"x": (2, 6, 8, 8)},
    ),
    Sample(
        "conv2d with zero padding",
        lambda x, w, b: F.conv2d(x, w, b, padding=(0, 1)),
        {"x": (2, 6, 5, 7), "w": (5, 6, 3, 2), "b": (5,)},
        free="x0 x1 w0 w1 b0",
        held=("conv2d slides over it", "a convolution's kernel"),
        found=(0, 2),
        sparse={"w": rows(5, 6, 3, 2)},
        resized={"x": (2, 6, 8, 8)},
    ),
    Sample(
        "conv2d 1x1 with zero padding",
        lambda x, w: F.conv2d(x, w, padding=1),
        {"x": (2, 6, 5, 7), "w": (4, 6, 1, 1)},
        free="x0 x1 w0 w1",
        held=("conv2d slides over it",),
        found=(0, 2),
        sparse={"w": rows(4, 6, 1, 1)},
    ),
    Sample(
        "conv2d padding='same'",
        lambda x, w, b: F.conv2d(x, w, b, padding="same", dilation=2),
        {"x": (2, 6, 5, 7), "w": (4, 6, 2, 3), "b": (4,)},
        free="x0 x1 w0 w1 b0",
        held=("conv2d slides over it", "a convolution's kernel"),
        found=(0, 2),
        sparse={"w": rows(4, 6, 2, 3)},
    ),
    Sample(
        "conv2d 1x1 padding='same'",
        lambda x, w: F.conv2d(x, w, padding="same"),
        {"x": (2, 6, 5, 7), "w": (4, 6, 1, 1)},
        free="x0 x1 w0 w1",
        held=("conv2d slides over it",),
        found=(0, 1, 2),
        sparse={"w": rows(4, 6, 1, 1)},
    ),
    Sample(
        "conv2d padding='valid', unbatched",
        lambda x, w, b: F.conv2d(x, w, b, padding="valid"),
        {"x": (6, 5, 7), "w": (4, 6, 2, 3), "b": (4,)},
        free="x0 w0 w1 b0",
        held=("conv2d slides over it", "a convolution's kernel"),
        found=(0, 1, 2),
        pattern="x0",
        along=0,
        sparse={"w": rows(4, 6, 2, 3)},
    ),
    Sample(
        "conv1d",
        lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1, dilation=2),
        {"x": (2, 6, 9), "w": (5, 6, 3), "b": (5,)},
        free="x0 x1 w0 w1 b0",
        held=("conv1d slides over it", "a convolution's kernel"),
        found=(0, 2),
        sparse={"w": rows(5, 6, 3)},
    ),
    Sample(
        "conv1d padding='same', in two groups",
        lambda x, w: F.conv1d(x, w, padding="same", groups=2),
        {"x": (3, 8, 5), "w": (6, 4, 2)},
        free="x0 x1 w0 w1:8",
        held=("conv1d slides over it", "a convolution's kernel"),
        found=(0, 2),
        sparse={"w": rows(6, 4, 2)},
    ),
    Sample(
        "conv3d",
        lambda x, w, b: F.conv3d(x, w, b, stride=(1, 2, 1)),
        {"x": (2, 4, 3, 5, 6), "w": (5, 4, 2, 3, 4), "b": (5,)},
        free="x0 x1 w0 w1 b0",
        held=("conv3d slides over it", "a convolution's kernel"),
        found=(0, 1, 2),
        sparse={"w": rows(5, 4, 2, 3, 4)},
    ),
    Sample(
        "conv3d padding='same'",
        lambda x, w: F.conv3d(x, w, padding="same"),
        {"x": (2, 4, 3, 5, 6), "w": (5, 4, 1, 3, 2)},
        free="x0 x1 w0 w1",
        held=("conv3d slides over it", "a convolution's kernel"),
        found=(0, 2),
        sparse={"w": rows(5, 4, 1, 3, 2)},
    ),
    Sample(
        "conv2d reads what circular padding copied",
        lambda x, w, b: F.conv2d(F.pad(x, (1, 2, 2, 1), mode="circular"), w, b),
        {"x": (2, 6, 4, 5), "w": (5, 6, 3, 4), "b": (5,)},
        free="x0 x1 w0 w1 b0",
        held=("pad changes it (circular)", "a convolution's kernel"),
        found=(0, 1, 2),
        sparse={"w": rows(5, 6, 3, 4)},
    ),
    Sample(
        "conv2d reads an explicit zero pad",
        lambda x, w: F.conv2d(F.pad(x, (1, 0)), w),
        {"x": (2, 6, 4, 5), "w": (5, 6, 3, 2)},
        free="x0 x1 w0 w1",
        held=("conv2d slides over it", "a convolution's kernel"),
        found=(0, 2),
        sparse={"w": rows(5, 6, 3, 2)},
    ),
)

GROUPED = (
    Sample(
        "conv2d in three groups",
        lambda x, w, b: F.conv2d(x, w, b, groups=3, stride=2),
        {"x": (2, 9, 5, 7), "w": (12, 3, 2, 4), "b": (12,)},
        free="x0 x1 w0 w1:9 b0",
        held=("conv2d slides over it", "a convolution's kernel"),
        found=(0, 1, 2, 3),
        sparse={"w": rows(12, 3, 2, 4)},
    ),
    Sample(
        "conv2d depthwise, padded",
        lambda x, w, b: F.conv2d(x, w, b, groups=6, padding=1),
        {"x": (2, 6, 4, 5), "w": (6, 1, 3, 2), "b": (6,)},
        free="x0 x1 w0 b0",
        held=("conv2d slides over it", "a convolution's kernel"),
        found=(0,),
    ),
    Sample(
        "conv2d depthwise with a multiplier of 2",
        lambda x, w, b: F.conv2d(x, w, b, groups=5),
        {"x": (2, 5, 4, 6), "w": (10, 1, 3, 2), "b": (10,)},
        free="x0 x1 w0 b0",
        held=("conv2d slides over it", "a convolution's kernel"),
        found=(0, 1, 2, 3, 4, 5),
    ),
    Sample(
        "conv1d unbatched, in groups",
        lambda x, w, b: F.conv1d(x, w, b, groups=2),
        {"x": (8, 7), "w": (6, 4, 3), "b": (6,)},
        free="x0 w0 w1:8 b0",
        held=("conv1d slides over it", "a convolution's kernel"),
        found=(0, 1, 2),
        pattern="x0",
        along=0,
        sparse={"w": rows(6, 4, 3)},
    ),
    Sample(
        "conv2d whose groups read an untracked input",
        lambda x, w, b: F.conv2d(x, w, b, groups=2),
        {"x": Plain((3, 8, 5, 7)), "w": (6, 4, 2, 3), "b": (6,)},
        free="w0 b0",
        held=("a convolution's kernel", "conv2d meets channels that are fixed"),
        found=(0, 1, 2),
        sparse={"w": rows(6, 4, 2, 3)},
    ),
    Sample(
        "conv2d whose groups have an untracked weight",
        lambda x, w: F.conv2d(x, w, groups=2),
        {"x": (3, 8, 5, 7), "w": Plain((6, 4, 2, 3))},
        free="x0",
        held=("conv2d slides over it", "the weight's input channels are fixed"),
    ),
    Sample(
        "conv2d depthwise with an untracked weight",
        lambda x, w: F.conv2d(x, w, groups=6),
        {"x": (2, 6, 5, 7), "w": Plain((6, 1, 2, 3))},
        free="x0",
        held=("conv2d slides over it", "the weight's input channels are fixed"),
    ),
    Sample(
        "conv2d depthwise whose weight is one kernel stretched",
        lambda x, w: F.conv2d(x, w.expand(6, 1, 2, 3), groups=6),
        {"x": (2, 6, 5, 7), "w": (1, 1, 2, 3)},
        free="x0",
        held=("conv2d slides over it", "the weight's input channels are fixed", "a convolution's kernel"),
        found=(0, 1, 2),
    ),
    Sample(
        "a grouped weight read twice",
        lambda x, y, w: (F.conv2d(x, w, groups=2), F.conv2d(y, w, groups=2)),
        {"x": (3, 8, 5, 7), "y": (2, 8, 4, 6), "w": (6, 4, 2, 3)},
        free="x0 x1 y0 y1 w0 w1:8",
        held=("conv2d slides over it", "a convolution's kernel"),
    ),
    Sample(
        "a grouped weight read in groups of two sizes",
        lambda x, y, w: (F.conv2d(x, w, groups=2), F.conv2d(y, w, groups=3)),
        {"x": (3, 8, 5, 7), "y": (2, 12, 4, 6), "w": (6, 4, 2, 3)},
        free="x0 y0",
        held=("conv2d slides over it", "a convolution's kernel", "w is used with different conv_groups"),
    ),
    Sample(
        "a grouped weight computed in forward",
        lambda x, w, s: F.conv2d(x, w * s, groups=2),
        {"x": (3, 8, 5, 7), "w": (6, 4, 2, 3), "s": (6, 1, 1, 1)},
        free="x0 x1:4 w0 w1 s0",
        held=("conv2d slides over it", "a convolution's kernel"),
    ),
    Sample(
        "a grouped weight with a norm over its own inputs",
        lambda x, w: F.conv2d(x, w / w.norm(dim=1, keepdim=True), groups=2),
        {"x": (3, 8, 5, 7), "w": (6, 4, 2, 3)},
        free="x0 w0",
        held=("conv2d slides over it", "a convolution's kernel", "linalg_vector_norm runs over this axis"),
    ),
)

FIXED = (
    Sample(
        "conv2d of an untracked input",
        F.conv2d,
        {"x": Plain((2, 6, 5, 7)), "w": (5, 6, 3, 4), "b": (5,)},
        free="w0 b0",
        held=("a convolution's kernel", "conv2d meets channels that are fixed"),
        found=(0, 1, 2),
        sparse={"w": rows(5, 6, 3, 4)},
    ),
    Sample(
        "conv2d with an untracked weight",
        F.conv2d,
        {"x": (2, 6, 5, 7), "w": Plain((5, 6, 3, 4)), "b": (5,)},
        free="x0",
        held=("conv2d slides over it", "the weight's input channels are fixed", "conv2d meets channels that are fixed"),
    ),
    Sample(
        "conv2d with an untracked bias",
        F.conv2d,
        {"x": (2, 6, 5, 7), "w": (5, 6, 3, 4), "b": Plain((5,))},
        free="x0 x1 w1",
        held=("conv2d slides over it", "a convolution's kernel", "the bias cannot shrink"),
    ),
    Sample(
        "conv2d of one channel",
        lambda x, w, b: F.conv2d(x, w, b, padding=1),
        {"x": (2, 1, 5, 7), "w": (4, 1, 3, 2), "b": (4,)},
        free="x0 w0 b0",
        held=("conv2d slides over it", "a convolution's kernel"),
    ),
    Sample(
        "conv2d to one channel",
        F.conv2d,
        {"x": (2, 4, 5, 7), "w": (1, 4, 3, 2)},
        free="x0 x1 w1",
        held=("conv2d slides over it", "a convolution's kernel"),
    ),
    Sample(
        "conv2d with a weight of entangled rows and columns",
        lambda x, w: F.conv2d(x, w.reshape(4, 6, 3, 1)),
        {"x": (2, 6, 5, 7), "w": (24, 3)},
        free="x0",
        held=(
            "conv2d slides over it",
            "a convolution's kernel",
            "the weight's input channels are fixed",
            "the weight's rows and columns are entangled",
        ),
    ),
)

JOINT = (
    Sample(
        "conv2d reads a view of a vector",
        lambda x, w: F.conv2d(x.view(3, 6, 2, 4), w, padding=1),
        {"x": (3, 48), "w": (5, 6, 2, 3)},
        free="x0 x1:6 w0 w1",
        held=("a convolution's kernel",),
    ),
    Sample(
        "conv2d in groups reads a view of a vector",
        lambda x, w: F.conv2d(x.view(3, 6, 2, 4), w, groups=3),
        {"x": (3, 48), "w": (9, 2, 2, 3)},
        free="x0 x1:6 w0 w1:6",
        held=("a convolution's kernel",),
    ),
    Sample(
        "conv2d whose batch and channels are entangled",
        lambda x, w: F.conv2d(x.view(3, 4, 2, 5), w),
        {"x": (12, 2, 5), "w": (6, 4, 1, 3)},
        free="x0:4 w0 w1",
        held=("conv2d slides over it", "a convolution's kernel"),
    ),
)

SAMPLES = (*PLAIN, *GROUPED, *FIXED, *JOINT)
