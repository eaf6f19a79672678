"""Ops that take some positions of a dim."""

from __future__ import annotations

import torch

from tests.samples.sample import Plain, Sample

A = torch.ops.aten
HELD = ("slice takes every n-th position",)

SAMPLES = (
    Sample("slice", lambda x: x[:, 1:4], {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1)),
    Sample("slice from the end", lambda x: x[:, -4:-1], {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0,)),
    Sample("slice past the end", lambda x: x[:, 2:100], {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0,)),
    Sample(
        "slice of one position",
        lambda x, w: torch.conv1d(x[:, 2:3], w),
        {"x": (2, 6, 5), "w": (4, 1, 3)},
        free="x0 w0",
        held=("slice takes a position alone", "conv1d slides over it", "a convolution's kernel"),
    ),
    Sample("slice of a row alone", lambda x: x.view(3, 2, 4)[:, 1:2], {"x": (3, 8)}, free="x0 x1"),
    Sample("slice of every other row", lambda x: x.view(3, 4, 2)[:, ::2], {"x": (3, 8)}, free="x0 x1:4"),
    Sample("slice of every other column", lambda x: x.view(3, 2, 4)[:, :, ::2], {"x": (3, 8)}, free="x0 x1:4"),
    Sample("slice of everything", lambda x: A.slice.Tensor(x, 1), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample(
        "slice apart and cat again",
        lambda x: torch.cat([x[:, 4:], x[:, :4]], 1),
        {"x": (2, 6)},
        free="x0 x1",
        found=(2, 3, 4),
    ),
    Sample("slice of rows", lambda x: x.view(3, 4, 2)[:, 1:3], {"x": (3, 8)}, free="x0 x1"),
    Sample("slice of columns", lambda x: x.view(3, 2, 4)[:, :, 1:3], {"x": (3, 8)}, free="x0 x1"),
    Sample("slice with a step", lambda x: x[:, ::2], {"x": (3, 6)}, free="x0 x1:3", found=(0, 1)),
    Sample("slice with a step, later start", lambda x: x[:, 1::3], {"x": (2, 6)}, free="x0 x1:2", found=(0,)),
    Sample(
        "slice with a step that does not fit", lambda x: x[:, ::2], {"x": (3, 7)}, free="x0", held=HELD, found=(0, 1)
    ),
    Sample("slice with a step and an end", lambda x: x[:, :4:2], {"x": (3, 6)}, free="x0", held=HELD, found=(0, 1)),
    Sample("slice with a step, start past it", lambda x: x[:, 2::2], {"x": (3, 6)}, free="x0", held=HELD, found=(0,)),
    Sample(
        "slice of untracked positions", lambda x, y: (x * y)[:, ::2], {"x": (1, 1, 5), "y": Plain((2, 4, 1))}, free="x2"
    ),
    Sample("slice_copy", lambda x: A.slice_copy.Tensor(x, 1, 1, 4), {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1)),
    Sample("narrow_copy", lambda x: A.narrow_copy.default(x, 1, 1, 3), {"x": (2, 6)}, free="x0 x1", found=(0, 1)),
    Sample(
        "select_copy",
        lambda x: A.select_copy.int(x, 2, 3),
        {"x": (2, 6, 5)},
        free="x0 x1",
        held=("select_copy takes position 3",),
        found=(0, 1, 2),
    ),
    Sample("narrow", lambda x: A.narrow.default(x, 1, 1, 3), {"x": (2, 6)}, free="x0 x1", found=(0, 1)),
    Sample("narrow to the end", lambda x: A.narrow.default(x, 1, -3, 3), {"x": (2, 6)}, free="x0 x1", found=()),
    Sample("narrow from the end", lambda x: A.narrow.default(x, -1, -3, 2), {"x": (2, 6)}, free="x0 x1", found=()),
    Sample(
        "select",
        lambda x: x[:, 2],
        {"x": (2, 6, 5)},
        free="x0 x2",
        held=("select takes position 2",),
        found=(0, 1, 2, 3, 4),
    ),
    Sample(
        "select from the end",
        lambda x: x[:, -1],
        {"x": (2, 6, 5)},
        free="x0 x2",
        held=("select takes position -1",),
        found=(),
    ),
    Sample("select a row", lambda x: x.view(3, 2, 4)[:, 1], {"x": (3, 8)}, free="x0 x1"),
    Sample("select a row from the end", lambda x: x.view(3, 2, 4)[:, -2], {"x": (3, 8)}, free="x0 x1"),
    Sample("select a column", lambda x: x.view(3, 2, 4)[..., 3], {"x": (3, 8)}, free="x0 x1"),
    Sample("select q of qkv interleaved by head", lambda x: x.view(2, 3, 3, 2)[:, :, 0], {"x": (2, 18)}, free="x0 x1"),
    Sample(
        "index_select",
        lambda x, i: x.index_select(1, i),
        {"x": (2, 6, 5), "i": torch.tensor([3, 1, 1, 0])},
        free="x0 x2",
        held=("index_select takes positions by number", "its values are positions"),
        found=(1, 2, 3),
    ),
    Sample(
        "index_select of an untracked dim",
        lambda x, y, i: (x * y).index_select(-2, i),
        {"x": (2, 1, 5), "y": Plain((1, 4, 1)), "i": torch.tensor([3, 1])},
        free="x0 x2",
        held=("its values are positions",),
    ),
    Sample(
        "repeat_interleave by data",
        lambda x, r: A.repeat_interleave.self_Tensor(x, r, 2, output_size=6),
        {"x": (2, 6, 3), "r": torch.tensor([1, 3, 2])},
        free="x0 x1",
        held=("repeat_interleave repeats positions as often as data says", "its values are numbers of repeats"),
    ),
    Sample(
        "repeat_interleave by data, flat",
        lambda x, r: A.repeat_interleave.self_Tensor(x, r, output_size=6),
        {"x": (1, 3), "r": torch.tensor([1, 3, 2])},
        held=("repeat_interleave repeats positions as often as data says", "its values are numbers of repeats"),
        along=0,
    ),
)
