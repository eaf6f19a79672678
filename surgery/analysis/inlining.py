"""Regions of a captured program (`no_grad`, `autocast`, checkpoints) put back in line: ops like all others."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

REGIONS = (
    "wrap_with_set_grad_enabled",
    "wrap_with_autocast",
    "tag_activation_checkpoint",
    "wrap_activation_checkpoint",
    "hints_wrapper",
)
"""What `torch.export` makes a submodule of. None moves a unit; autocast changes dtypes, which the nodes carry."""


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
    """`wrap(settings..., body, *operands)`; where the body returns several outputs, they are read through `getitem`."""
    graph = program.graph
    at = next(i for i, a in enumerate(node.args) if isinstance(a, fx.Node) and a.op == "get_attr")
    attribute = node.args[at]
    assert isinstance(attribute, fx.Node), "the region's body is an attribute of the program"
    body = program.get_submodule(str(attribute.target))
    assert isinstance(body, fx.GraphModule), "the region's body is a program itself"
    inline_regions_(body)
    places = [inner for inner in body.graph.nodes if inner.op == "placeholder"]
    operands = pytree.tree_leaves(node.args[at + 1 :])
    copies: dict[fx.Node, fx.Node] = dict(zip(places, operands, strict=True))
    with graph.inserting_before(node):
        returned = graph.graph_copy(body.graph, copies)
    if isinstance(returned, tuple | list):
        _hand_out_(node, list(returned))
    elif isinstance(returned, fx.Node):
        node.replace_all_uses_with(returned)
    graph.erase_node(node)
    if not attribute.users:
        graph.erase_node(attribute)


def _hand_out_(node: fx.Node, outputs: list[Any]) -> None:
    for user in list(node.users):
        assert user.target is operator.getitem, "a region hands out a tuple"
        index = user.args[1]
        assert isinstance(index, int), "and each output is named by its number"
        user.replace_all_uses_with(outputs[index])
        node.graph.erase_node(user)
