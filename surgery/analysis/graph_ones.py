"""Which dims of the inputs may be 1: `torch.export` takes it for granted that none is, and drops the code for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from surgery.analysis.capture import Program, recorded, shapes_of
from surgery.analysis.graph_capture import in_eval_as_written
from surgery.analysis.graph_modules import GraphModel
from surgery.analysis.recording import opened
from surgery.inputs import Inputs


def dims_that_may_be_one(model: nn.Module, whole: GraphModel, inputs: Inputs) -> frozenset[tuple[int, int]]:
    """`(input, dim)`: at size 1, too, the model's code does what the graph does, op by op or else in its answers.

    Dims of the same size in the example are tried together, and the batch by itself.
    """
    tensors = inputs.tensors()
    sizes = sorted({size for tensor in tensors for size in tensor.shape if size > 1})
    found: set[tuple[int, int]] = set()
    groups = [[(i, d) for i, t in enumerate(tensors) for d, s in enumerate(t.shape) if s == size] for size in sizes]
    batch = [(i, 0) for i in range(len(tensors))] if inputs.batch not in (None, 1) else []
    for dims in [batch, *groups]:
        if dims and not found.issuperset(dims) and _same_at_one(model, whole, inputs, dims):
            found.update(dims)
    return frozenset(found)


def _same_at_one(model: nn.Module, whole: GraphModel, inputs: Inputs, dims: list[tuple[int, int]]) -> bool:
    tensors = inputs.tensors()
    narrow = dict(enumerate(tensors))
    for i, dim in dims:
        narrow[i] = narrow[i].narrow(dim, 0, 1)
    made = iter([narrow[i].clone() for i in range(len(tensors))])
    one = inputs.map(lambda _: next(made))
    free = whole.captured.guards
    whole.captured.guards = replace(free, conditions=(), ones=frozenset(dims), fine=set())
    try:
        with in_eval_as_written(model), in_eval_as_written(whole):
            before = recorded(model, one)
            after = recorded(whole, one) if before is not None else None
            same = before is not None and after is not None and _same_ops(before, after)
            return same or _same_answers(model, whole, one)
    finally:
        whole.captured.guards = free


def _same_ops(before: Program, after: Program) -> bool:
    ops, others = (
        [node for node in program.calls if isinstance(node.target, torch._ops.OpOverload) and not _takes_all(node)]
        for program in (before, after)
    )
    return len(ops) == len(others) and all(
        a.target == b.target and _alike(a.args, b.args) and _alike(shapes_of(a), shapes_of(b))
        for a, b in zip(ops, others, strict=True)
    )


def _takes_all(node: fx.Node) -> bool:
    """Whether an op hands on what it is given: Python's indexing drops slices that take everything, or does not."""
    if node.target not in (torch.ops.aten.alias.default, torch.ops.aten.slice.Tensor):
        return False
    source = node.args[0]
    return isinstance(source, fx.Node) and shapes_of(source) == shapes_of(node)


def _alike(one: Any, other: Any) -> bool:
    """Whether two ops have the same settings; tensors are not compared."""
    if isinstance(one, fx.Node) or isinstance(other, fx.Node):
        return isinstance(one, fx.Node) and isinstance(other, fx.Node)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return bool(one == other)


def _same_answers(model: nn.Module, whole: GraphModel, inputs: Inputs) -> bool:
    """Whether both compute the same; not known where the weights are on the meta device."""
    if any(tensor.is_meta for tensor in model.parameters()):
        return False
    try:
        with torch.no_grad():
            answers = [pytree.tree_leaves(_answer(one, inputs)) for one in (model, whole)]
        first, second = ([leaf for leaf in leaves if isinstance(leaf, Tensor)] for leaves in answers)
        torch.testing.assert_close(second, first[: len(second)])
    except Exception:  # a size that one of them does not take, or takes otherwise
        return False
    return True


def _answer(model: nn.Module, inputs: Inputs) -> Any:
    """The answer to a call, after which buffers are as before."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        return pytree.tree_map_only(Tensor, torch.clone, opened(inputs.call(model)))
    finally:
        for buffer, old in before:
            buffer.copy_(old)
