"""Sizes that a captured graph holds as numbers: find those that a cut changes, and set them.

Every number is found from what the cut leaves at its op: the planned sizes of what it hands out, or how many of the
positions before a bound stay. An edit names it as `node.argument`, which no attribute of a module can be called.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import fx, nn

from surgery.analysis.capture import Program, order_of
from surgery.analysis.graph_modules import GraphModel, corresponding
from surgery.calls import short_name
from surgery.coupling import Coupling
from surgery.cutting.repair import shrunk
from surgery.deciding.cuts import Edit
from surgery.errors import PlanError
from surgery.layout import Bools, Layout, Shape, along, survivors
from surgery.registry import arguments

Number = tuple[str, int | None, int, int]
"""Argument, index in it or None, old and new."""


def is_literal(edit: Edit) -> bool:
    """Whether an edit is of a number in a graph, and not of an attribute."""
    return "." in edit.attribute


def literal_edits(model: GraphModel, program: Program, coupling: Coupling, alive: Bools) -> tuple[Edit, ...]:
    """The numbers to set in a graph so that it runs at the new sizes.

    A number that cannot be set right is left: looking at the slim model again finds it.

    Args:
        model: The graph module before the cut.
        program, coupling: What was captured of it.
        alive: Which channels stay, `[n_channels]`.
    """
    alive_ids = alive[coupling.channel_of]
    edits: dict[tuple[str, int | None], Edit] = {}
    for call, node in corresponding(program, model):
        at = _Op(call, node, coupling, alive, alive_ids)
        for argument, index, old, new in at.numbers():
            if old == new:
                continue
            edit = _edit(at, argument, index, old, new)
            if edit is not None:
                edits[edit.attribute, edit.index] = edit
    for edit in _stretches(program, coupling, alive_ids, dict(corresponding(program, model))):
        edits[edit.attribute, edit.index] = edit
    return tuple(edits.values())


def _stretches(
    program: Program, coupling: Coupling, alive_ids: Bools, written: dict[fx.Node, fx.Node]
) -> Iterator[Edit]:
    """How often one position is laid out for heads of which some go: the size that was asked for."""
    for made in coupling.copies:
        node, dim, left = program.by_name[made.node], made.dim, survivors(made.copies, alive_ids)
        while node.name in program.by_name and not _lays_out(node):
            order = order_of(node) if node.op == "call_function" else None
            if order is None or not isinstance(node.args[0], fx.Node):
                break
            node, dim = node.args[0], order[dim]
        sizes = arguments(node.target, node.args, node.kwargs)["size"] if _lays_out(node) and node in written else None
        if left is None or not isinstance(sizes, list | tuple) or len(sizes) != node.meta["val"].dim():
            continue
        old, new = made.copies.shape[made.dim], left.shape[made.dim]
        given = arguments(written[node].target, written[node].args, written[node].kwargs)["size"][dim]
        if old != new and given == old:
            yield Edit("", f"{written[node].name}.size", old, new, dim)


def _lays_out(node: fx.Node) -> bool:
    """Whether an op hands one position (or one number) out as often as it is asked to."""
    return node.op == "call_function" and short_name(node.target) in LAYING_OUT


LAYING_OUT = ("expand", "zeros", "ones", "full", "new_zeros", "new_ones", "new_full")


def set_literal_(model: nn.Module, edit: Edit) -> None:
    """Set one number of a graph.

    Raises:
        PlanError: The model is no graph, has no such number, or holds another one.
    """
    name, _, argument = edit.attribute.partition(".")
    if not isinstance(model, GraphModel):
        raise PlanError(
            f"the plan sets {edit.attribute} of a captured graph, the model is a {type(model).__name__}",
            "make it a graph with surgery's as_graph first",
        )
    node = next((n for n in model.captured.graph.nodes if n.name == name), None)
    if node is None:
        raise PlanError(f"the graph has no op {name}", "apply the plan to the model it was made from")
    value = _argument(node, argument)
    entry = value[edit.index] if edit.index is not None and isinstance(value, list | tuple) else value
    if entry not in (edit.old, edit.new):
        raise PlanError(
            f"{edit.attribute} of the graph is {entry}, the plan expects {edit.old}",
            "apply the plan to the model it was made from",
        )
    changed: Any = edit.new
    if edit.index is not None:
        changed = [edit.new if i == edit.index else v for i, v in enumerate(value)]
    _set_argument_(node, argument, changed)
    model.captured.compiled = None


def _argument(node: fx.Node, name: str) -> Any:
    if name.isdigit():
        return node.args[int(name)] if int(name) < len(node.args) else None
    return arguments(node.target, node.args, node.kwargs).get(name)


def _set_argument_(node: fx.Node, name: str, value: Any) -> None:
    positions = [] if name.isdigit() else [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
    position = int(name) if name.isdigit() else positions.index(name)
    if position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)


def _edit(at: _Op, argument: str, index: int | None, old: int, new: int) -> Edit | None:
    """The edit of a number, or of the factor in the product that computes it."""
    value = at.given.get(argument)
    entry = value[index] if index is not None and isinstance(value, list | tuple) else value
    if isinstance(entry, fx.Node):
        return _factor(entry, old, new)
    if type(entry) is not int:
        return None
    return Edit("", f"{at.node.name}.{argument}", entry, new, index)


def _factor(size: fx.Node, old: int, new: int) -> Edit | None:
    """The literal factor of a product of sizes that takes it from `old` to `new`."""
    if size.target is not operator.mul:
        return None
    for position, factor in enumerate(size.args):
        if type(factor) is int and factor * new % old == 0:
            return Edit("", f"{size.name}.{position}", factor, factor * new // old)
    inner = (_factor(factor, old, new) for factor in size.args if isinstance(factor, fx.Node))
    return next((edit for edit in inner if edit is not None), None)


class _Op:
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


def _whole(argument: str) -> Callable[[_Op], Iterator[Number]]:
    """Sizes that are those of the output, the last with the last."""

    def numbers(op: _Op) -> Iterator[Number]:
        shapes, sizes = op.shapes(), op.before[argument]
        if shapes is None:
            return
        first = len(shapes[0]) - len(sizes)
        for index, size in enumerate(sizes):
            if size != -1 and first + index >= 0:
                yield argument, index, shapes[0][first + index], shapes[1][first + index]

    return numbers


def _unflatten(op: _Op) -> Iterator[Number]:
    shapes, source = op.shapes(), op.layout("input")
    if shapes is None or source is None:
        return
    first = op.before["dim"] % source.rank
    for index, size in enumerate(op.before["sizes"]):
        if size != -1:
            yield "sizes", index, shapes[0][first + index], shapes[1][first + index]


def _repeat(argument: str) -> Callable[[_Op], Iterator[Number]]:
    """How often each dim is laid end to end: what goes out over what came in."""

    def numbers(op: _Op) -> Iterator[Number]:
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


def _repeat_interleave(op: _Op) -> Iterator[Number]:
    made, source = op.shapes(), op.shapes("input")
    dim = op.before["dim"]
    if made is None or source is None or dim is None:
        return
    if made[1][dim] % source[1][dim] == 0:
        yield "repeats", None, op.before["repeats"], made[1][dim] // source[1][dim]


def _bound(op: _Op, argument: str, dim: int) -> Iterator[Number]:
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


def _slice(op: _Op) -> Iterator[Number]:
    # every n-th position: where it starts is a place in each run of n, which all stay or go as wholes
    for argument in ("start", "end") if op.before.get("step", 1) == 1 else ("end",):
        yield from _bound(op, argument, op.before["dim"])


def _select(op: _Op) -> Iterator[Number]:
    yield from _bound(op, "index", op.before["dim"])


def _narrow(op: _Op) -> Iterator[Number]:
    yield from _bound(op, "start", op.before["dim"])
    shapes, dim = op.shapes(), op.before["dim"]
    if shapes is not None:
        yield "length", None, shapes[0][dim], shapes[1][dim]


def _pieces(op: _Op) -> list[tuple[int, int]]:
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


def _split(op: _Op) -> Iterator[Number]:
    pieces = _pieces(op)
    if "split_sizes" in op.before or isinstance(op.before["split_size"], list | tuple):
        argument = "split_sizes" if "split_sizes" in op.before else "split_size"
        for index, (old, new) in enumerate(pieces):
            yield argument, index, old, new
    elif pieces:
        yield "split_size", None, op.before["split_size"], max(new for _, new in pieces)


def _conv_groups(op: _Op) -> Iterator[Number]:
    for use in op.coupling.uses:
        if use.node == op.call.name:
            rows = use.rows if use.rows is not None else use.ids
            left = int(op.alive[op.coupling.channel_of[rows]].any(1).sum())
            yield "groups", None, use.ids.shape[0], left


def _pad(op: _Op) -> Iterator[Number]:
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


def _normalised(op: _Op) -> Iterator[Number]:
    shapes = op.shapes("input")
    sizes = op.before["normalized_shape"]
    if shapes is not None:
        first = len(shapes[0]) - len(sizes)
        for index, old in enumerate(sizes):
            yield "normalized_shape", index, old, shapes[1][first + index]


KINDS: dict[str, Callable[[_Op], Iterator[Number]]] = {
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
