"""Ops that tell the positions of two dims apart by their numbers."""

from __future__ import annotations

import torch

from tests.samples.sample import Sample

A = torch.ops.aten

SAMPLES = (
    Sample("tril", torch.tril, {"x": (3, 6, 5)}, free="x0", held=("tril tells its positions apart",), found=(0,)),
    Sample(
        "triu",
        lambda x: x.triu(1),
        {"x": (3, 6, 5, 4)},
        free="x0 x1",
        held=("triu tells its positions apart",),
        found=(0,),
    ),
    Sample(
        "tril in place, of a copy",
        lambda x: x.clone().tril_(),
        {"x": (3, 6, 5)},
        free="x0",
        held=("tril_ tells its positions apart",),
        found=(0,),
    ),
    Sample(
        "diagonal",
        lambda x: x.diagonal(1, 0, 2),
        {"x": (3, 6, 4, 5)},
        free="x1 x3",
        held=("diagonal tells its positions apart",),
        found=(0, 1, 2),
        along=0,
    ),
    Sample(
        "diagonal_copy",
        lambda x: A.diagonal_copy.default(x, 0, -2, -1),
        {"x": (3, 6, 4, 5)},
        free="x0 x1",
        held=("diagonal_copy tells its positions apart",),
        found=(0, 1, 2),
    ),
    Sample(
        "diag_embed",
        torch.diag_embed,
        {"x": (3, 6, 4)},
        free="x0 x1",
        held=("diag_embed lays it on a diagonal",),
        found=(0,),
    ),
    Sample(
        "diag_embed on other dims",
        lambda x: torch.diag_embed(x, 1, 0, 2),
        {"x": (3, 6, 4)},
        free="x0 x1",
        held=("diag_embed lays it on a diagonal",),
        found=(0,),
        along=3,
    ),
    Sample(
        "rot90",
        lambda x: torch.rot90(x, 1, (2, 3)),
        {"x": (3, 6, 4, 5)},
        free="x0 x1",
        held=("rot90 turns it",),
        found=(0, 1, 2),
    ),
    Sample(
        "rot90 of channels",
        lambda x: torch.rot90(x, 3, (1, 0)),
        {"x": (3, 6, 4)},
        free="x2",
        held=("rot90 turns it",),
        found=(3, 4, 5),
        along=0,
    ),
    Sample("fliplr", A.fliplr.default, {"x": (3, 6, 4)}, free="x0 x1 x2", found=(3, 4, 5)),
    Sample("flipud", A.flipud.default, {"x": (3, 6)}, free="x0 x1", found=(0, 1, 2)),
)
