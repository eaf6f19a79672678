"""Ops that tell the positions of two dims apart by their numbers: triangles, diagonals, turns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known, compressed
from surgery.layout import Layout
from surgery.registry import rule


@rule("aten.tril.default", "aten.triu.default")
def triangle(call: Call, input: Value, diagonal: int = 0) -> Layout:
    """Zeros on one side of a diagonal of the last two dims."""
    rank = input.layout.rank
    return call.fix(input.layout, (rank - 2, rank - 1), f"{call.name} tells its positions apart")


@triangle.known
def _known_triangle(call: KnownCall, input: Known, diagonal: int = 0) -> Known:
    rank = len(call.shape)
    held = input.held(rank - 2).held(rank - 1)
    half = torch.tril if str(call.target).startswith("aten.tril") else torch.triu
    cut = held.map(lambda a: half(a, diagonal), call.shape)
    return compressed(cut, (rank - 2, rank - 1))


@rule("aten.diagonal.default", "aten.diagonal_copy.default")
def diagonal(call: Call, input: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Layout:
    """`x [..., n, ..., m, ...] -> [..., diagonal]`."""
    rank = input.layout.rank
    dims = (dim1 % rank, dim2 % rank)
    layout = call.hold(input.layout, dims, f"{call.name} tells its positions apart")
    return Layout(call.shape, tuple(b.squeeze(dims)[..., None] for b in layout.blocks))


@diagonal.known
def _known_diagonal(call: KnownCall, input: Known, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Known:
    held = input.held(dim1 % len(input.shape)).held(dim2 % len(input.shape))
    return held.map(lambda a: a.diagonal(offset, dim1, dim2), call.shape)


@rule("aten.diag_embed.default")
def diag_embed(call: Call, input: Value, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Layout:
    """`x [..., n] -> [..., n, n]`: the last dim on a diagonal, zeros beside it."""
    layout = call.hold(input.layout, [input.layout.rank - 1], "diag_embed lays it on a diagonal")
    rank = len(call.shape)
    places = sorted((dim1 % rank, dim2 % rank))
    blocks = [b.squeeze(b.ndim - 1) for b in layout.blocks]
    for place in places:
        blocks = [b.reshape((*b.shape[:place], 1, *b.shape[place:])) for b in blocks]
    return Layout(call.shape, tuple(blocks))


@diag_embed.known
def _known_diag_embed(call: KnownCall, input: Known, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Known:
    return input.held(len(input.shape) - 1).map(lambda a: torch.diag_embed(a, offset, dim1, dim2), call.shape)


@rule("aten.rot90.default")
def rot90(call: Call, input: Value, k: int = 1, dims: Any = (0, 1)) -> Layout:
    """A plane of two dims turned."""
    layout = call.hold(input.layout, [d % input.layout.rank for d in dims], "rot90 turns it")
    return Layout(call.shape, layout.blocks)


@rot90.known
def _known_rot90(call: KnownCall, input: Known, k: int = 1, dims: Any = (0, 1)) -> Known:
    return input.map(lambda a: torch.rot90(a, k, dims), call.shape)


@rule("aten.fliplr.default", "aten.flipud.default")
def flip(call: Call, input: Value) -> Layout:
    """Dim 1 (`fliplr`) or dim 0 (`flipud`) in reverse order: the ids go along."""
    return Layout(call.shape, tuple(_reversed(call.name, torch.from_numpy(b)).numpy() for b in input.layout.blocks))


def _reversed(name: str, array: Tensor) -> Tensor:
    return array.flip(1 if name == "fliplr" else 0)


@flip.known
def _known_flip(call: KnownCall, input: Known) -> Known:
    return input.map(lambda a: _reversed(call.name, a), call.shape)
