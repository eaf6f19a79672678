"""Ops that read or write along one dim by a tensor of numbers as large as what moves: gather, scatter, index_add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from surgery.calls import Call, KnownCall, Value
from surgery.known import MAX_ELEMENTS, Known, compressed
from surgery.layout import Layout
from surgery.registry import rule
from surgery.rules.copies import laid_out
from surgery.rules.indexing import computed
from surgery.rules.pointwise import merge
from surgery.rules.spatial import flattened


def _without_dim(layout: Layout, dim: int) -> Layout:
    """A layout in which `dim`, held before, counts as one position."""
    return Layout(tuple(1 if d == dim else s for d, s in enumerate(layout.shape)), layout.blocks)


def _as_large(call: Call, layouts: Sequence[Layout], dim: int) -> list[Layout]:
    """Dims but `dim` on which the operands differ are held: a part of one is read, or written."""
    rank = layouts[0].rank
    for d in range(rank):
        if d != dim and len({layout.shape[d] for layout in layouts}) > 1:
            layouts = [_without_dim(call.hold(layout, [d], f"{call.name} takes a part of it"), d) for layout in layouts]
    return list(layouts)


@rule("aten.gather.default")
def gather(call: Call, input: Value, dim: int, index: Value, **_: Any) -> Layout:
    """`out[i, j] = x[i, index[i, j]]`: `dim` is read by number; on the others, positions answer to each other."""
    if not call.shape:
        call.hold_all([input, index], f"{call.name} takes positions by number")
        return Layout(call.shape)
    dim %= input.layout.rank
    layout = _without_dim(call.hold(input.layout, [dim], f"{call.name} takes positions by number"), dim)
    first, second = _as_large(call, [layout, index.layout], dim)
    for d in index.layout.stretched:
        if first.block_of(d) is not None:  # the same numbers for every row: as many as rows are left
            laid_out(call, index, d, first)
            second = _without_dim(second, d)
    return Layout(call.shape, merge(call, [first, second], _largest(first, second)).blocks)


def _largest(*layouts: Layout) -> tuple[int, ...]:
    return tuple(max(sizes) for sizes in zip(*(layout.shape for layout in layouts), strict=True))


@rule("aten.take_along_dim.default")
def take_along_dim(call: Call, input: Value, indices: Value, dim: int | None = None) -> Layout:
    """As gather, both operands broadcast; without a dim, on the flat tensors."""
    if dim is None or not call.shape:
        call.hold_all([input, indices], f"{call.name} takes positions by number")
        return Layout(call.shape)
    dim %= input.layout.rank
    layout = _without_dim(call.hold(input.layout, [dim], f"{call.name} takes positions by number"), dim)
    return merge(call, [layout, indices.layout], call.shape)


@gather.known
def _known_gather(call: KnownCall, input: Known, dim: int, index: Known, **_: Any) -> Known:
    return _known_taken(call, input, index, dim)


@take_along_dim.known
def _known_take_along_dim(call: KnownCall, input: Known, indices: Known, dim: int | None = None) -> Known:
    return Known.anything(call.shape) if dim is None else _known_taken(call, input, indices, dim)


def _known_taken(call: KnownCall, input: Known, index: Known, dim: int) -> Known:
    """Where the numbers are known, what they pick; else what is the same all along `dim`."""
    if not call.shape:
        return Known.anything(call.shape)
    dim %= len(input.shape)
    moving = input.value.shape[dim] > 1 or input.varies.shape[dim] > 1
    if moving and index.everything and math.prod(call.shape) <= MAX_ELEMENTS:
        picks = index.full().cpu().long()
        wide = [n if d == dim else max(n, m) for d, (n, m) in enumerate(zip(input.shape, call.shape, strict=True))]
        part = tuple(slice(None) if d == dim else slice(size) for d, size in enumerate(call.shape))
        value, varies = (
            a.expand(wide)[part].gather(dim, picks.expand(call.shape))
            for a in (input.widened(call.dtype), input.varies)
        )
        return compressed(Known(call.shape, value, varies), range(len(call.shape)))
    flat = flattened(input, [dim])
    unequal = [d for d, size in enumerate(call.shape) if d != dim and input.shape[d] not in (1, size)]
    flat = flattened(flat, unequal)
    return Known(call.shape, flat.value, flat.varies)


@rule(
    "aten.scatter.src",
    "aten.scatter.value",
    "aten.scatter.reduce",
    "aten.scatter.value_reduce",
    "aten.scatter_add.default",
    "aten.scatter_reduce.two",
)
def scatter(call: Call, input: Value, dim: int, index: Value, src: Value | None = None, **_: Any) -> Layout:
    """`x[i, index[i, j]] = src[i, j]`: `dim` is written by number; on the others, positions answer to each other."""
    operands = [v for v in (index, src) if v is not None]
    if not call.shape:
        call.hold_all([input, *operands], f"{call.name} writes positions by number")
        return Layout(call.shape)
    dim %= input.layout.rank
    return _written(call, input, operands, dim)


@rule(
    "aten.index_add.default",
    "aten.index_copy.default",
    "aten.index_fill.int_Scalar",
    "aten.index_fill.int_Tensor",
)
def index_add(
    call: Call, input: Value, dim: int, index: Value, source: Value | None = None, value: Any = None, **_: Any
) -> Layout:
    """`x[:, index[j]] += source[:, j]`: `dim` is written by number; the other dims are as large as each other."""
    call.hold_all(index, "its values are positions")
    call.hold_all(value, f"{call.name} writes it")
    if not call.shape:
        call.hold_all([input, source], f"{call.name} writes positions by number")
        return Layout(call.shape)
    return _written(call, input, [] if source is None else [source], dim % input.layout.rank)


def _written(call: Call, input: Value, operands: Sequence[Value], dim: int) -> Layout:
    reason = f"{call.name} writes positions by number"
    layout = call.fix(input.layout, [dim], reason)
    held = [_without_dim(call.hold(v.layout, [dim], reason), dim) for v in operands]
    own = [b for b in layout.blocks if b.shape[dim] > 1]
    rest = Layout(_without_dim(layout, dim).shape, tuple(b for b in layout.blocks if b.shape[dim] == 1))
    even = _as_large(call, [rest, *held], dim)
    return Layout(call.shape, (*own, *merge(call, even, _largest(*even)).blocks))


@scatter.known
def _known_scatter(
    call: KnownCall,
    input: Known,
    dim: int,
    index: Known,
    src: Known | None = None,
    value: float | None = None,
    reduce: str = "",
    **_: Any,
) -> Known:
    adds = "scatter_add" in str(call.target)
    return _overlaid(call, input, index, dim, value if src is None else src, "add" if adds else reduce)


@index_add.known
def _known_index_add(
    call: KnownCall, input: Known, dim: int, index: Known, source: Known | None = None, value: Any = None, **_: Any
) -> Known:
    adds = "index_add" in str(call.target)
    return _overlaid(call, input, index, dim, value if source is None else source, "add" if adds else "")


def _overlaid(call: KnownCall, input: Known, index: Known, dim: int, other: Any, how: str) -> Known:
    """What is written and what is left are the same constant; or 0 meets 0, whatever is made of them."""
    whole = computed(call, [k for k in (input, index, other) if isinstance(k, Known)])
    if whole is not None:
        return whole
    if not call.shape:
        return Known.anything(call.shape)
    dim %= len(input.shape)
    if isinstance(other, Known) and len(other.shape) == len(input.shape):
        unequal = [d for d, size in enumerate(input.shape) if d == dim or other.shape[d] != size]
        other = flattened(other, unequal)
        written, varies = other.widened(call.dtype), other.varies
    elif isinstance(other, Known):
        written, varies = other.widened(call.dtype).reshape(()), other.varies.reshape(())
    else:
        written, varies = torch.tensor(other, dtype=call.dtype), torch.tensor(False)
    own = input.widened(call.dtype)
    if how in ("add", "sum"):
        moved = written != 0
    elif how:
        moved = (own != 0) | (written != 0)
    else:
        moved = own != written
    return Known(call.shape, own, input.varies | varies | moved)
