"""Ops that join tensors along a dim, or take them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known, compressed
from surgery.layout import Ids, Layout, covered, on_dim
from surgery.registry import rule
from surgery.rules.movement import moved
from surgery.rules.pointwise import merge


@rule("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def cat(call: Call, tensors: list[Value], dim: int = 0) -> Layout:
    """`[..., n, ...], [..., m, ...] -> [..., n + m, ...]`: ids one after the other; the other dims are tied."""
    tensors = [v for v in tensors if v.shape != (0,)]
    dim %= len(call.shape)
    layouts = [v.layout for v in tensors]
    single = _single_rows(call, layouts, dim)
    if single is None and all(layout.block_of(dim) is None for layout in layouts):
        return merge_others(call, layouts, dim)
    rank = len(call.shape)
    layouts = [layout for layout in layouts if layout.shape[dim] > 0]
    beside = {d for layout in layouts if (b := layout.block_of(dim)) is not None for d in covered(b)} - {dim}
    rows: Sequence[Ids | None] = single or [_rows_beside(layout, dim, beside) for layout in layouts]
    pieces = [_piece(call, x, dim) if row is None else row for x, row in zip(layouts, rows, strict=True)]
    # joint blocks that reach over other dims as well are stretched to one common extent
    extent = [max(piece.shape[d] for piece in pieces) for d in range(rank)]
    stretched = [np.broadcast_to(p, [p.shape[d] if d == dim else extent[d] for d in range(rank)]) for p in pieces]
    rows_apart(call, stretched, dim)
    taken = [() if row is None else covered(row) for row in rows]
    rest = [
        Layout(x.shape, tuple(b for b in x.blocks if b.shape[dim] == 1 and not set(covered(b)) & set(dims)))
        for x, dims in zip(layouts, taken, strict=True)
    ]
    joined = _bare((np.concatenate(stretched, dim),), rank)
    others = _bare(merge_others(call, rest, dim).blocks, rank)
    return merge(call, [joined, others], call.shape)


def _single_rows(call: Call, layouts: Sequence[Layout], dim: int) -> list[Ids] | None:
    """Where every tensor is one position along `dim` after a cut (the last head of each), their units."""
    blocks = [layout.blocks[0] for layout in layouts if layout.shape[dim] == len(layout.blocks) == 1]
    if len(blocks) < len(layouts) or len({block.shape for block in blocks}) > 1:
        return None
    return blocks if any(call.apart(block, blocks[0]) for block in blocks) else None


def _rows_beside(layout: Layout, dim: int, beside: set[int]) -> Ids | None:
    """Rows of which another tensor has the columns, too (heads): here each position of `dim` is its row's."""
    rows = [block for block in layout.blocks if covered(block) and set(covered(block)) <= beside]
    if layout.block_of(dim) is not None or len(rows) != 1:
        return None
    return np.broadcast_to(rows[0], [layout.shape[d] if d == dim else s for d, s in enumerate(rows[0].shape)])


def rows_apart(call: Call, pieces: Sequence[Ids], dim: int) -> None:
    """Pieces of a joint block along `dim`: each row of the dims before it is gone from all of them or from none.

    And every row that stays keeps as many units of a piece as the others.
    """
    rows = math.prod(pieces[0].shape[:dim])
    if rows > 1:
        call.uniform(*(piece.reshape(rows, -1) for piece in pieces), rows_stay=False)


def _bare(blocks: tuple[Ids, ...], rank: int) -> Layout:
    """A layout that has nothing but these blocks: size 1 where none lies."""
    return Layout(tuple(max((b.shape[d] for b in blocks), default=1) for d in range(rank)), blocks)


def merge_others(call: Call, layouts: list[Layout], dim: int) -> Layout:
    """All dims but `dim`, tied between the tensors that are joined."""
    shapes = [tuple(1 if d == dim else s for d, s in enumerate(layout.shape)) for layout in layouts]
    flat = [Layout(s, layout.blocks) for s, layout in zip(shapes, layouts, strict=True)]
    shape = tuple(1 if d == dim else s for d, s in enumerate(call.shape))
    return Layout(call.shape, merge(call, flat, shape).blocks)


def _piece(call: Call, layout: Layout, dim: int) -> Ids:
    """The ids along `dim`; untracked positions beside tracked ones get ids of their own, held where they are."""
    block = layout.block_of(dim)
    if block is not None:
        return block
    ids = call.fresh(layout.shape[dim])
    call.pin(ids, f"{call.name} lays it beside other channels, and its size cannot change")
    return on_dim(ids, layout.rank, dim)


@cat.known
def _known_cat(call: KnownCall, tensors: list[Known], dim: int = 0) -> Known:
    tensors = [k for k in tensors if k.shape != (0,)]
    dim %= len(call.shape)
    if all(k.nothing for k in tensors):
        return Known.anything(call.shape)
    held = [k.held(dim) for k in tensors]
    varies = _concatenated([k.varies for k in held], dim)
    value = _concatenated([k.widened(call.dtype) for k in held], dim)
    return compressed(Known(call.shape, value, varies), (dim,))


def _concatenated(arrays: list[Tensor], dim: int) -> Tensor:
    sizes = [max(a.shape[d] for a in arrays) for d in range(arrays[0].dim())]
    return torch.cat([a.expand([-1 if d == dim else s for d, s in enumerate(sizes)]) for a in arrays], dim)


@rule("aten.stack.default")
def stack(call: Call, tensors: list[Value], dim: int = 0) -> Layout:
    """`n × [...] -> [..., n, ...]`: every tensor keeps its ids; their number is fixed."""
    dim %= len(call.shape)
    inner = merge(call, [v.layout for v in tensors], tensors[0].shape)
    return moved(call, inner, call.shape, lambda array: array.unsqueeze(dim))


@stack.known
def _known_stack(call: KnownCall, tensors: list[Known], dim: int = 0) -> Known:
    dim %= len(call.shape)
    lifted = [k.map(lambda a: a.unsqueeze(dim), (*k.shape[:dim], 1, *k.shape[dim:])) for k in tensors]
    joined: Known = _known_cat(call, lifted, dim)
    return joined


def _pieces(call: Call, value: Value, dim: int, *, equal: bool) -> tuple[Layout, ...]:
    """The operand cut at the outputs' sizes along `dim`; `equal` pieces keep equal numbers of units."""
    layout = value.layout
    block = layout.block_of(dim)
    if block is not None and equal and _even(call, dim):
        call.rows_of(_split_rows(block, dim, len(call.shapes)), 0, rows_stay=True)
    elif block is not None and equal:
        layout = call.hold(layout, [dim], f"{call.name} makes pieces of unequal size")
    stops = np.cumsum([shape[dim] for shape in call.shapes])[:-1]
    parts = [np.split(b, stops, dim) if b.shape[dim] > 1 else [b] * len(call.shapes) for b in layout.blocks]
    if (block := layout.block_of(dim)) is not None:
        rows_apart(call, np.split(block, stops, dim), dim)
    return tuple(Layout(shape, without_lone(call, [p[i] for p in parts])) for i, shape in enumerate(call.shapes))


def without_lone(call: Call, blocks: Sequence[Ids]) -> tuple[Ids, ...]:
    """The blocks but for single positions, which carry no id on: what they are taken from cannot lose them."""
    for block in blocks:
        if block.size == 1:
            call.pin(block, f"{call.name} takes a position alone")
    return tuple(block for block in blocks if block.size > 1)


def _even(call: Call, dim: int) -> bool:
    return len({shape[dim] for shape in call.shapes}) == 1


def _split_rows(block: Ids, dim: int, rows: int) -> Ids:
    """`[rows, ...]`: the equal pieces of a block along `dim`, one a row."""
    lead = np.moveaxis(block, dim, 0)
    return lead.reshape(rows, -1)


def _known_pieces(call: KnownCall, known: Known, dim: int) -> tuple[Known, ...]:
    pieces, start = [], 0
    for shape in call.shapes:
        stop = start + shape[dim]

        def narrow(array: Tensor, start: int = start, stop: int = stop) -> Tensor:
            return array.narrow(dim, start, stop - start) if array.shape[dim] > 1 else array

        pieces.append(known.map(narrow, shape))
        start = stop
    return tuple(pieces)


@rule("aten.chunk.default", "aten.unsafe_chunk.default", "aten.tensor_split.sections")
def chunk(call: Call, input: Value, dim: int = 0, **_: Any) -> tuple[Layout, ...]:
    """A fixed number of equal pieces: the pieces keep equal numbers of units."""
    return _pieces(call, input, dim % input.layout.rank, equal=True)


@chunk.known
def _known_chunk(call: KnownCall, input: Known, dim: int = 0, **_: Any) -> tuple[Known, ...]:
    return _known_pieces(call, input, dim % len(input.shape))


@rule("aten.split.Tensor", "aten.unsafe_split.Tensor", "aten.split_copy.Tensor", sizes=("split_size",))
def split(call: Call, input: Value, split_size: int, dim: int = 0) -> tuple[Layout, ...]:
    """Pieces of one size, the last may be smaller: a size that the code knows."""
    dim %= input.layout.rank
    return _pieces(call, input, dim, equal=True)


@split.known
def _known_split(call: KnownCall, input: Known, split_size: int, dim: int = 0) -> tuple[Known, ...]:
    return _known_pieces(call, input, dim % len(input.shape))


@rule(
    "aten.split_with_sizes.default",
    "aten.split.sizes",
    "aten.unsafe_split_with_sizes.default",
    "aten.split_with_sizes_copy.default",
    sizes=("split_sizes", "split_size"),
)
def split_with_sizes(call: Call, input: Value, dim: int = 0, **_: Any) -> tuple[Layout, ...]:
    """Pieces of given sizes: each keeps what is left of it."""
    return _pieces(call, input, dim % input.layout.rank, equal=False)


@split_with_sizes.known
def _known_split_with_sizes(call: KnownCall, input: Known, dim: int = 0, **_: Any) -> tuple[Known, ...]:
    return _known_pieces(call, input, dim % len(input.shape))


@rule("aten.tensor_split.indices")
def tensor_split(call: Call, input: Value, indices: list[int], dim: int = 0) -> tuple[Layout, ...]:
    """Pieces between positions that are numbers in the code: the dim stays."""
    dim %= input.layout.rank
    layout = call.hold(input.layout, [dim], "tensor_split cuts it at numbers in the code")
    return tuple(Layout(shape, layout.blocks) for shape in call.shapes)


@tensor_split.known
def _known_tensor_split(call: KnownCall, input: Known, indices: list[int], dim: int = 0) -> tuple[Known, ...]:
    return _known_pieces(call, input, dim % len(input.shape))


_STACKS = {"vstack": 0, "hstack": 1, "dstack": 2, "column_stack": 1}


@rule("aten.vstack.default", "aten.hstack.default", "aten.dstack.default", "aten.column_stack.default")
def stacks(call: Call, tensors: list[Value]) -> Layout:
    """A cat along a dim that every operand has; operands of fewer dims are held."""
    if any(value.layout.rank <= _STACKS[call.name] for value in tensors):
        call.hold_all(tensors, f"{call.name} makes it a tensor of more dims")
        return Layout(call.shape)
    joined: Layout = cat.couple(call, tensors, _STACKS[call.name])
    return joined


@stacks.known
def _known_stacks(call: KnownCall, tensors: list[Known]) -> Known:
    dim = _STACKS[call.name]
    return Known.anything(call.shape) if any(len(k.shape) <= dim for k in tensors) else _known_cat(call, tensors, dim)


@rule("aten.unbind.int", "aten.unbind_copy.int")
def unbind(call: Call, input: Value, dim: int = 0) -> tuple[Layout, ...]:
    """Every position of `dim` becomes a tensor: their number is fixed."""
    dim %= input.layout.rank
    layout = input.layout
    block = layout.block_of(dim)
    if block is not None:
        call.rows_of(block, dim, rows_stay=True)
        rows_apart(call, np.split(block, block.shape[dim], dim), dim)
        if sum(size > 1 for size in block.shape) == 1:
            layout = call.hold(layout, [dim], "unbind makes every position a tensor of its own")
    pieces = []
    for index, shape in enumerate(call.shapes):
        at = [index if block.shape[dim] > 1 else 0 for block in layout.blocks]
        taken = [np.squeeze(b.take([i], axis=dim), dim) for i, b in zip(at, layout.blocks, strict=True)]
        pieces.append(Layout(shape, without_lone(call, taken)))
    return tuple(pieces)


@unbind.known
def _known_unbind(call: KnownCall, input: Known, dim: int = 0) -> tuple[Known, ...]:
    dim %= len(input.shape)

    def pick(array: Tensor, index: int) -> Tensor:
        return array.select(dim, index if array.shape[dim] > 1 else 0)

    return tuple(input.map(partial(pick, index=index), shape) for index, shape in enumerate(call.shapes))
