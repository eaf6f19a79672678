"""Sizes that the model's own code keeps as attributes: find those that a cut changes, and set them.

A view or split in user code carries numbers. Where such a number is an attribute of the very module whose forward
called the op, that attribute is the likeliest source; the model is captured again afterwards, and only what matches the
plan is accepted. Objects that modules share (a config) are never touched.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase

from surgery.analysis.capture import Program
from surgery.coupling import Coupling
from surgery.deciding.parts import Edit
from surgery.deciding.rescaling import narrowed
from surgery.errors import PlanError
from surgery.layout import Bools, Ids, Layout, Shape, covered, survivors
from surgery.registry import arguments, find_rule


def set_(model: nn.Module, edit: Edit) -> None:
    """Carry out one edit.

    Raises:
        PlanError: The attribute is missing or holds another number.
    """
    try:
        module = model.get_submodule(edit.module)
        value = getattr(module, edit.attribute)
    except AttributeError as error:
        raise PlanError(
            f"the model has no {edit.module}.{edit.attribute}", "apply the plan to the model it was made from"
        ) from error
    if edit.index is None:
        changed: Any = edit.new
        current = value
    else:
        current = value[edit.index]
        changed = type(value)([edit.new if i == edit.index else v for i, v in enumerate(value)])
    if edit.old is not None and current not in (edit.old, edit.new):  # for None, a float64 copy has a number
        raise PlanError(
            f"{edit.module}.{edit.attribute} is {current}, the plan expects {edit.old}",
            "apply the plan to the model it was made from",
        )
    setattr(module, edit.attribute, changed)


def shrunk(layout: Layout, alive: Bools) -> Shape | None:
    """A layout's shape after the cut (`alive` by id), or None where what is left is no rectangle."""
    shape = list(layout.shape)
    for block in layout.blocks:
        left = survivors(block, alive)
        if left is None:
            return None
        for dim in covered(block):
            shape[dim] = left.shape[dim]
    return tuple(shape)


def find_edits(
    model: nn.Module,
    program: Program,
    coupling: Coupling,
    alive: Bools,
    banned: Collection[str],
    bold: Collection[str] = (),
) -> tuple[Edit, ...]:
    """Attributes to set so that the model's code runs at the new sizes.

    A number that some op of a module has as a size that stays is likelier another's, and left alone but in the modules
    of `bold`.

    Args:
        model: The model before the cut.
        program, coupling: What was captured.
        alive: Which channels stay, `[n_channels]`.
        banned: Modules whose attributes are to be left alone (an edit there did not work out).
        bold: Modules of which also those numbers are set that stand for a size that stays, too.
    """
    alive_ids = alive[coupling.channel_of]
    edits: dict[tuple[str, str, int | None], Edit] = {}
    clashes: set[tuple[str, str, int | None]] = set()
    steady: set[tuple[str, int]] = set()
    for edit in (
        *_conv_groups(model, program, coupling, alive),
        *_bare_norms(model, program, coupling, alive_ids),
        *_copies(model, program, coupling, alive_ids),
        *eps_edits(coupling, alive),
    ):
        if edit.module in banned:
            continue
        edits[edit.module, edit.attribute, edit.index] = edit
    for node in program.nodes:
        if node.op != "call_function":
            continue
        path = program.module_of(node.name)
        sizes = changed_sizes(node, coupling, alive_ids)
        written = _written(node, coupling, alive_ids)
        if written is not None:
            steady |= {(path, old) for old, new in written if old == new}
            sizes |= {old: new for old, new in written if old != new}
        if not sizes or path in banned or not _writes_sizes(node, sizes, written):
            continue
        for edit in _sources(model, path, node, sizes, coupling, alive_ids, written):
            key = (edit.module, edit.attribute, edit.index)
            if key in edits and edits[key].new != edit.new:
                clashes.add(key)
            edits[key] = edit
    sharing = {(e.module, e.attribute) for e in _copies(model, program, coupling, alive_ids) if _counts_copies(e)}
    unsure = {
        key
        for key, edit in edits.items()
        if (edit.module, edit.old) in steady and edit.module not in bold and key[:2] not in sharing
    }
    return tuple(edit for key, edit in edits.items() if key not in clashes | unsure)


def uneven(
    model: nn.Module, program: Program, coupling: Coupling, alive: Bools, modules: Collection[str]
) -> tuple[Ids, str] | None:
    """Channels to keep so that sizes which one attribute stands for stay equal, with the reason; None where all are.

    `split((self.c, self.c), 1)` can only hand out two halves of one size. Arguments as in `find_edits`; only `modules`
    are looked at.
    """
    sizes: dict[tuple[str, int], list[Bools]] = {}
    channels: dict[tuple[str, int], list[Ids]] = {}
    for node in program.nodes:
        path = program.module_of(node.name) if node.op == "call_function" else None
        if path is None or path not in modules:
            continue
        value = coupling.layouts.get(node.name)
        for layout in value if isinstance(value, tuple) else (value,) if value is not None else ():
            for block in layout.blocks:
                old = block.size
                named = _writes_sizes(node, {old: 0}, None) and any(_matching(model, path, {old: 0}))
                if len(covered(block)) > 1 or not named:
                    continue
                ids = coupling.channel_of[block.ravel()]
                channels.setdefault((path, old), []).append(ids)
                sizes.setdefault((path, old), []).append(alive[ids])
    for (path, old), here in sizes.items():
        widest = max(int(a.sum()) for a in here)
        for ids, a in zip(channels[path, old], here, strict=True):
            if (need := widest - int(a.sum())) > 0:
                place = path or "the model"
                return ids[~a][:need], f"kept, for {place} has one number for this size and others that were {old}"
    return None


def _conv_groups(model: nn.Module, program: Program, coupling: Coupling, alive: Bools) -> Iterator[Edit]:
    """`groups` of convolutions that lose whole conv groups (every depthwise one that is cut)."""
    for use in coupling.uses:
        old = use.ids.shape[0]
        rows = use.rows if use.rows is not None else use.ids
        new = int(alive[coupling.channel_of[rows]].any(1).sum())
        path = program.module_of(use.node)
        if old > 1 and new != old and getattr(model.get_submodule(path), "groups", None) == old:
            yield Edit(path, "groups", old, new)


def _bare_norms(model: nn.Module, program: Program, coupling: Coupling, alive_ids: Bools) -> Iterator[Edit]:
    """`num_features` of normalisations without any tensor, whose forward warns where it is another number."""
    for node in program.calls:
        layout = coupling.layouts.get(node.name)
        if "_norm" not in str(node.target) or not isinstance(layout, Layout) or layout.rank < 2:
            continue
        path, after = program.module_of(node.name), shrunk(layout, alive_ids)
        module = model.get_submodule(path)
        if not isinstance(module, _NormBase) or module.state_dict():
            continue
        if after is not None and module.num_features == layout.shape[1] != after[1]:
            yield Edit(path, "num_features", layout.shape[1], after[1])


ELSEWHERE = re.compile(
    "rep|group|ratio|times|idx|index|_id$|depth|stage|stride|pad|dilat|kernel|window|shift|seq|len|patch|grid"
)
"""Names of numbers that count no channels, though they may equal their number."""


def eps_edits(coupling: Coupling, alive: Bools) -> Iterator[Edit]:
    """The eps of norms that became narrower."""
    for use in coupling.norms:
        before, after = narrowed(use, coupling, alive)
        if before != after:
            yield Edit(use.site.module, use.site.attribute, use.site.eps, use.site.value * before / after)


SHARING = re.compile("rep|group|ratio|times|num_heads|n_heads")
"""What the number of query heads to a key head is called."""


def _copies(model: nn.Module, program: Program, coupling: Coupling, alive_ids: Bools) -> Iterator[Edit]:
    """How often something is laid out, where it is laid out less often now (`num_key_value_groups`)."""
    for made in coupling.copies:
        left, old = survivors(made.copies, alive_ids), made.copies.shape[made.dim]
        if left is None or left.size == 0 or left.shape[made.dim] == old:
            continue
        for path in program.modules_of(made.node)[-2:]:
            numbers = vars(model.get_submodule(path)).items()
            holding = [name for name, value in numbers if type(value) is type(old) and value == old]
            named = [name for name in holding if SHARING.search(name)]
            for name in named or (holding if len(holding) == 1 else []):
                yield Edit(path, name, old, left.shape[made.dim])


def _counts_copies(edit: Edit) -> bool:
    """Whether the name says so: code that is not run on these inputs (with a mask, say) may go by it, too."""
    return SHARING.search(edit.attribute) is not None


def changed_sizes(node: fx.Node, coupling: Coupling, alive_ids: Bools) -> dict[int, int]:
    """Sizes of the op's tensors that the cut changes, old to new; ambiguous ones are left out."""
    found: dict[int, set[int]] = {}
    for name in [node.name, *(n.name for n in node.all_input_nodes)]:
        value = coupling.layouts.get(name)
        for layout in value if isinstance(value, tuple) else (value,) if value is not None else ():
            after = shrunk(layout, alive_ids)
            for old, new in zip(layout.shape, after or layout.shape, strict=True):
                if old != new:
                    found.setdefault(old, set()).add(new)
    if "slice" in str(node.target):
        found |= _slice_start(node, coupling, alive_ids)
    return {old: news.pop() for old, news in found.items() if len(news) == 1}


def _slice_start(node: fx.Node, coupling: Coupling, alive_ids: Bools) -> dict[int, set[int]]:
    bound = arguments(node.target, node.args, node.kwargs)
    value = coupling.layouts.get(bound["input"].name)
    if not isinstance(value, Layout):
        return {}
    block = value.block_of(bound["dim"] % value.rank)
    found: dict[int, set[int]] = {}
    if block is not None and len(covered(block)) == 1:
        ids = block.ravel()
        for bound_at in (bound["start"], bound["end"]) if bound["step"] == 1 else ():
            if isinstance(bound_at, int) and 0 < bound_at <= ids.size:
                found.setdefault(bound_at, set()).add(int(alive_ids[ids[:bound_at]].sum()))
    return found


def _sources(
    model: nn.Module,
    path: str,
    node: fx.Node,
    sizes: dict[int, int],
    coupling: Coupling,
    alive_ids: Bools,
    written: Written,
) -> Iterator[Edit]:
    """The attributes that the op's numbers may have come from: equal to one of them, or else to another size there.

    `view(b, n, self.heads, self.width // self.heads)` writes a number that no attribute holds; `width` is one of the
    other sizes at the op.
    """
    lists = _piece_lists(node, coupling, alive_ids)
    numbers = _given(node) if written is None else [old for old, new in written if old != new]
    given = {size: sizes[size] for size in numbers if size in sizes}
    exact = list(_matching(model, path, given, lists))
    yield from exact
    if given.keys() - {edit.old for edit in exact}:
        yield from _matching(model, path, {old: new for old, new in sizes.items() if old not in given}, None)


def _piece_lists(node: fx.Node, coupling: Coupling, alive_ids: Bools) -> tuple[list[int], list[int]] | None:
    """The sizes of a split's pieces before and after, where they are written as a list."""
    value = coupling.layouts.get(node.name)
    if "split_with_sizes" not in str(node.target) or not isinstance(value, tuple):
        return None
    bound = arguments(node.target, node.args, node.kwargs)
    after = [shrunk(layout, alive_ids) or layout.shape for layout in value]
    return list(bound["split_sizes"]), [shape[bound["dim"]] for shape in after]


Written = list[tuple[int, int]] | None
"""The sizes that a view was given, and what the plan has in their places; None for other ops."""


def _written(node: fx.Node, coupling: Coupling, alive_ids: Bools) -> Written:
    layout = coupling.layouts.get(node.name)
    rule = find_rule(node.target)
    if rule is None or not isinstance(layout, Layout):
        return None
    bound = arguments(node.target, node.args, node.kwargs)
    given = next((bound[name] for name in ("size", "shape") if name in rule.sizes and name in bound), None)
    after = shrunk(layout, alive_ids)
    if not isinstance(given, list | tuple) or len(given) != layout.rank or after is None:
        return None
    return [(old, new) for old, new in zip(given, after, strict=True) if isinstance(old, int) and old > 1]


def _writes_sizes(node: fx.Node, sizes: dict[int, int], written: Written) -> bool:
    """Whether the op was given one of the changed sizes (or a multiple, as in `view(b, -1, 64 * 4)`) as a number."""
    return any(size in sizes for size in _given(node)) if written is None else any(old != new for old, new in written)


def _given(node: fx.Node) -> list[int]:
    """The numbers that the op was given as sizes."""
    rule = find_rule(node.target)
    if rule is None or not rule.sizes:
        return []
    bound = arguments(node.target, node.args, node.kwargs)
    return [s for name in sorted(rule.sizes) for s in _numbers(bound.get(name)) if isinstance(s, int)]


def _numbers(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _matching(
    model: nn.Module, path: str, sizes: dict[int, int], lists: tuple[list[int], list[int]] | None = None
) -> Iterator[Edit]:
    """Integers (or entries of tuples) among the module's own attributes that equal a changed size.

    A list of the module that equals the op's whole list of pieces follows it entry by entry.
    """
    module = model.get_submodule(path)
    if type(module).__module__.startswith("torch.nn."):
        return  # their numbers are corrected from their tensors
    for attribute, value in vars(module).items():
        if attribute.startswith("_") or isinstance(value, bool) or ELSEWHERE.search(attribute):
            continue
        if isinstance(value, int) and value in sizes:
            yield Edit(path, attribute, value, sizes[value])
        elif isinstance(value, list | tuple) and lists is not None and list(value) == lists[0]:
            for index, (old, new) in enumerate(zip(*lists, strict=True)):
                if old != new:
                    yield Edit(path, attribute, old, new, index)
        elif isinstance(value, list | tuple):
            for index, entry in enumerate(value):
                if isinstance(entry, int) and not isinstance(entry, bool) and entry in sizes:
                    yield Edit(path, attribute, entry, sizes[entry], index)
