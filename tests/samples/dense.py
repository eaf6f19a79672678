"""Linear layers and matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.samples.convolution import rows
from tests.samples.sample import Plain, Sample

A = torch.ops.aten

WITH_A_WEIGHT = (
    Sample(
        "linear",
        F.linear,
        {"x": (2, 6), "w": (5, 6), "b": (5,)},
        free="x0 x1 w0 w1 b0",
        found=(0, 1, 2),
        sparse={"w": rows(5, 6)},
    ),
    Sample(
        "linear without a bias, on tokens",
        F.linear,
        {"x": (2, 3, 6), "w": (5, 6)},
        free="x0 x1 x2 w0 w1",
        found=(0, 1, 2),
        pattern="x2",
        along=2,
        sparse={"w": rows(5, 6)},
        resized={"x": (2, 4, 6)},
    ),
    Sample(
        "linear of a vector",
        F.linear,
        {"x": (6,), "w": (5, 6), "b": (5,)},
        free="x0 w0 w1 b0",
        found=(0, 1, 2),
        pattern="x0",
        along=0,
        sparse={"w": rows(5, 6)},
    ),
    Sample(
        "linear reads rows of a multi-head view",
        lambda x, w: F.linear(x.view(2, 3, 4), w),
        {"x": (2, 12), "w": (5, 4)},
        free="x0 x1:4 w0 w1",
    ),
    Sample(
        "linear to one output",
        F.linear,
        {"x": (2, 6), "w": (1, 6), "b": (1,)},
        free="x0 x1 w1",
    ),
    Sample(
        "linear from one input",
        F.linear,
        {"x": (2, 1), "w": (5, 1), "b": (5,)},
        free="x0 w0 b0",
        pattern="x0",
    ),
    Sample(
        "linear with a weight that is a vector",
        F.linear,
        {"x": (2, 6), "w": (6,)},
        held=("linear of these shapes has no rule yet",),
    ),
    Sample(
        "linear with a weight of entangled rows and columns",
        lambda x, w: F.linear(x, w.view(5, 6)),
        {"x": (2, 6), "w": (30,)},
        free="x0",
        held=("the weight's rows and columns are entangled", "linear: the weight's inputs are fixed"),
    ),
    Sample(
        "linear of an untracked input",
        F.linear,
        {"x": Plain((2, 6)), "w": (5, 6), "b": (5,)},
        free="w0 b0",
        held=("linear meets channels that are fixed",),
        found=(0, 1, 2),
        sparse={"w": rows(5, 6)},
    ),
    Sample(
        "linear with an untracked weight",
        F.linear,
        {"x": (2, 6), "w": Plain((5, 6)), "b": (5,)},
        free="x0",
        held=("linear: the weight's inputs are fixed", "linear meets an operand whose dim 1 cannot shrink"),
    ),
    Sample(
        "linear with an untracked bias",
        F.linear,
        {"x": (2, 6), "w": (5, 6), "b": Plain((5,))},
        free="x0 x1 w1",
        held=("linear meets an operand whose dim 1 cannot shrink",),
    ),
    Sample(
        "addmm",
        lambda x, w, b: torch.addmm(b, x, w),
        {"x": (2, 6), "w": (6, 5), "b": (5,)},
        free="x0 x1 w0 w1 b0",
        found=(0, 1, 2),
        sparse={"w": rows(6, 5, inputs=0)},
    ),
    Sample(
        "addmm with a bias of rows",
        lambda x, w, b: torch.addmm(b, x, w),
        {"x": (2, 6), "w": (6, 5), "b": (2, 5)},
        free="x0 x1 w0 w1 b0 b1",
    ),
    Sample(
        "addmm with a bias of one row",
        lambda x, w, b: torch.addmm(b, x, w),
        {"x": (2, 6), "w": (6, 5), "b": (1, 5)},
        free="x0 x1 w0 w1 b1",
    ),
    Sample(
        "addmm with one bias for all",
        lambda x, w, b: torch.addmm(b, x, w),
        {"x": (2, 6), "w": (6, 5), "b": (1,)},
        free="x0 x1 w0 w1",
        found=(0, 1, 2),
        sparse={"w": rows(6, 5, inputs=0)},
    ),
    Sample(
        "addmm that scales",
        lambda x, w, b: torch.addmm(b, x, w, beta=0.5, alpha=2),
        {"x": (2, 6), "w": (6, 5), "b": (5,)},
        held=("addmm of these shapes has no rule yet",),
    ),
    Sample(
        "linear with weights joined in forward",
        lambda x, w, v: F.linear(x, torch.cat([w, v])),
        {"x": (2, 6), "w": (5, 6), "v": (3, 6)},
        free="x0 x1 w0 w1 v0 v1",
        found=(0, 1, 2),
        sparse={"w": rows(5, 6)},
    ),
    Sample(
        "linear with a low-rank change of its weight",
        lambda x, w, p, q: F.linear(x, w + p @ q),
        {"x": (2, 6), "w": (5, 6), "p": (5, 3), "q": (3, 6)},
        free="x0 x1 w0 w1 p0 p1 q0 q1",
    ),
    Sample(
        "matmul with a matrix",
        torch.matmul,
        {"x": (2, 3, 6), "w": (6, 5)},
        free="x0 x1 x2 w0 w1",
        found=(0, 1, 2),
        pattern="x2",
        along=2,
        sparse={"w": rows(6, 5, inputs=0)},
        resized={"x": (2, 4, 6)},
    ),
    Sample(
        "mm with a transposed matrix",
        lambda x, w: torch.mm(x, w.t()),
        {"x": (2, 6), "w": (5, 6)},
        free="x0 x1 w0 w1",
        found=(0, 1, 2),
        sparse={"w": rows(5, 6)},
    ),
)

OTHERS = (
    Sample(
        "matmul of a vector",
        torch.matmul,
        {"x": (6,), "w": (6, 5)},
        held=("matmul of these shapes has no rule yet",),
        pattern="x0",
    ),
    Sample(
        "matmul with a vector",
        torch.matmul,
        {"x": (2, 6), "w": (6,)},
        held=("matmul of these shapes has no rule yet",),
    ),
)

SAMPLES = (*WITH_A_WEIGHT, *OTHERS)
