"""After the cut: capture the slim model and hold every node against the plan, scalar arguments included.

The slim program is run on the unit ids that survived. If they arrive everywhere as the plan says, every column meets
its row; a stale slice bound, a literal size or a scale that followed a repaired attribute shows here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from surgery.analysis.capture import Program, capture
from surgery.analysis.couple import run
from surgery.analysis.graph_modules import with_origins
from surgery.calls import Call, short_name
from surgery.coupling import Axis, Coupling, Ledger, LedgerError
from surgery.cutting.kin import Kin
from surgery.cutting.repair import shrunk
from surgery.deciding.cuts import Cuts
from surgery.deciding.rescaling import narrowed
from surgery.errors import CaptureError
from surgery.inputs import Inputs
from surgery.layout import Bools, Ids, Layout, on_dim, survivors
from surgery.registry import arguments, find_rule


@dataclass(frozen=True)
class Mismatch:
    """The first place where the slim model is not what the plan says.

    Attributes:
        nodes: The nodes concerned (of the program before the cut).
        module: Path of the module whose code it is.
        fact: What differs.
        bias: The bias that was made for a fold and is not read, or an empty string.
    """

    nodes: tuple[str, ...]
    module: str
    fact: str
    bias: str = ""


class _DiffersError(LedgerError):
    """A size or an id is not as planned."""


class _Inherited(Ledger):
    """A ledger whose fresh ids are the survivors of those that the first run made at the same op, in the same order."""

    def __init__(self, coupling: Coupling, alive: Bools, twin: dict[str, fx.Node]) -> None:
        super().__init__(n_ids=coupling.channel_of.size)
        self.channel_of = coupling.channel_of
        self.twin = twin
        self.coming: dict[tuple[str, str], list[Ids]] = {}
        for node, kind, ids in coupling.anonymous:
            self.coming.setdefault((node, kind), []).append(ids[alive[ids]])

    def inherited(self, node: str, kind: str, size: int) -> Ids:
        """The surviving ids of the next axis of that size that the op made, or ids that stand for nothing.

        A channel that is alone now had others beside it; where one key head is left, its copies need no ids.
        """
        coming = self.coming.get((self.twin[node].name, kind), [])
        fitting = next((index for index, ids in enumerate(coming) if ids.size == size), None)
        if fitting is not None:
            return coming.pop(fitting)
        if size == 1 or not coming:
            return self.nobody(size)
        raise _DiffersError(f"{size} new channels where the plan has {coming[0].size}")

    def nobody(self, size: int) -> Ids:
        """Ids that stand for nothing: the inner dim of a grouped weight."""
        self.n_ids += size
        return np.arange(self.n_ids - size, self.n_ids, dtype=np.int64)


class _Rechecked(Call):
    """A call on the slim program: what says that channels go together, but not that they are the same, is left out."""

    ledger: _Inherited

    def fresh(self, size: int, kind: str = "channels") -> Ids:
        """The units that the same op made in the first run."""
        return self.ledger.inherited(self.node, kind, size)

    def apart(self, a: Ids, b: Ids) -> bool:
        """Whether the plan has some of these units in different channels."""
        of = self.ledger.channel_of
        known = (a < of.size) & (b < of.size)
        return bool((of[a[known]] != of[b[known]]).any())

    def tie(self, a: Ids, b: Ids) -> None:
        """Units that meet. Those on the two sides of a convolution that the cut made depthwise do not."""
        if self.op.startswith("aten.conv") and a.ndim == 2 and a.shape == b.shape and a.shape[1] == 1:
            self.accounted += [a, b]
        else:
            super().tie(a, b)


def recheck(
    program: Program, coupling: Coupling, alive: Bools, cuts: Cuts, slim: nn.Module, inputs: Inputs
) -> Mismatch | None:
    """Capture the slim model and compare; None where everything is as planned.

    Args:
        program, coupling: The model before the cut.
        alive: Which channels stay, `[n_channels]`.
        cuts: What was cut and folded.
        slim: The model after the cut.
        inputs: The example inputs.
    """
    try:
        after = with_origins(capture(slim, inputs), slim)
    except CaptureError as error:
        return _from_traceback(program, slim, error)
    return compare(program, coupling, alive, cuts, after)


def compare(program: Program, coupling: Coupling, alive: Bools, cuts: Cuts, after: Program) -> Mismatch | None:
    """The first place where a slim program is not what was planned; arguments as in `recheck`."""
    for fold in cuts.folds:
        if fold.bias in after.unused:
            path = fold.bias.rpartition(".")[0]
            nodes = tuple(n.name for n in program.calls if program.module_of(n.name) == path)
            return Mismatch(nodes, path, "it does not read the bias that was made for a constant", fold.bias)
    settings = _planned_settings(coupling, alive)
    before_nodes = _without_idle(program, after, coupling, alive)
    for old, new in zip(before_nodes, after.calls, strict=False):
        if old.target != new.target and not (new.target is ALIAS and old.target is SLICE) and not _both_view(old, new):
            return _mismatch(program, old, f"{old.target} became {new.target}")
        if not _same_constants(program, old, after, new):
            return _mismatch(program, old, "a number that the code computes from a size changed with it")
        planned = settings.get(old.name, {})
        if old.target == new.target and (difference := _settings_differ(old, new, planned)) is not None:
            return _mismatch(program, old, difference)
    if len(before_nodes) != len(after.calls):
        return _mismatch(program, before_nodes[-1], f"{len(before_nodes)} ops became {len(after.calls)}")
    names = [n.name for n in after.calls]
    made = {fold.bias for fold in cuts.folds} - set(cuts.shapes)
    return _ids_differ(program, coupling, alive, after, dict(zip(names, before_nodes, strict=True)), made)


SLICE, ALIAS = torch.ops.aten.slice.Tensor, torch.ops.aten.alias.default
VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)
"""What a reshape is, of memory as it lies and of a copy: where one head is left, nothing is to be copied."""
MOVING = ("slice", "unsqueeze", "squeeze", "expand", "reshape", "view", "clone", "contiguous", "repeat_interleave")
"""Ops that code leaves out where they would do nothing: an index that takes all, one copy of each key head."""


def _without_idle(program: Program, after: Program, coupling: Coupling, alive: Bools) -> list[fx.Node]:
    """The ops before the cut, less those that have nothing to do after it and are not there any more.

    Where Python's indexing drops all of one index, it leaves an `alias`, which stands for the first slice.
    """
    alive_ids = alive[coupling.channel_of]
    coming = list(after.calls)
    kept: list[fx.Node] = []
    for old in program.calls:
        new = coming[len(kept)] if len(kept) < len(coming) else None
        here = new is not None and _is_twin(program, old, after, new)
        if here or not _idle(old, coupling, alive_ids):
            kept.append(old)
    return kept


def _is_twin(program: Program, old: fx.Node, after: Program, new: fx.Node) -> bool:
    if old.target is SLICE and new.target in (SLICE, ALIAS):
        return new.target is ALIAS or old.args[1:2] == new.args[1:2]
    if old.target != new.target or not _moves(old):
        return old.target == new.target or _both_view(old, new)
    return program.where(old.name) == after.where(new.name)


def _both_view(old: fx.Node, new: fx.Node) -> bool:
    return old.target in VIEWS and new.target in VIEWS


def _moves(node: fx.Node) -> bool:
    return short_name(node.target) in MOVING


def _idle(node: fx.Node, coupling: Coupling, alive_ids: Bools) -> bool:
    """Whether an op that moves positions has as many before as after, once the cut is made."""
    source = node.args[0]
    if not _moves(node) or not isinstance(source, fx.Node):
        return False
    layouts = [coupling.layouts.get(n.name) for n in (node, source)]
    sizes = [_apart_from_copies(layout, alive_ids) for layout in layouts if isinstance(layout, Layout)]
    if len(sizes) != 2 or sizes[0] is None or sizes[1] is None:
        return False
    return sizes[0] == sizes[1] if node.target is SLICE else math.prod(sizes[0]) == math.prod(sizes[1])


def _apart_from_copies(layout: Layout, alive_ids: Bools) -> list[int] | None:
    """A layout's shape after the cut, with one copy along each dim of copies."""
    after = shrunk(layout, alive_ids)
    return None if after is None else [1 if d in layout.stretched else size for d, size in enumerate(after)]


def _mismatch(program: Program, node: fx.Node, fact: str) -> Mismatch:
    names = (node.name, *(n.name for n in node.all_input_nodes))
    return Mismatch(names, program.module_of(node.name), fact)


def _same_constants(program: Program, old: fx.Node, after: Program, new: fx.Node) -> bool:
    """Whether tensors that the code made (`torch.tensor(width)`) are what they were."""
    pairs = zip(old.all_input_nodes, new.all_input_nodes, strict=False)
    made = [
        (program.lifted[a.name], after.lifted[b.name])
        for a, b in pairs
        if a.name in program.lifted and b.name in after.lifted
    ]
    return all(a.shape == b.shape and torch.equal(a.cpu(), b.cpu()) for a, b in made if not (a.is_meta or b.is_meta))


def _planned_settings(coupling: Coupling, alive: Bools) -> dict[str, dict[str, float]]:
    """By node, scalar arguments that the plan changes: the eps of norms."""
    found: dict[str, dict[str, float]] = {}
    for use in coupling.norms:
        before, after = narrowed(use, coupling, alive)
        if before != after:
            found[use.site.eps_node] = {use.site.eps_argument: use.site.value * before / after}
    return found


def _settings_differ(old: fx.Node, new: fx.Node, planned: Mapping[str, float]) -> str | None:
    """A scalar argument that is no size and changed all the same."""
    rule = find_rule(old.target)
    sizes = rule.sizes if rule is not None else frozenset()
    sizes = sizes if old.all_input_nodes else sizes | {"size"}  # `torch.zeros(layers, b, hidden)`
    before, after = (arguments(n.target, n.args, n.kwargs) for n in (old, new))
    if before.get("step", 1) != 1:
        sizes = sizes - {"start"}  # a place in each run of so many positions
    for name, value in before.items():
        wanted = planned.get(name, value)
        if name not in sizes and not _same(wanted, after.get(name)):
            return f"{name} was {value} and is {after.get(name)}"
    return None


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, fx.Node) or isinstance(new, fx.Node):
        return (isinstance(old, fx.Node) and isinstance(new, fx.Node)) or (old is None and isinstance(new, fx.Node))
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(old) == len(new) and all(_same(a, b) for a, b in zip(old, new, strict=True))
    return bool(old == new)


def _ids_differ(
    program: Program, coupling: Coupling, alive: Bools, after: Program, twin: dict[str, fx.Node], made: set[str]
) -> Mismatch | None:
    alive_ids = alive[coupling.channel_of]
    ledger = _Inherited(coupling, alive_ids, twin)

    def place(name: str, shape: tuple[int, ...], _: Ledger) -> Layout:
        blocks = []
        for dim, size in enumerate(shape):
            axis = coupling.axes.get((name, dim))
            if name in made:  # a bias is as long as its weight has rows
                weight = f"{name.rpartition('.')[0]}.weight".removeprefix(".")
                axis = coupling.axes.get((weight, 0))
                axis = axis if axis is not None and int(alive_ids[axis.ids].sum()) == size else None
            if axis is None or size == 1:
                continue
            grouped = axis.ids.ndim == 2
            ids = ledger.nobody(size) if grouped else axis.ids[alive_ids[axis.ids]]
            if ids.size != size:
                raise _DiffersError(f"{name} has {size} positions on dim {dim}, the plan {ids.size}")
            ledger.axes[name, dim] = Axis(name, dim, ids)
            blocks.append(on_dim(ids, len(shape), dim))
        return Layout(shape, tuple(blocks))

    try:
        sites = {use.site.node: use.site for use in coupling.norms}
        run(after, ledger, place, _Rechecked, {n: sites[old.name] for n, old in twin.items() if old.name in sites})
    except (_DiffersError, ValueError, IndexError) as error:
        done = [twin[name] for name in ledger.layouts if name in twin]
        at = done[-1] if done else next(iter(twin.values()))
        return _mismatch(program, at, str(error))
    channel = np.concatenate([coupling.channel_of, np.full(ledger.n_ids - coupling.channel_of.size, -1)])
    kin = Kin(coupling, channel)
    for name, node in twin.items():
        if not node.all_input_nodes:  # a fresh tensor is as large as it is asked to be: see where it meets others
            continue
        if (
            fact := _layouts_differ(coupling.layouts.get(node.name), ledger.layouts.get(name), kin, alive_ids)
        ) is not None:
            return _mismatch(program, node, fact)
    copied = [(made.copies, made.originals) for made in ledger.copies]
    crossed = [(outer.cells, side) for outer in ledger.outers for side in (outer.rows, outer.columns)]
    for a, b in (*ledger.ties, *copied, *crossed):
        if not kin.same(a, b):
            return Mismatch((), "", "units meet that are not coupled")
    return None


def _layouts_differ(old: Any, new: Any, kin: Kin, alive_ids: Bools) -> str | None:
    olds, news = (x if isinstance(x, tuple) else (x,) for x in (old, new))
    for before, after in zip(olds, news, strict=False):
        if not isinstance(before, Layout) or not isinstance(after, Layout):
            continue
        planned = shrunk(before, alive_ids)
        if planned is None:
            return "what is left is no rectangle"
        # what is laid out as often as is asked for shows where it comes to lie
        shape = [after.shape[d] if d in before.stretched else size for d, size in enumerate(planned)]
        if tuple(shape) != after.shape:
            return f"its shape is {list(after.shape)}, the plan says {shape}"
        expected = [left for block in before.blocks if (left := survivors(block, alive_ids)) is not None]
        meeting = [(left, found) for left in expected for found in after.blocks if _touch(left, found)]
        if not all(kin.same(left, found) for left, found in meeting):
            return "other channels arrive than the plan says"
        single = np.array([kin.channel[left].item() for left in expected if left.size == 1])
        arrived = np.array([kin.channel[block].item() for block in after.blocks if block.size == 1])
        if single.size and not np.isin(arrived[arrived >= 0], single).all():
            return "another channel arrives than the plan says"
    return None


def _touch(left: Ids, found: Ids) -> bool:
    return left.size > 1 and any(a > 1 and b > 1 for a, b in zip(left.shape, found.shape, strict=True))


def _from_traceback(program: Program, slim: nn.Module, error: CaptureError) -> Mismatch:
    """The module whose code raised and the ops of that very line: the innermost frame of one of the model's modules."""
    paths = {id(module): path for path, module in slim.named_modules()}
    trace = error.__cause__.__traceback__ if error.__cause__ is not None else None
    module, line = "", ""
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in paths and not type(owner).__module__.startswith("torch."):
            module, line = paths[id(owner)], f'File "{trace.tb_frame.f_code.co_filename}", line {trace.tb_lineno},'
        trace = trace.tb_next
    inside = [n for n in program.nodes if n.op == "call_function" and program.module_of(n.name) == module]
    at_line = [n for n in inside if line and line in (n.meta.get("stack_trace") or "")]
    fed = [n for node in at_line for n in node.all_input_nodes if n.op == "call_function"]
    nodes = dict.fromkeys(n.name for n in [*at_line, *fed]) or dict.fromkeys(n.name for n in inside)
    return Mismatch(tuple(nodes), module, error.fact)
