"""Ops that join tensors, or take them apart."""

from __future__ import annotations

import torch

from tests.samples.sample import PATTERN, Plain, Sample

A = torch.ops.aten
ONES = torch.ones(2, 3, 5, dtype=torch.float64)

JOINING = (
    Sample(
        "cat",
        lambda x, y: torch.cat([x, y], 1),
        {"x": (2, 6, 5), "y": (2, 3, 5)},
        free="x0 x1 x2 y0 y1 y2",
        found=(0, 1, 2, 6, 7, 8),
        sparse={"y": ONES},
    ),
    Sample(
        "cat with an untracked tensor",
        lambda x, y: torch.cat([y, x], -2),
        {"x": (2, 6, 1), "y": Plain((2, 3, 1))},
        free="x1",
        held=(
            "cat lays it beside other channels, and its size cannot change",
            "cat meets an operand whose dim 0 cannot",
        ),
    ),
    Sample(
        "cat with one of a single channel",
        lambda x, y: torch.cat([x, y], 1),
        {"x": (2, 6), "y": (2, 1)},
        free="x0 x1 y0",
        held=("cat lays it beside other channels, and its size cannot change",),
    ),
    Sample("cat of nothing known", lambda x, y: torch.cat([x, y], 1), {"x": Plain((2, 6)), "y": Plain((2, 3))}),
    Sample(
        "cat of a tensor with itself",
        lambda x: torch.cat([x, x.flip(1)], 1),
        {"x": (2, 6)},
        free="x0 x1",
        found=(0, 1, 2, 9, 10, 11),
    ),
    Sample(
        "cat on another dim than the channels",
        lambda x, y: torch.cat([x, y], 0),
        {"x": (2, 6), "y": (3, 6)},
        free="x0 x1 y0 y1",
    ),
    Sample(
        "cat with an empty tensor of the old kind",
        lambda x: torch.cat([torch.empty(0, dtype=torch.float64), x], 1),
        {"x": (2, 6)},
        free="x0 x1",
        found=(0, 1, 2),
    ),
    Sample(
        "cat of multi-head views along the columns",
        lambda x, y: torch.cat([x.view(3, 2, 5), y.view(3, 2, 4)], 2),
        {"x": (3, 10), "y": (3, 8)},
        free="x0 x1 y0 y1",
    ),
    Sample(
        "cat of multi-head views along the rows",
        lambda x, y: torch.cat([x.view(3, 2, 5), y.view(3, 4, 5)], 1),
        {"x": (3, 10), "y": (3, 20)},
        free="x0 x1 y0 y1",
    ),
    Sample(
        "cat of a class token and tokens",
        lambda x, c: torch.cat([c.expand(2, -1, -1), x], 1),
        {"x": (2, 4, 6), "c": (1, 1, 6)},
        free="x1 x2 c2",
        held=("cat meets an operand whose dim 0", "cat lays it beside other channels, and its size cannot change"),
        found=(),
        pattern="x2",
        along=2,
    ),
    Sample(
        "cat of a class token that is as the tokens are",
        lambda x, c: torch.cat([c.expand(1, -1, -1), x], 1),
        {"x": (1, 4, 6), "c": (1, 1, 6)},
        free="x1 x2 c2",
        held=("cat lays it beside other channels, and its size cannot change",),
        found=(0, 1, 2),
        pattern="x2",
        along=2,
        sparse={"c": torch.tensor([*PATTERN, 1, 1, 1], dtype=torch.float64).reshape(1, 1, 6)},
    ),
    Sample("concat", lambda x, y: A.concat.default([x, y], 1), {"x": (2, 6), "y": (2, 3)}, free="x0 x1 y0 y1"),
    Sample(
        "concatenate", lambda x, y: A.concatenate.default([x, y], 1), {"x": (2, 6), "y": (2, 3)}, free="x0 x1 y0 y1"
    ),
    Sample("stack", lambda x, y: torch.stack([x, y], 1), {"x": (2, 6), "y": (2, 6)}, free="x0 x1 y0 y1", along=2),
    Sample("stack, last", lambda x: torch.stack([x, x * 2, x], -1), {"x": (2, 6)}, free="x0 x1", found=(0,)),
)

PIECES = (
    Sample("chunk", lambda x: x.chunk(2, 1), {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2)),
    Sample("chunk, the last dim", lambda x: torch.cat(x.chunk(3, -1)[::-1], 1), {"x": (2, 5, 6)}, free="x0 x1 x2:2"),
    Sample(
        "chunk of unequal pieces",
        lambda x: x.chunk(3, 1),
        {"x": (2, 7)},
        free="x0",
        held=("chunk makes pieces of unequal size",),
        found=(0, 1, 2),
    ),
    Sample("chunk of a multi-head view", lambda x: x.view(3, 2, 8).chunk(2, 2), {"x": (3, 16)}, free="x0 x1"),
    Sample("chunk of another dim", lambda x: x.chunk(2, 0), {"x": (4, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample("tensor_split", lambda x: A.tensor_split.sections(x, 3, 1), {"x": (2, 12)}, free="x0 x1", found=(0, 1, 2)),
    Sample("split", lambda x: x.split(3, 1), {"x": (2, 9, 4)}, free="x0 x1 x2", found=(0, 1, 2)),
    Sample(
        "split of unequal pieces",
        lambda x: x.split(4, 1),
        {"x": (2, 9)},
        free="x0",
        held=("split makes pieces of unequal size",),
    ),
    Sample("split_with_sizes of columns", lambda x: x.view(3, 2, 5).split([2, 3], 2), {"x": (3, 10)}, free="x0 x1"),
    Sample("split_with_sizes of rows", lambda x: x.view(3, 4, 5).split([1, 3], 1), {"x": (3, 20)}, free="x0 x1"),
    Sample("unbind of columns", lambda x: x.view(3, 5, 2).unbind(2), {"x": (3, 10)}, free="x0 x1"),
    Sample(
        "qkv interleaved by head",
        lambda x: torch.cat(x.view(2, 3, 3, 2).unbind(2), 1).flatten(1),
        {"x": (2, 18)},
        free="x0 x1",
    ),
    Sample(
        "split_with_sizes",
        lambda x: x.split([2, 1, 4], 1),
        {"x": (3, 7, 5)},
        free="x0 x1:6 x2",
        held=("split_with_sizes takes",),
        found=(0, 1),
    ),
    Sample("split.sizes", lambda x: A.split.sizes(x, [2, 4], -1), {"x": (3, 6)}, free="x0 x1", found=(0, 1)),
    Sample(
        "split, one part goes its own way",
        lambda x, w: torch.cat([torch.conv1d(x.split([2, 5], 1)[0], w), x.split([2, 5], 1)[1]], 1),
        {"x": (3, 7, 4), "w": (2, 2, 1)},
        free="x0 x1 w0 w1",
        held=("conv1d slides over it", "cat meets an operand whose dim 2 cannot shrink"),
    ),
    Sample(
        "split, one part is a single channel",
        lambda x, w: torch.conv1d(x.split([2, 1, 4], 1)[1], w),
        {"x": (3, 7, 5), "w": (4, 1, 3)},
        free="x0 x1:6 w0",
        held=("split_with_sizes takes a position alone", "conv1d slides over it", "a convolution's kernel"),
    ),
    Sample("unbind", lambda x: x.view(3, 2, 4).unbind(1), {"x": (3, 8)}, free="x0 x1", found=(0, 1, 2)),
    Sample(
        "unbind of one dim",
        lambda x: x.unbind(1),
        {"x": (2, 3, 5)},
        free="x0 x2",
        held=("unbind makes every position",),
    ),
    Sample(
        "qkv by unbind",
        lambda x: torch.stack(x.view(2, 3, 2, 4).unbind(1), 1).flatten(1),
        {"x": (2, 24)},
        free="x0 x1:8",
    ),
)

NAMED = (
    Sample("vstack", lambda x, y: torch.vstack([x, y]), {"x": (2, 6), "y": (3, 6)}, free="x0 x1 y0 y1"),
    Sample(
        "hstack",
        lambda x, y: torch.hstack([x, y]),
        {"x": (2, 6), "y": (2, 3)},
        free="x0 x1 y0 y1",
        found=(0, 1, 2, 6, 7, 8),
        sparse={"y": ONES[:, :, 0]},
    ),
    Sample("dstack", lambda x, y: torch.dstack([x, y]), {"x": (2, 6, 3), "y": (2, 6, 5)}, free="x0 x1 x2 y0 y1 y2"),
    Sample("column_stack", lambda x, y: torch.column_stack([x, y]), {"x": (2, 6), "y": (2, 3)}, free="x0 x1 y0 y1"),
    Sample(
        "column_stack of vectors",
        lambda x, y: torch.column_stack([x, y]),
        {"x": (6,), "y": (6, 3)},
        held=("column_stack makes it a tensor of more dims",),
        pattern="x0",
        along=0,
    ),
    Sample("unsafe_chunk", lambda x: A.unsafe_chunk.default(x, 2, 1), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample("unsafe_split", lambda x: A.unsafe_split.Tensor(x, 3, 1), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample("split_copy", lambda x: A.split_copy.Tensor(x, 3, 1), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample(
        "unsafe_split_with_sizes",
        lambda x: A.unsafe_split_with_sizes.default(x, [2, 4], 1),
        {"x": (2, 6)},
        free="x0 x1",
        found=(0, 1),
    ),
    Sample(
        "split_with_sizes_copy",
        lambda x: A.split_with_sizes_copy.default(x, [2, 4], 1),
        {"x": (2, 6)},
        free="x0 x1",
        found=(0, 1),
    ),
    Sample(
        "tensor_split at numbers",
        lambda x: torch.tensor_split(x, (2, 5), 1),
        {"x": (2, 6, 3)},
        free="x0 x2",
        held=("tensor_split cuts it at numbers in the code",),
        found=(0, 1),
    ),
    Sample(
        "unbind_copy", lambda x: A.unbind_copy.int(x.view(3, 2, 4), 1), {"x": (3, 8)}, free="x0 x1", found=(0, 1, 2)
    ),
)

SAMPLES = (*JOINING, *PIECES, *NAMED)
