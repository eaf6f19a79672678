"""Ops that take some positions of a dim: what is not taken is not read here."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known
from surgery.layout import Layout
from surgery.registry import rule
from surgery.rules.joining import rows_apart, without_lone
from surgery.rules.movement import moved
from surgery.rules.spatial import flattened


def bounds(size: int, start: int | None, end: int | None) -> tuple[int, int]:
    """A slice's first position and the one behind its last."""
    first = 0 if start is None else max(start + size, 0) if start < 0 else min(start, size)
    last = size if end is None else max(end + size, 0) if end < 0 else min(end, size)
    return first, max(first, last)


def counted(bound: Any) -> bool:
    """Whether a bound is a number of the code, not one that is data (`x[: lengths.max()]`)."""
    return bound is None or isinstance(bound, int)


@rule("aten.slice.Tensor", "aten.slice_copy.Tensor", sizes=("start", "end"), drops=True)
def slice_(
    call: Call, input: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Layout:
    """`x[start:end:step]` along a dim: its bounds are sizes that the code knows."""
    dim %= input.layout.rank
    if not (counted(start) and counted(end)):
        layout = call.hold(input.layout, [dim], f"{call.name} takes positions by numbers that are data")
        return Layout(call.shape, layout.blocks)
    size = input.shape[dim]
    first, last = bounds(size, start, end)
    layout = input.layout
    if input.settled and (last - first) < size:  # as many as the input has tokens, for all that is known
        layout = call.hold(layout, [dim], "slice takes a part of a parameter")
    block = layout.block_of(dim)
    if block is not None and step > 1:
        if first < step and last == size and size % step == 0:
            # every step-th position of each run of `step`: the runs go together, and the pattern stays
            runs = block.swapaxes(dim, -1).reshape(-1, size // step, step)
            call.tie(runs, runs[..., :1])
        else:
            layout = call.hold(layout, [dim], "slice takes every n-th position")
    elif block is not None:
        rows_apart(call, np.split(block, [first, last], dim), dim)
    taken = moved(call, layout, call.shape, lambda a: a if a.shape[dim] == 1 else _sliced(a, dim, first, last, step))
    return Layout(call.shape, without_lone(call, taken.blocks))


def _sliced(array: Tensor, dim: int, first: int, last: int, step: int) -> Tensor:
    taken: Tensor = torch.ops.aten.slice.Tensor(array, dim, first, last, step)
    return taken.contiguous()


@slice_.known
def _known_slice(
    call: KnownCall, input: Known, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Known:
    dim %= len(input.shape)
    if not (counted(start) and counted(end)):
        taken = flattened(input, [dim])
        return Known(call.shape, taken.value, taken.varies)
    first, last = bounds(input.shape[dim], start, end)
    return input.map(lambda a: a if a.shape[dim] == 1 else _sliced(a, dim, first, last, step), call.shape)


@rule("aten.narrow.default", "aten.narrow_copy.default", sizes=("start", "length"), drops=True)
def narrow(call: Call, input: Value, dim: int, start: int, length: int) -> Layout:
    """`length` positions from `start` on."""
    start %= input.shape[dim]  # counted from the end, its end may come to 0
    layout: Layout = slice_.couple(call, input, dim, start, start + length)
    return layout


@narrow.known
def _known_narrow(call: KnownCall, input: Known, dim: int, start: int, length: int) -> Known:
    start %= input.shape[dim]
    known: Known = _known_slice(call, input, dim, start, start + length)
    return known


@rule("aten.select.int", "aten.select_copy.int", sizes=(), drops=True)
def select(call: Call, input: Value, dim: int, index: Any) -> Layout:
    """One position of a dim, by a number in the code: it stays where it is, and so do those before it."""
    dim %= input.layout.rank
    layout = input.layout
    if not isinstance(index, int):
        layout = call.hold(layout, [dim], f"{call.name} takes a position by a number that is data")
    block = layout.block_of(dim)
    if block is not None:
        if sum(size > 1 for size in block.shape) == 1:
            layout = call.hold(layout, [dim], f"{call.name} takes position {index}")
        else:
            call.rows_of(block, dim, rows_stay=True)
            rows_apart(call, np.split(block, block.shape[dim], dim), dim)
    return moved(call, layout, call.shape, lambda a: a.select(dim, index if a.shape[dim] > 1 else 0).contiguous())


@select.known
def _known_select(call: KnownCall, input: Known, dim: int, index: Any) -> Known:
    dim %= len(input.shape)
    if not isinstance(index, int):
        return flattened(input, [dim]).map(lambda a: a.squeeze(dim), call.shape)
    return input.map(lambda a: a.select(dim, index if a.shape[dim] > 1 else 0), call.shape)


@rule("aten.index_select.default")
def index_select(call: Call, input: Value, dim: int, index: Value) -> Layout:
    """Positions by number: the numbers are data, so the dim is held; the other dims pass."""
    dim %= input.layout.rank
    call.hold_all(index, "its values are positions")
    layout = call.hold(input.layout, [dim], "index_select takes positions by number")
    return Layout(call.shape, layout.blocks)


@index_select.known
def _known_index_select(call: KnownCall, input: Known, dim: int, index: Known) -> Known:
    dim %= len(input.shape)
    if input.shape[dim] > 1 and input.value.shape[dim] == 1 and input.varies.shape[dim] == 1:
        return Known(call.shape, input.value, input.varies)
    if not index.everything:
        return Known.anything(call.shape)
    positions = index.full().reshape(-1).long().cpu()
    return input.held(dim).map(lambda a: a.index_select(dim, positions), call.shape)


@rule("aten.repeat_interleave.self_Tensor")
def repeat_interleave(call: Call, input: Value, repeats: Value, dim: int | None = None, **_: Any) -> Layout:
    """Positions repeated as often as data says: the dim is held, the others pass."""
    call.hold_all(repeats, "its values are numbers of repeats")
    reason = f"{call.name} repeats positions as often as data says"
    if dim is None:
        call.hold_all(input, reason)
        return Layout(call.shape)
    return Layout(call.shape, call.hold(input.layout, [dim % input.layout.rank], reason).blocks)


@repeat_interleave.known
def _known_repeat_interleave(call: KnownCall, **_: Any) -> Any:
    return call.anything()


@rule("getitem", drops=True)
def getitem(call: Call, input: Any, index: int) -> Any:
    """One output of an op that has several."""
    return input[index]


@getitem.known
def _known_getitem(call: KnownCall, input: Any, index: int) -> Any:
    return input[index]
