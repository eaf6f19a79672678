"""Windows cut out of a tensor, and put together again: im2col, col2im, unfold."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known
from surgery.layout import Layout
from surgery.registry import rule
from surgery.rules.spatial import flattened


def _repeated(array: Tensor, times: int, dim: int) -> Tensor:
    return array.repeat_interleave(times, dim) if array.shape[dim] > 1 else array


@rule("aten.im2col.default")
def im2col(call: Call, input: Value, kernel_size: list[int], **_: Any) -> Layout:
    """`x [b, c, h, w] -> [b, c·k·k, windows]`: every channel becomes k·k channels, its id is repeated."""
    rank = input.layout.rank
    layout = call.hold(input.layout, (rank - 2, rank - 1), "im2col slides over it")
    times = math.prod(kernel_size)
    blocks = [torch.from_numpy(b).flatten(rank - 2) for b in layout.blocks]
    return Layout(call.shape, tuple(_repeated(b, times, rank - 3).numpy() for b in blocks))


@im2col.known
def _known_im2col(call: KnownCall, input: Known, kernel_size: list[int], padding: list[int], **_: Any) -> Known:
    """The same in space, a channel's windows are the same; zero padding is a border."""
    rank = len(input.shape)
    flat = flattened(input, (rank - 2, rank - 1))
    varies = flat.varies | (flat.value != 0) if any(padding) else flat.varies
    spread = partial(_repeated, times=math.prod(kernel_size), dim=rank - 3)
    return Known(call.shape, flat.value, varies).map(lambda a: spread(a.flatten(rank - 2)), call.shape)


@rule("aten.col2im.default")
def col2im(call: Call, input: Value, kernel_size: list[int], **_: Any) -> Layout:
    """`x [b, c·k·k, windows] -> [b, c, h, w]`: the k·k channels behind each output channel go together."""
    dim = input.layout.rank - 2
    layout, ids = call.channels(input, dim)
    layout = call.hold(layout, [dim + 1], "col2im adds windows up")
    kept = tuple(b[..., None] for b in layout.blocks if b.shape[dim] == 1)
    if ids is None:
        return Layout(call.shape, kept)
    rows = ids.reshape(-1, math.prod(kernel_size))
    if len(rows) == 1:  # a dim of one position carries no ids on: who reads it would not be seen to
        call.pin(ids, "col2im makes one channel of it")
    call.tie(rows, rows[:, :1])
    return Layout(call.shape, kept + call.placed(rows[:, 0], len(call.shape), dim))


@col2im.known
def _known_col2im(call: KnownCall, input: Known, kernel_size: list[int], **_: Any) -> Known:
    """How many windows meet at a position differs: only zeros stay what they are."""
    dim = len(input.shape) - 2
    flat = flattened(input, [dim + 1]).held(dim)
    varies = flat.varies | (flat.value != 0)
    rows = varies.unflatten(dim, (-1, math.prod(kernel_size))).any(dim + 1)[..., None]
    return Known(call.shape, torch.zeros([1] * len(call.shape), dtype=call.dtype), rows)


@rule("aten.unfold.default")
def unfold(call: Call, input: Value, dimension: int, size: int, step: int) -> Layout:
    """`x [..., n, ...] -> [..., windows, ..., size]`: the dim is held, the others pass."""
    layout = input.layout
    if layout.rank:
        layout = call.hold(layout, [dimension % layout.rank], "unfold cuts windows out of it")
    return Layout(call.shape, tuple(b[..., None] for b in layout.blocks))


@unfold.known
def _known_unfold(call: KnownCall, input: Known, dimension: int, size: int, step: int) -> Known:
    def cut(array: Tensor) -> Tensor:
        moves = array.dim() and array.shape[dimension] > 1
        return array.unfold(dimension, size, step) if moves else array[..., None]

    return input.map(cut, call.shape)


@rule("aten.as_strided.default")
def as_strided(call: Call, input: Value, **_: Any) -> Layout:
    """Positions by their place in memory, which a cut changes."""
    call.hold_all(input, "as_strided reads it by its place in memory")
    return Layout(call.shape)
