"""Reductions and ops that mix positions along a dim: over untracked dims channels pass, over channels they are read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known
from surgery.layout import Ids, Layout, covered
from surgery.registry import rule


def _dims(dim: Any, rank: int) -> list[int]:
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return list(range(rank))
    return sorted(d % rank for d in ([dim] if isinstance(dim, int) else dim)) if rank else []


def _without(layout: Layout, dims: list[int], call: Call, keepdim: bool) -> Any:
    """The layout after untracked dims are gone, for each output."""
    blocks = layout.blocks
    if not keepdim:
        blocks = tuple(b.reshape([s for d, s in enumerate(b.shape) if d not in dims]) for b in blocks)
    outputs = tuple(Layout(shape, blocks) for shape in call.shapes)
    return outputs[0] if len(outputs) == 1 else outputs


@rule("aten.sum.dim_IntList", "aten.sum.default")
def sum_(call: Call, input: Value, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    """A sum over channels reads them all: only exact zeros may go, and a row of sums goes with all of its units."""
    rank = input.layout.rank
    dims = _dims(dim, rank)
    blocks: list[Ids] = []
    for block in input.layout.blocks:
        reduced = [d for d in covered(block) if d in dims]
        if not reduced:
            blocks.append(block)
        elif len(covered(block)) == 1:
            call.use(input, reduced[0], block.reshape(1, -1))
        else:
            held = call.hold(Layout(input.shape, (block,)), reduced, "sum adds up this axis")
            blocks += held.blocks
    return _without(Layout(input.shape, tuple(blocks)), dims, call, keepdim)


@rule(
    "aten.mean.dim",
    "aten.mean.default",
    "aten.amax.default",
    "aten.amin.default",
    "aten.max.dim",
    "aten.min.dim",
    "aten.max.default",
    "aten.min.default",
    "aten.var.correction",
    "aten.var.dim",
    "aten.var.default",
    "aten.std.correction",
    "aten.std.dim",
    "aten.std.default",
    "aten.var_mean.correction",
    "aten.var_mean.dim",
    "aten.std_mean.correction",
    "aten.std_mean.dim",
    "aten.logsumexp.default",
    "aten.prod.dim_int",
    "aten.prod.default",
    "aten.any.dim",
    "aten.all.dim",
    "aten.any.default",
    "aten.all.default",
    "aten.median.dim",
    "aten.argmax.default",
    "aten.argmin.default",
    "aten.norm.ScalarOpt_dim",
    "aten.norm.Scalar",
    "aten.linalg_vector_norm.default",
)
def reduction(call: Call, input: Value, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    """Over space or tokens: channels pass. Over channels: each counts, so none may go."""
    dims = _dims(dim, input.layout.rank)
    layout = input.layout
    if len(dims) == 1 and call.normalize(input, dims[0]):
        layout = Layout(layout.shape, tuple(b for b in layout.blocks if b.shape[dims[0]] == 1))
    layout = call.hold(layout, dims, f"{call.name} runs over this axis")
    return _without(layout, dims, call, keepdim)


_KEEPS_CONSTANT = ("aten.mean", "aten.amax", "aten.amin", "aten.max", "aten.min", "aten.median")


@sum_.known
@reduction.known
def _known_reduction(call: KnownCall, input: Known, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    """A mean, maximum or minimum of equal constants is that constant; a sum or norm of zeros is 0.

    The extent of an untracked dim depends on the input's size, so any other number varies.
    """
    rank = len(input.shape)
    dims = _dims(dim, rank)
    if any(input.value.shape[d] > 1 or input.varies.shape[d] > 1 for d in dims) or len(call.shapes) > 1:
        first = input.value
        varies = input.varies
        for d in dims:
            varies = varies.any(d, keepdim=True) | (first != first.narrow(d, 0, 1)).any(d, keepdim=True)
            first = first.narrow(d, 0, 1)
    else:
        first, varies = input.value, input.varies
    name = str(call.target)
    if not name.startswith(_KEEPS_CONSTANT):
        zero_keeps = name.startswith(("aten.sum", "aten.norm", "aten.linalg_vector_norm"))
        varies = varies | (first != 0) if zero_keeps else torch.ones_like(varies)
    if not keepdim:
        kept = [d for d in range(rank) if d not in dims]
        first = first.reshape([first.shape[d] for d in kept])
        varies = varies.reshape([varies.shape[d] for d in kept])
    outputs = (Known(call.shape, first, varies), *(Known.anything(shape) for shape in call.shapes[1:]))
    return outputs[0] if len(outputs) == 1 else outputs


@rule(
    "aten.softmax.int",
    "aten._softmax.default",
    "aten.log_softmax.int",
    "aten._log_softmax.default",
    "aten.cumsum.default",
    "aten.cumprod.default",
    "aten.logcumsumexp.default",
    "aten.cummax.default",
    "aten.cummin.default",
    "aten.sort.default",
    "aten.sort.stable",
    "aten.argsort.default",
)
def mixing(call: Call, input: Value, dim: int = -1, **_: Any) -> Any:
    """Every output along `dim` reads all inputs along it (or all before it); the other dims pass."""
    dims = [dim % input.layout.rank] if input.layout.rank else []
    layout = call.fix(input.layout, dims, f"{call.name} runs over this axis")
    outputs = tuple(Layout(shape, layout.blocks) for shape in call.shapes)
    return outputs[0] if len(outputs) == 1 else outputs


@mixing.known
def _known_mixing(call: KnownCall, input: Known, dim: int = -1, **_: Any) -> Any:
    """Anything; but what comes out of a softmax adds to one."""
    anything = call.anything()
    sums = str(call.target).startswith(("aten.softmax", "aten._softmax")) and len(call.shape) > 0
    return replace(anything, total=dim % len(call.shape)) if sums else anything


@rule("aten.topk.default", "aten.kthvalue.default")
def topk(call: Call, input: Value, k: int, dim: int = -1, **_: Any) -> Any:
    """Reads all of `dim`; the other dims pass."""
    dim %= input.layout.rank
    layout = call.hold(input.layout, [dim], f"{call.name} runs over this axis")
    if call.name == "kthvalue":
        return _without(layout, [dim], call, len(call.shape) == input.layout.rank)
    return tuple(Layout(shape, layout.blocks) for shape in call.shapes)


@topk.known
def _known_topk(call: KnownCall, input: Known, **_: Any) -> Any:
    return call.anything()


@rule("aten.glu.default")
def glu(call: Call, input: Value, dim: int = -1) -> Layout:
    """`a, b = x.chunk(2, dim); a · sigmoid(b)`: position i of one half goes with position i of the other."""
    dim %= input.layout.rank
    block = input.layout.block_of(dim)
    if block is None:
        return Layout(call.shape, input.layout.blocks)
    half = block.shape[dim] // 2
    first, second = block.take(range(half), axis=dim), block.take(range(half, 2 * half), axis=dim)
    if first.size == 1:  # a dim of one position carries no ids on: who reads it would not be seen to
        return Layout(call.shape, call.hold(input.layout, [dim], "glu leaves one channel of it").blocks)
    call.tie(first, second)
    kept = tuple(b for b in input.layout.blocks if b is not block)
    return Layout(call.shape, (*kept, first))


@glu.known
def _known_glu(call: KnownCall, input: Known, dim: int = -1) -> Known:
    dim %= len(input.shape)
    held = input.held(dim)
    half = input.shape[dim] // 2
    a, b = held.widened(call.dtype).split(half, dim)
    a_varies, b_varies = held.varies.split(half, dim)
    zero = ~a_varies & (a == 0)
    return Known.of(call.shape, a * torch.sigmoid(b), (a_varies | b_varies) & ~zero)
