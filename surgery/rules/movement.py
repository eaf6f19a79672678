"""Ops that only move positions: the same op is applied to the id arrays, and to what is known of the values.

A movement's function takes one array over positions (each dim full or 1), the tensor's shapes before and after, and
the op's settings, and returns the moved array.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known, compressed
from surgery.layout import Ids, Layout, Shape, compress, covered, on_dim, reshape_groups, reshaped
from surgery.registry import Rule, rule
from surgery.rules.copies import copied
from surgery.rules.pointwise import merge

Move = Callable[..., Tensor]


def moved(call: Call, layout: Layout, shape: Shape, move: Callable[[Tensor], Tensor]) -> Layout:
    """The layout with every block moved."""
    blocks = tuple(move(torch.from_numpy(block)).numpy() for block in layout.blocks)
    probes = (
        torch.arange(layout.shape[d]).reshape([-1 if k == d else 1 for k in range(layout.rank)])
        for d in layout.stretched
    )
    places = (covered(move(probe).numpy()) for probe in probes)
    return Layout(shape, blocks, tuple(place[0] for place in places if len(place) == 1))


def movement(
    *ops: str, sizes: tuple[str, ...] = (), drops: bool = False, reorders: bool = False
) -> Callable[[Move], Rule]:
    """Register a movement: `move(array, old, new, **settings) -> array`; `reorders` is for those that swap dims."""

    def register(move: Move) -> Rule:
        def couple(call: Call, input: Value, **settings: Any) -> Layout:
            step = partial(move, old=input.shape, new=call.shape, **settings)
            layout = _in_order(call, input.layout, step) if reorders else input.layout
            return moved(call, layout, call.shape, step)

        def known(call: KnownCall, input: Known, **settings: Any) -> Known:
            return input.map(partial(move, old=input.shape, new=call.shape, **settings), call.shape)

        couple.__name__ = move.__name__
        made = rule(*ops, sizes=sizes, drops=drops)(couple)
        made.known(known)
        return made

    return register


def _in_order(call: Call, layout: Layout, step: Callable[[Tensor], Tensor]) -> Layout:
    """Where two dims of a joint block change order (a shuffle), the same columns go in every row.

    Otherwise what is left of `[rows, columns]` would no longer be the transpose of what is left of `[columns, rows]`.
    """
    blocks = list(layout.blocks)
    for index, block in enumerate(blocks):
        array = torch.from_numpy(np.ascontiguousarray(block))
        place = {array.stride(d): d for d in covered(block)}
        after = step(array)
        order = [place[after.stride(d)] for d in range(after.dim()) if after.shape[d] > 1]
        late = {b for i, a in enumerate(order) for b in order[i + 1 :] if b < a}
        if late and len(order) == 2 and abs(order[0] - order[1]) > 1:  # heads and their width, with tokens between
            rows, columns = (_lone(call, block, d) for d in sorted(order))
            call.outer(rows, columns, block)
            continue
        held = call.hold(Layout(layout.shape, (block,)), sorted(late), "")
        (blocks[index],) = held.blocks
    return Layout(layout.shape, tuple(blocks), layout.stretched)


def _lone(call: Call, block: Ids, dim: int) -> Ids:
    """New units for the positions of one dim of a block."""
    return on_dim(call.fresh(block.shape[dim], "rows"), block.ndim, dim)


@movement("aten.permute.default", "aten.permute_copy.default", reorders=True)
def permute(array: Tensor, old: Shape, new: Shape, dims: list[int]) -> Tensor:
    """Dims in another order."""
    return array.permute(dims)


@movement("aten.transpose.int", "aten.swapaxes.default", "aten.swapdims.default", reorders=True)
def transpose(array: Tensor, old: Shape, new: Shape, **dims: int) -> Tensor:
    """Two dims change places."""
    first, second = dims.values()
    return array.transpose(first, second)


@movement("aten.t.default", "aten.mT.default", "aten.adjoint.default", reorders=True)
def t(array: Tensor, old: Shape, new: Shape) -> Tensor:
    """The last two dims (of at most two) change places."""
    return array.mT if array.dim() >= 2 else array


@movement("aten.numpy_T.default", reorders=True)
def numpy_t(array: Tensor, old: Shape, new: Shape) -> Tensor:
    """All dims in reverse order."""
    return array.permute(tuple(reversed(range(array.dim()))))


@movement("aten.movedim.int", "aten.movedim.intlist", "aten.moveaxis.int", "aten.moveaxis.intlist", reorders=True)
def movedim(array: Tensor, old: Shape, new: Shape, source: Any, destination: Any) -> Tensor:
    """Dims moved to other places."""
    return array.movedim(source, destination)


@movement("aten.unsqueeze.default")
def unsqueeze(array: Tensor, old: Shape, new: Shape, dim: int) -> Tensor:
    """A dim of size 1 put in."""
    return array.unsqueeze(dim)


@movement("aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims")
def squeeze(array: Tensor, old: Shape, new: Shape, dim: Any = None) -> Tensor:
    """Dims of size 1 taken out."""
    asked = range(len(old)) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {d % len(old) for d in asked if old and old[d % len(old)] == 1}
    return array.reshape([size for d, size in enumerate(array.shape) if d not in gone])


@movement("aten.flip.default")
def flip(array: Tensor, old: Shape, new: Shape, dims: list[int]) -> Tensor:
    """Positions in reverse order."""
    return array.flip(dims)


def _stretch(array: Tensor, old: Shape, new: Shape) -> Tensor:
    """New leading dims, and dims of size 1 stretched: nothing changes along any of them."""
    return array.reshape((1,) * (len(new) - len(old)) + tuple(array.shape))


@rule("aten.expand.default", "aten.broadcast_to.default", sizes=("size",))
def expand(call: Call, input: Value, size: list[int], implicit: bool = False) -> Layout:
    """Dims of size 1 stretched."""
    old, new = input.shape, call.shape
    wider = moved(call, input.layout, new, partial(_stretch, old=old, new=new))
    missing = len(new) - len(old)
    stretched = tuple(d for d in range(missing, len(new)) if old[d - missing] < new[d])
    return Layout(new, wider.blocks, stretched)


@expand.known
def _known_expand(call: KnownCall, input: Known, size: list[int], implicit: bool = False) -> Known:
    return input.map(partial(_stretch, old=input.shape, new=call.shape), call.shape)


@rule("aten.expand_as.default")
def expand_as(call: Call, input: Value, other: Value) -> Layout:
    """Dims of size 1 stretched to another tensor's: as large as that, so its units lie there."""
    return merge(call, [input.layout, other.layout], call.shape)


@expand_as.known
def _known_expand_as(call: KnownCall, input: Known, other: Known) -> Known:
    return input.map(partial(_stretch, old=input.shape, new=call.shape), call.shape)


@movement("aten.repeat.default", "aten.tile.default", sizes=("repeats",))
def repeat(array: Tensor, old: Shape, new: Shape, **repeats: Any) -> Tensor:
    """The tensor laid end to end."""
    array = _stretch(array, old, new)
    padded = (1,) * (len(new) - len(old)) + tuple(old)
    return array.repeat([n // o if size > 1 else 1 for size, o, n in zip(array.shape, padded, new, strict=True)])


@rule("aten.repeat_interleave.self_int", sizes=("repeats",))
def repeat_interleave(call: Call, input: Value, repeats: int, dim: int | None = None, **_: Any) -> Layout:
    """Every position repeated in place; without a dim, those of the flat tensor."""
    layout = as_reshaped(call, input.layout, (math.prod(input.shape),)) if dim is None else input.layout
    dim = dim % layout.rank if dim else 0
    block = layout.block_of(dim)
    others = [other for other in layout.blocks if other is not block]
    if block is None or repeats == 1:  # one for all is as good as stretched
        return Layout(call.shape, layout.blocks, (dim,) if layout.shape[dim] == 1 < repeats else ())
    apart = np.expand_dims(block, dim + 1)
    cells = copied(call, apart, dim + 1, repeats, [dim])
    return Layout(
        call.shape, (*others, cells.reshape([s * repeats if d == dim else s for d, s in enumerate(block.shape)]))
    )


@repeat_interleave.known
def _known_repeat_interleave(call: KnownCall, input: Known, repeats: int, dim: int | None = None, **_: Any) -> Known:
    known = known_reshaped(input, (math.prod(input.shape),)) if dim is None else input
    return known.map(partial(_repeated, repeats=repeats, dim=dim or 0), call.shape)


def _repeated(array: Tensor, repeats: int, dim: int) -> Tensor:
    return array.repeat_interleave(repeats, dim) if array.shape[dim] > 1 else array


@rule("aten.pixel_unshuffle.default")
def pixel_unshuffle(call: Call, input: Value, downscale_factor: int) -> Layout:
    """`[b, c, h·r, w·r] -> [b, c·r·r, h, w]`: every channel becomes r·r channels, its id is repeated."""
    rank = input.layout.rank
    layout = call.only(input, range(rank - 2), "pixel_unshuffle moves it into the channels")
    return moved(call, layout, call.shape, partial(_repeated, repeats=downscale_factor**2, dim=rank - 3))


@pixel_unshuffle.known
def _known_pixel_unshuffle(call: KnownCall, input: Known, downscale_factor: int) -> Known:
    rank = len(call.shape)

    def unshuffle(array: Tensor) -> Tensor:
        if array.shape[-1] == array.shape[-2] == 1:
            return _repeated(array, downscale_factor**2, rank - 3)
        full = array.expand(*array.shape[:-3], *input.shape[-3:])
        return torch.nn.functional.pixel_unshuffle(full, downscale_factor)

    return compressed(input.map(unshuffle, call.shape), (rank - 2, rank - 1))


def as_reshaped(call: Call, layout: Layout, new: Shape) -> Layout:
    """A layout through a view. Where two blocks would come to share a dim, they become one, or the smaller is held."""
    groups = reshape_groups(layout.shape, new)
    layout = _with_copies(call, layout, groups)
    for olds, _ in groups:
        inside = [block for block in layout.blocks if set(covered(block)) <= set(olds)]
        if len(inside) == 2 and sum(layout.block_of(d) is not None for d in olds) == sum(
            len(covered(b)) for b in inside
        ):
            others = tuple(block for block in layout.blocks if all(block is not b for b in inside))
            layout = Layout(layout.shape, (*others, call.outer(*inside)))
    merged = {d: index for index, (olds, _) in enumerate(groups) for d in olds}
    by_size = sorted(layout.blocks, key=lambda block: -block.size)
    taken: set[int] = set()
    for block in by_size:
        touched = {merged[d] for d in covered(block)}
        if touched & taken:
            dims = [d for d in covered(block) if merged[d] in taken]
            layout = call.hold(layout, dims, f"{call.name} merges it with another tracked dim")
        else:
            taken |= touched
    blocks = tuple(compress(reshaped(block, layout.shape, new, groups)) for block in layout.blocks)
    # a dim made of copies of a single position is one of copies still
    alone = [n for o, n in groups if any(d in layout.stretched for d in o) and sum(layout.shape[d] > 1 for d in o) == 1]
    stretched = tuple(d for news in alone for d in news if new[d] > 1)
    return Layout(new, blocks, stretched if all(sum(new[d] > 1 for d in n) == 1 for n in alone) else ())


def _with_copies(call: Call, layout: Layout, groups: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> Layout:
    """Copies that come to lie in one dim with their originals are units of their own (see `copied`)."""
    for olds, _ in groups:
        for dim in olds:
            if dim not in layout.stretched:
                continue
            for index, block in enumerate(layout.blocks):
                inside = [d for d in covered(block) if d in olds]
                if inside and block.shape[dim] == 1 and block.size > 1:
                    cells = copied(call, block, dim, layout.shape[dim], [d for d in inside if d < dim])
                    layout = Layout(
                        layout.shape, (*layout.blocks[:index], cells, *layout.blocks[index + 1 :]), layout.stretched
                    )
    return layout


def known_reshaped(known: Known, new: Shape) -> Known:
    """What is known, through a view."""
    groups = reshape_groups(known.shape, new)
    made = known.map(lambda array: reshaped(array, known.shape, new, groups), new)
    last = len(known.shape) - 1
    stays = known.total is not None and known.total == last and bool(new) and new[-1] == known.shape[last]
    return replace(made, total=len(new) - 1) if stays else made


@rule(
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.view_copy.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten.ravel.default",
    sizes=("size", "shape", "sizes"),
)
def reshape(call: Call, input: Value, **_: Any) -> Layout:
    """The same elements in another shape."""
    return as_reshaped(call, input.layout, call.shape)


@rule("aten.view_as.default", "aten.reshape_as.default")
def reshape_as(call: Call, input: Value, other: Value) -> Layout:
    """The same elements in the shape of another tensor, whose channels go or stay with them."""
    return merge(call, [as_reshaped(call, input.layout, call.shape), other.layout], call.shape)


@reshape.known
@reshape_as.known
def _known_reshape(call: KnownCall, input: Known, **_: Any) -> Known:
    return known_reshaped(input, call.shape)


@rule("aten.roll.default")
def roll(call: Call, input: Value, shifts: list[int], dims: list[int]) -> Layout:
    """Positions moved round in a circle: by how far is a number in the code."""
    if not dims:
        return call.only(input, [], "roll over all dims")
    layout = call.hold(
        input.layout, [d % input.layout.rank for d in dims], "roll moves its positions by a fixed number"
    )
    return moved(call, layout, call.shape, lambda array: array)


@roll.known
def _known_roll(call: KnownCall, input: Known, shifts: list[int], dims: list[int]) -> Known:
    if not dims:
        return Known.anything(call.shape) if not input.everything else Known.exactly(input.full().roll(shifts))
    return input.map(lambda array: array.roll(shifts, dims), call.shape)


@rule("aten.channel_shuffle.default", "aten.native_channel_shuffle.default")
def channel_shuffle(call: Call, input: Value, groups: int) -> Layout:
    """`[b, g·c, ...] -> [b, c·g, ...]`: the channels at the same position of every group go together."""
    layout, ids = call.channels(input, 1)
    if ids is not None:
        rows = ids.reshape(groups, -1)
        call.tie(rows, rows[:1])
    return moved(call, layout, call.shape, partial(_shuffled, groups=groups))


def _shuffled(array: Tensor, groups: int) -> Tensor:
    if array.shape[1] == 1:
        return array
    split = array.reshape(array.shape[0], groups, -1, *array.shape[2:])
    return split.transpose(1, 2).reshape(array.shape)


@channel_shuffle.known
def _known_channel_shuffle(call: KnownCall, input: Known, groups: int) -> Known:
    return input.map(partial(_shuffled, groups=groups), call.shape)


@rule("aten.pixel_shuffle.default")
def pixel_shuffle(call: Call, input: Value, upscale_factor: int) -> Layout:
    """`[b, c·r·r, h, w] -> [b, c, h·r, w·r]`: the r·r channels behind each output channel go together."""
    rank = input.layout.rank
    layout, ids = call.channels(input, rank - 3)
    if ids is None:
        return Layout(call.shape, tuple(b for b in layout.blocks if b.shape[-1] == b.shape[-2] == 1))
    rows = ids.reshape(-1, upscale_factor**2)
    layout = call.only(Value(input.node, layout), range(rank - 2), "pixel_shuffle spreads it over space")
    if len(rows) == 1:  # a dim of one position carries no ids on: who reads it would not be seen to
        call.pin(ids, "pixel_shuffle makes one channel of it")
    call.tie(rows, rows[:, :1])
    kept = tuple(b for b in layout.blocks if b.shape[rank - 3] == 1)
    return Layout(call.shape, kept + call.placed(rows[:, 0], rank, rank - 3))


@pixel_shuffle.known
def _known_pixel_shuffle(call: KnownCall, input: Known, upscale_factor: int) -> Known:
    """A channel is constant in space only where its r·r sources are equal constants."""

    def shuffle(array: Tensor) -> Tensor:
        if array.shape[-3] == array.shape[-2] == array.shape[-1] == 1:
            return array
        full = array.expand(*array.shape[:-3], *input.shape[-3:])
        return torch.nn.functional.pixel_shuffle(full, upscale_factor)

    if input.shape[-1] * input.shape[-2] * input.shape[-3] > 1 << 22:
        return Known.anything(call.shape)
    rank = len(call.shape)
    return compressed(input.map(shuffle, call.shape), (rank - 2, rank - 1))
