"""Advanced indexing: positions by tensors of numbers. The dims that they stand on are held, the others pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgery.calls import Call, KnownCall, Value
from surgery.known import MAX_ELEMENTS, Known, compressed
from surgery.layout import Layout, covered
from surgery.registry import rule
from surgery.rules.joining import rows_apart, without_lone
from surgery.rules.movement import moved
from surgery.rules.pointwise import merge, run
from surgery.rules.spatial import flattened

Sources = list[int | None]
"""For every dim of the result the input's dim that it is, or None where it is the index tensors' own."""


def indexed_dims(indices: Sequence[Value | Known | None], rank: int, result: int | None) -> list[int] | None:
    """The input's dims that index tensors stand on; None where their shapes do not tell.

    A tensor of numbers stands on one dim, one of booleans on as many as it has: the result's rank tells which it is.
    """
    placed = [(place, len(index.shape)) for place, index in enumerate(indices) if index is not None]
    widest = max((n for _, n in placed), default=0)
    if result == rank - len(placed) + widest or (result is None and widest <= 1):
        return [place for place, _ in placed]
    if len(placed) == 1 and result in (None, rank - widest + 1):
        return list(range(placed[0][0], placed[0][0] + widest))
    return None


def sources(rank: int, dims: Sequence[int], width: int) -> Sources:
    """Where the result's dims come from: the index's stand together, at the front where `dims` are not adjacent."""
    others: Sources = [d for d in range(rank) if d not in dims]
    adjacent = bool(dims) and list(dims) == list(range(dims[0], dims[0] + len(dims)))
    at = dims[0] if adjacent else 0
    return [*others[:at], *[None] * width, *others[at:]]


@rule("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(call: Call, input: Value, indices: list[Value | None]) -> Layout:
    """`x[:, i, j]`: the numbers are data, so their dims are held; `table [n, h], i [l, l] -> [l, l, h]`.

    Where the code wrote them down (`x[:, [-2]]`), rows that they do not count may go.
    """
    rank = input.layout.rank
    taken = _taken(call, input, indices)
    if taken is not None:
        return taken
    call.hold_all([i for i in indices if i is not None], "its values are positions")
    dims = indexed_dims(indices, rank, len(call.shape))
    if dims is None:
        call.hold_all(input, f"{call.name} mixes numbers and booleans")
        return Layout(call.shape)
    layout = call.hold(input.layout, dims, f"{call.name} takes positions by number")
    if input.parameter is not None and dims and [len(covered(b)) for b in layout.blocks] == [1]:
        call.produce(input, covered(layout.blocks[0])[0])
    origin = sources(rank, dims, len(call.shape) - rank + len(dims))
    blocks = [block.reshape([1 if d is None else block.shape[d] for d in origin]) for block in layout.blocks]
    return Layout(call.shape, tuple(blocks))


def _taken(call: Call, input: Value, indices: Sequence[Value | None]) -> Layout | None:
    """Rows of a joint block by numbers in the code, all counted from one end: those up to the last one stay."""
    placed = [(dim, index.numbers or ()) for dim, index in enumerate(indices) if index is not None]
    if len(placed) != 1 or len({number < 0 for number in placed[0][1]}) != 1:
        return None
    ((dim, numbers),) = placed
    block = input.layout.block_of(dim)
    if block is None or len(covered(block)) == 1:
        return None
    size = block.shape[dim]
    positions = [number % size for number in numbers]
    first, last = (0, max(positions) + 1) if numbers[0] >= 0 else (min(positions), size)
    counted = [block.take([row], axis=dim) for row in range(first, last)]
    if math.prod(block.shape[:dim]) > 1:
        others = [block.take(range(*ends), axis=dim) for ends in ((0, first), (last, size)) if ends[0] < ends[1]]
        rows_apart(call, [*counted, *others], dim)
    else:
        call.uniform(np.stack([row.ravel() for row in counted]), rows_stay=True)
    call.accounted.append(block)
    chosen = torch.tensor(positions)
    kept = moved(call, input.layout, call.shape, lambda a: a if a.shape[dim] == 1 else a.index_select(dim, chosen))
    return Layout(call.shape, without_lone(call, kept.blocks))


@index.known
def _known_index(call: KnownCall, input: Known, indices: list[Known | None]) -> Known:
    """Positions that all hold one constant give that constant; where the numbers are known, so is what they pick."""
    rank = len(input.shape)
    dims = indexed_dims(indices, rank, len(call.shape))
    if dims is None:
        return Known.anything(call.shape)
    moving = any(a.shape[d] > 1 for a in (input.value, input.varies) for d in dims)
    if moving and all(i is None or i.everything for i in indices) and math.prod(call.shape) <= MAX_ELEMENTS:
        known = _picked(call, input, indices, dims)
        if known is not None:
            return known
    flat = flattened(input, dims)
    origin = sources(rank, dims, len(call.shape) - rank + len(dims))
    return flat.map(lambda a: a.reshape([1 if d is None else a.shape[d] for d in origin]), call.shape)


def _picked(call: KnownCall, input: Known, indices: list[Known | None], dims: list[int]) -> Known | None:
    given = [None if i is None else i.full().cpu() for i in indices]
    held = input
    for dim in dims:
        held = held.held(dim)
    value, varies = (torch.ops.aten.index.Tensor(a, given) for a in (held.widened(call.dtype), held.varies))
    if any(a.shape[d] not in (1, size) for a in (value, varies) for d, size in enumerate(call.shape)):
        return None
    width = len(call.shape) - len(input.shape) + len(dims)
    origin = sources(len(input.shape), dims, width)
    return compressed(Known(call.shape, value, varies), [d for d, source in enumerate(origin) if source is None])


@rule("aten.index_put.default", "aten._unsafe_index_put.default")
def index_put(call: Call, input: Value, indices: list[Value | None], values: Value, accumulate: bool = False) -> Layout:
    """`x[:, i] = values`: the dims of the numbers are held; values lie where they are put."""
    rank = input.layout.rank
    call.hold_all([i for i in indices if i is not None], "its values are positions")
    dims = indexed_dims(indices, rank, None)
    width = max((i.layout.rank for i in indices if i is not None), default=0)
    if dims is None or width > 1:
        # numbers on one dim, or booleans on several: their shapes do not tell, and the values' dims rest on it
        call.hold_all(values, f"{call.name} puts it where a tensor of numbers or booleans says")
        start = _first(indices) if math.prod(values.shape) == 1 else 0
        return call.fix(input.layout, range(start, rank), f"{call.name} writes positions by number")
    layout = call.fix(input.layout, dims, f"{call.name} writes positions by number")
    origin = sources(rank, dims, width)
    lead = (1,) * (len(origin) - values.layout.rank)
    whole = Layout(lead + values.shape, tuple(b.reshape(lead + b.shape) for b in values.layout.blocks))
    own = call.hold(whole, [d for d, source in enumerate(origin) if source is None], f"{call.name} puts it by number")
    shape = [1 if d in dims else own.shape[origin.index(d)] for d in range(rank)]
    blocks = (b.reshape([1 if d in dims else b.shape[origin.index(d)] for d in range(rank)]) for b in own.blocks)
    return merge(call, [layout, Layout(tuple(shape), tuple(blocks))], call.shape)


def _first(indices: Sequence[Value | Known | None]) -> int:
    return next(place for place, i in enumerate(indices) if i is not None)


@index_put.known
def _known_index_put(
    call: KnownCall, input: Known, indices: list[Known | None], values: Known, accumulate: bool = False
) -> Known:
    """Written positions and the others are constant alike, or all is known; else it varies."""
    whole = computed(call, [input, values, *(i for i in indices if i is not None)])
    if whole is not None:
        return whole
    varies = input.varies | values.varies.any()
    value = values.value.reshape(-1)
    if accumulate:
        varies = varies | (value != 0).any()
    elif bool((value == value[0]).all()):
        varies = varies | (input.value != value[0])
    else:
        return Known.anything(call.shape)
    return Known(call.shape, input.value, varies)


def computed(call: KnownCall, operands: Sequence[Known]) -> Known | None:
    """The op run on its operands, where nothing varies (and it is not too large); else None."""
    if not all(k.everything for k in operands) or math.prod(call.shape) > MAX_ELEMENTS:
        return None

    def widened(argument: Any) -> Any:
        if isinstance(argument, Known):
            return argument.widened(call.dtype).expand(argument.shape)
        return [widened(a) for a in argument] if isinstance(argument, list | tuple) else argument

    answer: Tensor = run(call.target, {key: widened(value) for key, value in call.arguments.items()})
    return Known.of(call.shape, answer, torch.zeros([1] * len(call.shape), dtype=torch.bool))
