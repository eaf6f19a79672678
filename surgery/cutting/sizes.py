"""The numbers that an op was given as sizes, before and after the cut.

Each follows from what the cut leaves at its op: the planned sizes of what it hands out, or how many of the positions
before a bound stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch import fx

from surgery.calls import short_name
from surgery.coupling import Coupling
from surgery.cutting.repair import shrunk
from surgery.layout import Bools, Layout, Shape, along
from surgery.registry import arguments

Number = tuple[str, int | None, int, int]
"""Argument, index in it or None, old and new."""


class Op:
    """One op with its sizes before and after the cut."""

    def __init__(self, call: fx.Node, node: fx.Node, coupling: Coupling, alive: Bools, alive_ids: Bools) -> None:
        self.call, self.node, self.coupling, self.alive, self.alive_ids = call, node, coupling, alive, alive_ids
        self.name = short_name(call.target)
        self.before = arguments(call.target, call.args, call.kwargs)
        self.given = arguments(node.target, node.args, node.kwargs)

    def numbers(self) -> Iterator[Number]:
        """The op's size arguments, before and after."""
        kind = KINDS.get(self.name)
        return kind(self) if kind is not None else iter(())

    def layout(self, argument: str | None = None) -> Layout | None:
        """The layout of an argument, or of what the op hands out."""
        source = self.call if argument is None else self.before.get(argument)
        value = self.coupling.layouts.get(source.name) if isinstance(source, fx.Node) else None
        return value if isinstance(value, Layout) else None

    def shapes(self, argument: str | None = None) -> tuple[Shape, Shape] | None:
        """The shape before and after, or None where nothing is planned."""
        layout = self.layout(argument)
        after = shrunk(layout, self.alive_ids) if layout is not None else None
        return None if layout is None or after is None else (layout.shape, after)

    def ahead(self, argument: str | None, dim: int, bound: int) -> int | None:
        """How many of the first `bound` positions along a dim stay; None where rows do not agree."""
        layout = self.layout(argument)
        block = layout.block_of(dim % layout.rank) if layout is not None else None
        if layout is None or block is None:
            return None
        rows = self.alive_ids[along(block, dim % layout.rank)]  # (rows, positions)
        counts = np.unique(rows[rows.any(1), :bound].sum(1))
        return int(counts[0]) if counts.size == 1 else None


def _whole(argument: str) -> Callable[[Op], Iterator[Number]]:
    """Sizes that are those of the output, the last with the last."""

    def numbers(op: Op) -> Iterator[Number]:
        shapes, sizes = op.shapes(), op.before[argument]
        if shapes is None:
            return
        first = len(shapes[0]) - len(sizes)
        for index, size in enumerate(sizes):
            if size != -1 and first + index >= 0:
                yield argument, index, shapes[0][first + index], shapes[1][first + index]

    return numbers


def _unflatten(op: Op) -> Iterator[Number]:
    shapes, source = op.shapes(), op.layout("input")
    if shapes is None or source is None:
        return
    first = op.before["dim"] % source.rank
    for index, size in enumerate(op.before["sizes"]):
        if size != -1:
            yield "sizes", index, shapes[0][first + index], shapes[1][first + index]


def _repeat(argument: str) -> Callable[[Op], Iterator[Number]]:
    """How often each dim is laid end to end: what goes out over what came in."""

    def numbers(op: Op) -> Iterator[Number]:
        made, source = op.shapes(), op.shapes("input")
        if made is None or source is None:
            return
        times = op.before[argument]
        padded = (1,) * (len(made[1]) - len(source[1])) + source[1]
        first = len(made[1]) - len(times)
        for index, old in enumerate(times):
            if first + index >= 0 and made[1][first + index] % padded[first + index] == 0:
                yield argument, index, old, made[1][first + index] // padded[first + index]

    return numbers


def _repeat_interleave(op: Op) -> Iterator[Number]:
    made, source = op.shapes(), op.shapes("input")
    dim = op.before["dim"]
    if made is None or source is None or dim is None:
        return
    if made[1][dim] % source[1][dim] == 0:
        yield "repeats", None, op.before["repeats"], made[1][dim] // source[1][dim]


def _bound(op: Op, argument: str, dim: int) -> Iterator[Number]:
    """A bound along a dim of the input: as many positions as stay before it, counted from where it counts."""
    bound, source = op.before[argument], op.layout("input")
    if not isinstance(bound, int) or source is None:
        return
    size = source.shape[dim % source.rank]
    new, left = op.ahead("input", dim, bound), op.ahead("input", dim, size)
    if new is None or left is None:
        return
    if -size <= bound < 0:
        yield argument, None, bound, new - left
    elif 0 <= bound <= size:
        yield argument, None, bound, new


def _slice(op: Op) -> Iterator[Number]:
    # every n-th position: where it starts is a place in each run of n, which all stay or go as wholes
    for argument in ("start", "end") if op.before.get("step", 1) == 1 else ("end",):
        yield from _bound(op, argument, op.before["dim"])


def _select(op: Op) -> Iterator[Number]:
    yield from _bound(op, "index", op.before["dim"])


def _narrow(op: Op) -> Iterator[Number]:
    yield from _bound(op, "start", op.before["dim"])
    shapes, dim = op.shapes(), op.before["dim"]
    if shapes is not None:
        yield "length", None, shapes[0][dim], shapes[1][dim]


def _pieces(op: Op) -> list[tuple[int, int]]:
    """The sizes of a split's pieces, before and after."""
    value = op.coupling.layouts.get(op.call.name)
    dim = op.before["dim"]
    found: list[tuple[int, int]] = []
    for layout in value if isinstance(value, tuple) else ():
        after = shrunk(layout, op.alive_ids)
        if after is None:
            return []
        found.append((layout.shape[dim], after[dim]))
    return found


def _split(op: Op) -> Iterator[Number]:
    pieces = _pieces(op)
    if "split_sizes" in op.before or isinstance(op.before["split_size"], list | tuple):
        argument = "split_sizes" if "split_sizes" in op.before else "split_size"
        for index, (old, new) in enumerate(pieces):
            yield argument, index, old, new
    elif pieces:
        yield "split_size", None, op.before["split_size"], max(new for _, new in pieces)


def _conv_groups(op: Op) -> Iterator[Number]:
    for use in op.coupling.uses:
        if use.node == op.call.name:
            rows = use.rows if use.rows is not None else use.ids
            left = int(op.alive[op.coupling.channel_of[rows]].any(1).sum())
            yield "groups", None, use.ids.shape[0], left


def _pad(op: Op) -> Iterator[Number]:
    made = op.layout()
    if made is None:
        return
    amounts = op.before["pad"]
    for i in range(len(amounts) // 2):
        dim = made.rank - 1 - i
        size, before, behind = made.shape[dim], amounts[2 * i], amounts[2 * i + 1]
        counts = [op.ahead(None, dim, bound) for bound in (max(before, 0), size - max(behind, 0), size)]
        if None in counts:
            continue
        first, last, every = (count for count in counts if count is not None)
        yield "pad", 2 * i, before, first if before > 0 else before
        yield "pad", 2 * i + 1, behind, every - last if behind > 0 else behind


def _normalised(op: Op) -> Iterator[Number]:
    shapes = op.shapes("input")
    sizes = op.before["normalized_shape"]
    if shapes is not None:
        first = len(shapes[0]) - len(sizes)
        for index, old in enumerate(sizes):
            yield "normalized_shape", index, old, shapes[1][first + index]


KINDS: dict[str, Callable[[Op], Iterator[Number]]] = {
    **dict.fromkeys(("view", "_unsafe_view", "view_copy", "expand", "broadcast_to"), _whole("size")),
    **dict.fromkeys(("zeros", "ones", "full", "empty", "rand", "randn"), _whole("size")),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), _whole("size")),
    "reshape": _whole("shape"),
    "unflatten": _unflatten,
    "repeat": _repeat("repeats"),
    "tile": _repeat("dims"),
    "repeat_interleave": _repeat_interleave,
    "slice": _slice,
    "slice_scatter": _slice,
    "select": _select,
    "select_scatter": _select,
    "narrow": _narrow,
    **dict.fromkeys(("split", "split_with_sizes", "split_with_sizes_copy"), _split),
    **dict.fromkeys((f"conv{n}d" for n in (1, 2, 3)), _conv_groups),
    **dict.fromkeys((f"conv_transpose{n}d" for n in (1, 2, 3)), _conv_groups),
    "convolution": _conv_groups,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "layer_norm": _normalised,
    "rms_norm": _normalised,
    "native_layer_norm": _normalised,
}
"""By op, how its size arguments follow from the plan."""
