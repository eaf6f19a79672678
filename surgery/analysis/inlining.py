"""Regions of a captured program (`no_grad`, `autocast`) put back in line: their ops are ops like all others."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

REGIONS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
"""What `torch.export` makes a submodule of. Neither moves a unit; autocast changes dtypes, which the nodes carry."""


def inline_regions_(program: fx.GraphModule) -> None:
    """Replace every region by its ops, in place; regions may lie inside each other."""
    regions = [node for node in program.graph.nodes if _is_region(node)]
    for node in regions:
        _inline_(program, node)
    if regions:
        program.recompile()


def _is_region(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.HigherOrderOperator) and node.target.name() in REGIONS


def _inline_(program: fx.GraphModule, node: fx.Node) -> None:
    """`wrap(settings..., body, *operands)`, whose outputs are read through `getitem`."""
    graph = program.graph
    at = next(i for i, a in enumerate(node.args) if isinstance(a, fx.Node) and a.op == "get_attr")
    attribute = node.args[at]
    assert isinstance(attribute, fx.Node), "the region's body is an attribute of the program"
    body = program.get_submodule(str(attribute.target))
    assert isinstance(body, fx.GraphModule), "the region's body is a program itself"
    inline_regions_(body)
    places = [inner for inner in body.graph.nodes if inner.op == "placeholder"]
    copies: dict[fx.Node, fx.Node] = dict(zip(places, node.args[at + 1 :], strict=True))  # type: ignore[arg-type]
    with graph.inserting_before(node):
        returned = graph.graph_copy(body.graph, copies)
    outputs: list[Any] = list(returned) if isinstance(returned, tuple | list) else [returned]
    for user in list(node.users):
        assert user.target is operator.getitem, "a region hands out a tuple"
        index = user.args[1]
        assert isinstance(index, int), "and each output is named by its number"
        user.replace_all_uses_with(outputs[index])
        graph.erase_node(user)
    graph.erase_node(node)
    if not attribute.users:
        graph.erase_node(attribute)
