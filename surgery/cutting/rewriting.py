"""Sizes that a captured graph holds as numbers: find those that a cut changes, and set them.

Every number is found from what the cut leaves at its op: the planned sizes of what it hands out, or how many of the
positions before a bound stay. An edit names it as `node.argument`, which no attribute of a module can be called.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

from torch import fx, nn

from surgery.analysis.capture import Program, order_of
from surgery.analysis.graph_modules import GraphModel, corresponding
from surgery.calls import short_name
from surgery.coupling import Coupling
from surgery.cutting.sizes import Op
from surgery.deciding.parts import Edit
from surgery.errors import PlanError
from surgery.layout import Bools, survivors
from surgery.registry import arguments


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
        at = Op(call, node, coupling, alive, alive_ids)
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


def _edit(at: Op, argument: str, index: int | None, old: int, new: int) -> Edit | None:
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
