"""Ops that read or write along one dim by a tensor of numbers."""

from __future__ import annotations

import torch

from tests.samples.sample import Plain, Sample

A = torch.ops.aten
NUMBERS = "its values are positions"


def taken(op: str) -> str:
    return f"{op} takes positions by number"


def written(op: str) -> str:
    return f"{op} writes positions by number"


def picks(*shape: int, below: int) -> torch.Tensor:
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(3))


GATHERED = (
    Sample(
        "gather by numbers laid out for every row",
        lambda x, y, i: (x * y).gather(2, i.expand(2, x.shape[1], 3)),
        {"x": (2, 6, 1), "y": Plain((1, 1, 5)), "i": picks(2, 1, 3, below=5)},
        free="x0 x1 i0 i2",
        found=(0,),
    ),
    Sample(
        "gather of an untracked dim",
        lambda x, y: (x * y).gather(2, torch.arange(36).reshape(2, 6, 3) % 5),
        {"x": (2, 6, 1), "y": Plain((1, 1, 5))},
        held=("gather meets an operand whose dim 1 cannot shrink", "gather meets an operand whose dim 0 cannot shrink"),
        found=(0,),
    ),
    Sample(
        "gather by numbers of the same channels",
        lambda x, y: (x * y).gather(2, (x * y).argsort(2)),
        {"x": (2, 6, 1), "y": Plain((1, 1, 5))},
        free="x0 x1",
    ),
    Sample(
        "gather of a part",
        lambda x, i: x.gather(1, i),
        {"x": (3, 6, 5), "i": picks(2, 4, 5, below=6)},
        free="x2 i1 i2",
        held=(taken("gather"), "gather takes a part of it"),
        found=(),
    ),
    Sample(
        "gather where numbers are known",
        lambda x, i: x.gather(1, i),
        {"x": (1, 6), "i": torch.tensor([[2, 0, 5, 1]])},
        free="i1",
        held=(taken("gather"),),
        found=(0, 1, 3),
    ),
    Sample(
        "gather of a number",
        lambda x, i, y: x.gather(0, i) * y,
        {"x": (), "i": torch.tensor(0), "y": (4,)},
        "y0",
        pattern="y0",
        along=0,
    ),
    Sample(
        "take_along_dim",
        lambda x, i: A.take_along_dim.default(x, i, 1),
        {"x": (2, 6, 5), "i": picks(1, 4, 1, below=6)},
        free="x0 x2 i1",
        held=(taken("take_along_dim"),),
    ),
    Sample(
        "take_along_dim of everything",
        A.take_along_dim.default,
        {"x": (2, 6), "i": picks(4, below=12)},
        held=(taken("take_along_dim"),),
        pattern="x1",
        along=0,
    ),
)


SCATTERED = (
    Sample(
        "scatter by numbers of other channels",
        lambda x, y, s: A.scatter.src(x, 0, y.argsort(0), s * 0),
        {"x": (4, 6), "y": (3, 6), "s": (3, 6)},
        free="x1 y1 s1",
        held=("argsort runs over this axis", written("scatter")),
        found=(0,),
    ),
    Sample(
        "scatter of a part",
        lambda x, i, s: A.scatter.src(x, 1, i, s),
        {"x": (4, 6, 5), "i": picks(3, 2, 5, below=6), "s": (4, 3, 5)},
        free="x2 i2 s2",
        held=(written("scatter"), "scatter takes a part of it"),
    ),
    Sample(
        "scatter of a number",
        lambda x, y: A.scatter.value(x, 0, y.argsort(0), 0.75),
        {"x": (4, 6), "y": (3, 6)},
        free="x1 y1",
        held=("argsort runs over this axis", written("scatter")),
        found=(1,),
    ),
    Sample(
        "scatter adding",
        lambda x, y, s: A.scatter.reduce(x, 0, y.argsort(0), s * 0, reduce="add"),
        {"x": (4, 6), "y": (3, 6), "s": (3, 6)},
        free="x1 y1 s1",
        held=("argsort runs over this axis", written("scatter")),
        found=(0, 1, 2),
    ),
    Sample(
        "scatter multiplying by a number",
        lambda x, y: A.scatter.value_reduce(x, 0, y.argsort(0), 0.0, reduce="multiply"),
        {"x": (4, 6), "y": (3, 6)},
        free="x1 y1",
        held=("argsort runs over this axis", written("scatter")),
        found=(0,),
    ),
    Sample(
        "scatter_add",
        lambda x, y, s: x.scatter_add(0, y.argsort(0), s * 0),
        {"x": (4, 6), "y": (3, 6), "s": (3, 6)},
        free="x1 y1 s1",
        held=("argsort runs over this axis", written("scatter_add")),
        found=(0, 1, 2),
    ),
    Sample(
        "scatter_reduce",
        lambda x, y, s: x.scatter_reduce(0, y.argsort(0), s * 0, "amax", include_self=False),
        {"x": (4, 6), "y": (3, 6), "s": (3, 6)},
        free="x1 y1 s1",
        held=("argsort runs over this axis", written("scatter_reduce")),
        found=(0,),
    ),
    Sample(
        "scatter of known numbers",
        lambda x, i: A.scatter.value(x, 1, i, 0.75),
        {"x": (2, 6), "i": picks(2, 2, below=6)},
        free="x0 i0",
        held=(written("scatter"),),
    ),
)

ADDED = (
    Sample(
        "index_add",
        lambda x, i, s: A.index_add.default(x, 0, i, s * 0),
        {"x": (4, 6), "i": torch.tensor([3, 1, 1]), "s": (3, 6)},
        free="x1 s1",
        held=(NUMBERS, written("index_add")),
        found=(0, 1, 2),
    ),
    Sample(
        "index_copy",
        lambda x, i, s: A.index_copy.default(x, 0, i, s * 0),
        {"x": (4, 6), "i": torch.tensor([3, 1]), "s": (2, 6)},
        free="x1 s1",
        held=(NUMBERS, written("index_copy")),
        found=(0,),
    ),
    Sample(
        "index_fill",
        lambda x, i: A.index_fill.int_Scalar(x, 0, i, 0.75),
        {"x": (4, 6), "i": torch.tensor([3, 1])},
        free="x1",
        held=(NUMBERS, written("index_fill")),
        found=(1,),
    ),
    Sample(
        "index_fill of a tensor",
        lambda x, i, v: A.index_fill.int_Tensor(x, 1, i, v),
        {"x": (4, 6), "i": torch.tensor([3, 1]), "v": ()},
        free="x0",
        held=(NUMBERS, written("index_fill")),
    ),
)

SAMPLES = (*GATHERED, *SCATTERED, *ADDED)
