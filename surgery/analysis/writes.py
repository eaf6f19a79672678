"""What a program writes in place, and which values share memory with what is written."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence

from torch import fx

from surgery.registry import arguments


def written_argument(node: fx.Node) -> fx.Node | None:
    """The node whose tensor an in-place op writes into, or None."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable:
        return None
    bound = arguments(node.target, node.args, node.kwargs)
    for argument in schema.arguments:
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = bound["input" if argument.name == "self" else argument.name]
            return given if isinstance(given, fx.Node) else None
    return None


def written_roots(nodes: Sequence[fx.Node]) -> Iterator[fx.Node]:
    """The roots (placeholders, makers) of everything that is written in place."""
    for node in nodes:
        target = written_argument(node)
        if target is not None:
            yield root_of(target)


def _viewed(node: fx.Node) -> fx.Node | None:
    """The node whose memory this node's output shares, or None."""
    if node.op != "call_function":
        return None
    if node.target is operator.getitem:
        return node.args[0] if isinstance(node.args[0], fx.Node) and _viewed(node.args[0]) else None
    schema = getattr(node.target, "_schema", None)
    if schema is None or not any(r.alias_info is not None for r in schema.returns):
        if schema is not None and schema.name in _MAYBE_VIEWS:
            first = node.args[0] if node.args else None
            return first if isinstance(first, fx.Node) else None
        return None
    for argument, given in zip(schema.arguments, node.args, strict=False):
        if argument.alias_info is not None and isinstance(given, fx.Node):
            return given
    return None


_MAYBE_VIEWS = {"aten::reshape", "aten::flatten", "aten::contiguous", "aten::to", "aten::expand_as", "aten::chunk"}


def root_of(node: fx.Node) -> fx.Node:
    """The node whose memory a value lies in: itself, or what it is a view of."""
    while (base := _viewed(node)) is not None:
        node = base
    return node


def aliasing_writes(graph: fx.Graph) -> bool:
    """Whether an in-place op changes a tensor that is read later under another name than the op's own result."""
    order = {node: index for index, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        target = written_argument(node)
        if target is None:
            continue
        family = _family(root_of(target))
        own = _descendants_through(node)
        for member in family:
            if member in own:
                continue
            if any(order[user] > order[node] for user in member.users):
                return True
    return False


def _family(root: fx.Node) -> set[fx.Node]:
    """The node and every view of its memory."""
    family, queue = {root}, [root]
    while queue:
        for user in queue.pop().users:
            if user not in family and _viewed(user) in family:
                family.add(user)
                queue.append(user)
    return family


def _descendants_through(node: fx.Node) -> set[fx.Node]:
    """The op's result and the views of it: names under which the new values are read rightly."""
    return _family(node)
