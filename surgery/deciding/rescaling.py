"""Where a width that the code divides by becomes another: what has to be multiplied so that nothing else changes.

A root mean square norm of n channels, all but n' of them zero, keeps its values with `gain * sqrt(n / n')` and
`eps * n / n'`; one that divides by the mean itself, with `gain * n / n'`. Attention without an explicit scale divides
by the root of its queries' width d: with d' left, the queries are made `sqrt(d' / d)` as large, in the layer that they
come from.
"""

from __future__ import annotations

import math

import numpy as np
from torch import fx

from surgery.analysis.capture import Program
from surgery.calls import short_name
from surgery.coupling import Coupling, NormUse, ScaledUse
from surgery.deciding.parts import Scale
from surgery.layout import Bools, Ids, Layout

MAKING = ("aten.linear", "aten.addmm", "aten.conv", "aten.mm", "aten.matmul")
LINEAR = ("add", "sub", "neg", "cat", "stack", "to", "_to_copy", "type_as")
"""Ops that hand a factor on that is on all they take."""
PRODUCTS = {"mul": [[True, False], [False, True]], "div": [[True, False]]}
"""Ops that hand it on from one operand, by which of the two may have it."""
MOVING = (
    "view reshape _unsafe_view permute transpose unbind select slice split split_with_sizes chunk squeeze unsqueeze "
    "clone contiguous flatten unflatten alias t index"
).split()


def narrowed(use: NormUse, coupling: Coupling, alive: Bools) -> tuple[int, int]:
    """The width of a norm before and after."""
    return use.ids.size, int(np.count_nonzero(alive[coupling.channel_of[use.ids]]))


def rescaled(program: Program, coupling: Coupling, alive: Bools) -> tuple[Scale, ...]:
    """Every multiplication that a decision asks for."""
    found: dict[tuple[str, tuple[int, ...] | None], Scale] = {}
    for use in coupling.norms:
        before, after = narrowed(use, coupling, alive)
        if before != after:
            factor = (before / after) ** use.site.power
            found[use.site.gain, None] = Scale(use.site.gain, factor, use.site.offset)
    for attention in coupling.scaled:
        before, after = _widths(attention, coupling, alive)
        if before != after:
            for scale in _of_queries(program, coupling, attention, math.sqrt(after / before)) or ():
                found[scale.name, scale.positions] = scale
    return tuple(found.values())


def unscalable(program: Program, coupling: Coupling, alive: Bools) -> tuple[Ids, str] | None:
    """Channels to keep since their attention's scale could not be made up for, with the reason; None where all can."""
    for attention in coupling.scaled:
        before, after = _widths(attention, coupling, alive)
        if before == after or _of_queries(program, coupling, attention, 1.0) is not None:
            continue
        channels = coupling.channel_of[attention.ids]
        here = alive[channels]
        partly = channels[~here & here.any(1, keepdims=True)]
        where = program.where(attention.node)
        return partly, f"kept, for {where} divides by the root of its width, and its queries come from no layer alone"
    return None


def _widths(attention: ScaledUse, coupling: Coupling, alive: Bools) -> tuple[int, int]:
    here = alive[coupling.channel_of[attention.ids]].sum(1)
    return attention.ids.shape[1], int(here.max(initial=0)) or attention.ids.shape[1]


def _of_queries(program: Program, coupling: Coupling, attention: ScaledUse, factor: float) -> list[Scale] | None:
    """The rows of the layer that makes the queries, where nothing else reads them; None where that is not sure."""
    ids = np.unique(attention.ids)
    made_by = _makers(program.by_name[attention.query])
    makers = [use for use in coupling.uses if use.node in made_by and use.weight is not None]
    if len(makers) != 1 or len(made_by) != 1:
        return None
    (maker,) = makers
    node = program.by_name[maker.node]
    if not _for_one(program, coupling, node, attention):
        return None
    if {n.name for n in node.all_input_nodes} != {maker.operand, maker.weight, maker.bias} - {None}:
        return None
    made = coupling.layouts[maker.node]
    block = made.block_of(_channels(program, maker.node)) if isinstance(made, Layout) else None
    positions = () if block is None else tuple(np.flatnonzero(np.isin(block.ravel(), ids)).tolist())
    if maker.ids.shape[0] != 1 or len(positions) != ids.size:
        return None
    scales = []
    for place, dim in ((maker.weight, maker.weight_dims[0]), (maker.bias, 0)):
        if place is None:
            continue
        source = program.source(place)
        if source is None or len(program.readers(source[0])) != 1 or len(program.by_name[place].users) != 1:
            return None
        name, dims = source
        scales.append(Scale(name, factor, 0, dims[dim], positions))
    return scales


def _makers(query: fx.Node) -> set[str]:
    """The layers that queries come from, through ops that hand a factor on."""
    found: set[str] = set()
    reached = [query]
    for node in reached:  # grows
        if str(node.target).startswith(MAKING):
            found.add(node.name)
        elif _moves(node) or short_name(node.target) in (*LINEAR, *PRODUCTS):
            reached += [source for source in node.all_input_nodes if source not in reached]
    return found


def _for_one(program: Program, coupling: Coupling, maker: fx.Node, attention: ScaledUse) -> bool:
    """Whether a factor on what a layer makes comes to the attention, on its queries, and to nobody else."""
    reached = {maker}
    for node in program.calls:
        met = [source for source in node.all_input_nodes if source in reached]
        if not met:
            continue
        if node.name == attention.node:
            if any(source.name != attention.query or _not_first(node, source) for source in met):
                return False
        elif not _hands_on(node, reached):
            return False
        elif _holds(coupling.layouts.get(node.name), attention.ids):
            reached.add(node)
    return True


def _hands_on(node: fx.Node, reached: set[fx.Node]) -> bool:
    """Whether a factor on what has been reached is a factor on what the op makes of it."""
    name, operands = short_name(node.target), node.args[:2]
    if name in PRODUCTS:  # rotary positions turn queries by a product with cosines and sines
        return [operand in reached for operand in operands] in PRODUCTS[name]
    if name in LINEAR:
        return all(source in reached for source in node.all_input_nodes) and not any(
            isinstance(operand, int | float) for operand in (operands if name in ("add", "sub") else ())
        )
    return _moves(node)


def _not_first(attention: fx.Node, query: fx.Node) -> bool:
    """Whether an attention takes a node as anything but its queries."""
    return any(argument is query for argument in (*attention.args[1:], *attention.kwargs.values()))


def _holds(value: object, ids: Ids) -> bool:
    """Whether any of these units lies in a value."""
    layouts = [each for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, Layout)]
    return any(bool(np.isin(block, ids).any()) for layout in layouts for block in layout.blocks)


def _channels(program: Program, node: str) -> int:
    """The dim of a layer's output that its channels lie on."""
    return 1 if "conv" in str(program.by_name[node].target) else program.by_name[node].meta["val"].dim() - 1


def _moves(node: fx.Node) -> bool:
    """Whether an op hands on what comes in, or some of it, unchanged."""
    return short_name(node.target) in MOVING or "getitem" in str(node.target)
