"""Advanced indexing."""

from __future__ import annotations

import torch

from tests.samples.sample import Plain, Sample

A = torch.ops.aten
ROWS = torch.tensor([3, 1, 1, 0])
GRID = torch.tensor([[3, 1, 0], [2, 2, 4]])
BOOLS = torch.tensor([True, False, True, True])
NUMBERS = "its values are positions"
TAKEN = "index takes positions by number"
WRITTEN = "index_put writes positions by number"
PUT = "index_put puts it by number"

TAKING = (
    Sample(
        "index of a table of biases",
        lambda w, i: w[i],
        {"w": (5, 6), "i": GRID},
        free="w1",
        held=(NUMBERS, TAKEN),
        found=(0, 1, 2),
        pattern="w1",
        along=2,
    ),
    Sample(
        "index of a table whose rows are channels",
        lambda w, i: w[:, i],
        {"w": (6, 5), "i": GRID},
        free="w0",
        held=(NUMBERS, TAKEN),
        found=(0, 1, 2),
        pattern="w0",
        along=0,
    ),
    Sample(
        "index of the patterned dim",
        lambda x, i: x[:, i],
        {"x": (2, 6, 5), "i": ROWS},
        free="x0 x2",
        held=(NUMBERS, TAKEN),
        found=(1, 2, 3),
    ),
    Sample(
        "index of two dims side by side",
        lambda x, i, j: x[:, i, j],
        {"x": (2, 4, 5, 6), "i": torch.tensor([[3], [1]]), "j": torch.tensor([0, 4, 2])},
        free="x0 x3",
        held=(NUMBERS, TAKEN),
        found=(0, 1, 2),
        pattern="x3",
        along=3,
    ),
    Sample(
        "index of two dims apart",
        lambda x, i, j: x[i, :, j],
        {"x": (4, 6, 5, 3), "i": torch.tensor([[3], [1]]), "j": torch.tensor([0, 4, 2, 2])},
        free="x1 x3",
        held=(NUMBERS, TAKEN),
        found=(0, 1, 2),
        along=2,
    ),
    Sample(
        "index of two dims apart, behind another",
        lambda x, i, j: x[:, i, :, j],
        {"x": (3, 4, 6, 5), "i": torch.tensor([[3], [1]]), "j": torch.tensor([0, 4, 2, 2])},
        free="x0 x2",
        held=(NUMBERS, TAKEN),
        found=(0, 1, 2),
        pattern="x2",
        along=3,
    ),
    Sample(
        "index by a single number",
        lambda x, i: x[:, i],
        {"x": (2, 6, 5), "i": torch.tensor(2)},
        free="x0 x2",
        held=("select takes a position by a number that is data",),
        found=(0, 1, 2),
        pattern="x2",
    ),
    Sample(
        "index by numbers made of channels",
        lambda x, y: x[:, (y > 0).long()],
        {"x": (2, 6, 5), "y": (4,)},
        free="x0 x2",
        held=(NUMBERS, TAKEN),
        found=(0, 1, 2),
        pattern="x2",
        along=2,
    ),
    Sample(
        "index of heads by number",
        lambda x, i: x.view(3, 2, 4)[:, i],
        {"x": (3, 8), "i": torch.tensor([1, 0, 1])},
        free="x0 x1:4",
        held=(NUMBERS,),
    ),
    Sample(
        "index of heads counted from the end",
        lambda x: x.view(3, 5, 4)[:, [-2]],
        {"x": (3, 20)},
        free="x0 x1",
    ),
    Sample(
        "index of heads counted from the front",
        lambda x: x.view(3, 5, 4)[:, [2, 0]],
        {"x": (3, 20)},
        free="x0 x1",
    ),
    Sample(
        "index of a head of each of several groups",
        lambda x: x.view(3, 2, 5, 4)[:, :, [-1]],
        {"x": (3, 40)},
        free="x0 x1",
    ),
    Sample(
        "index of heads counted from both ends",
        lambda x: x.view(3, 5, 4)[:, [0, -1]],
        {"x": (3, 20)},
        free="x0 x1:4",
    ),
    Sample(
        "_unsafe_index",
        lambda x, i: A._unsafe_index.Tensor(x, [None, None, i]),
        {"x": (2, 6, 5), "i": GRID},
        free="x0 x1",
        held=(NUMBERS, "_unsafe_index takes positions by number"),
        found=(0, 1, 2),
    ),
)

PUTTING = (
    Sample(
        "index_put",
        lambda x, i, v: A.index_put.default(x, [None, i], v),
        {"x": (2, 6, 5), "i": torch.tensor([3, 1, 0, 5]), "v": (2, 4, 5)},
        free="x0 x2 v0 v2",
        held=(NUMBERS, WRITTEN, PUT),
    ),
    Sample(
        "index_put of the same constant",
        lambda x, i, v: A.index_put.default(x, [None, None, i], v * 0),
        {"x": (2, 6, 5), "i": torch.tensor([3, 1]), "v": (2, 6, 2)},
        free="x0 x1 v0 v1",
        held=(NUMBERS, WRITTEN, PUT),
        found=(0,),
    ),
    Sample(
        "index_put on two dims apart",
        lambda x, i, j, v: A.index_put.default(x, [i, None, j], v),
        {"x": (4, 6, 5, 3), "i": torch.tensor([3, 1]), "j": torch.tensor([0, 4]), "v": (2, 6, 3)},
        free="x1 x3 v1 v2",
        held=(NUMBERS, WRITTEN, PUT),
    ),
    Sample(
        "index_put adding up",
        lambda x, i, v: A.index_put.default(x, [i], v * 0, True),
        {"x": (5, 6), "i": torch.tensor([3, 1, 1]), "v": (6,)},
        free="x1 v0",
        held=(NUMBERS, WRITTEN),
        found=(0, 1, 2),
    ),
    Sample(
        "index_put by a grid of numbers",
        lambda x, i, v: A.index_put.default(x, [None, i], v),
        {"x": (2, 6, 5), "i": torch.tensor([[3, 1], [0, 5]]), "v": (2, 2, 2, 5)},
        held=(NUMBERS, WRITTEN, "index_put puts it where a tensor of numbers or booleans says"),
    ),
    Sample(
        "index_put by booleans",
        lambda x, m: A.index_put.default(x, [m], torch.zeros((), dtype=torch.float64)),
        {"x": (4, 6), "m": BOOLS},
        free="x1",
        held=(NUMBERS, WRITTEN),
        found=(0,),
    ),
    Sample(
        "index_put by booleans of as many rows",
        lambda x, v: A.index_put.default(x, [BOOLS], v),
        {"x": (4, 6), "v": (3, 6)},
        free="x1 v1",
        held=(WRITTEN, PUT),
    ),
    Sample(
        "index_put by a grid of booleans",
        lambda x, m: A.index_put.default(x, [m], torch.zeros((), dtype=torch.float64)),
        {"x": (4, 2, 6), "m": BOOLS[:, None].expand(4, 2).clone()},
        held=(NUMBERS, WRITTEN),
        found=(0,),
        pattern="x2",
        along=2,
    ),
    Sample(
        "index_put in place",
        lambda x, i, v: x.clone().index_put_((i,), v),
        {"x": (4, 6), "i": torch.tensor([3, 1]), "v": (2, 6)},
        free="x1 v1",
        held=(NUMBERS, "index_put_ writes positions by number", "index_put_ puts it by number"),
    ),
    Sample(
        "index_put of all that is known",
        lambda x, i, v: x * A.index_put.default(torch.zeros_like(x), [None, i], v * 0),
        {"x": (2, 6), "i": torch.tensor([3, 1]), "v": (2, 2)},
        free="x0 v0",
        held=(NUMBERS, WRITTEN, PUT),
    ),
    Sample(
        "_unsafe_index_put",
        lambda x, i, v: A._unsafe_index_put.default(x, [None, i], v),
        {"x": (2, 6, 5), "i": torch.tensor([3, 1]), "v": Plain((1, 1, 1))},
        free="x0 x2",
        held=(NUMBERS, "_unsafe_index_put writes positions by number"),
    ),
)

SAMPLES = (*TAKING, *PUTTING)
