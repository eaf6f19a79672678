"""Ops that a program has only after it was functionalised, because it writes through views."""

from __future__ import annotations

from typing import Any

import torch

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known
from surgery.layout import Layout
from surgery.registry import rule
from surgery.rules.joining import cat
from surgery.rules.normalization import batch_norm
from surgery.rules.pointwise import dropout, merge
from surgery.rules.selecting import bounds


@rule("aten._native_batch_norm_legit_no_training.default")
def native_batch_norm(
    call: Call,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    **_: Any,
) -> tuple[Layout, ...]:
    """`batch_norm` in eval mode, with two empty outputs besides."""
    first = batch_norm.couple(call, input, weight, bias, running_mean, running_var, False)
    return (first, *(Layout(shape) for shape in call.shapes[1:]))


@native_batch_norm.known
def _known_native_batch_norm(call: KnownCall, **arguments: Any) -> tuple[Known, ...]:
    assert batch_norm.knows is not None
    first = batch_norm.knows(call, training=False, **arguments)
    return (first, *(Known.anything(shape) for shape in call.shapes[1:]))


@rule("aten.native_dropout.default")
def native_dropout(call: Call, input: Value, p: float, train: bool | None) -> tuple[Layout, ...]:
    """Dropout and its mask."""
    return input.layout, input.layout


@native_dropout.known
def _known_native_dropout(call: KnownCall, input: Known, p: float, train: bool | None) -> tuple[Known, ...]:
    assert dropout.knows is not None
    return dropout.knows(call, input, p, bool(train)), Known.anything(call.shapes[1])


@rule("aten.slice_scatter.default", sizes=("start", "end"))
def slice_scatter(
    call: Call, input: Value, src: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Layout:
    """`x[start:end] = src` along a dim: inside, src's units; outside, the input's; both stay where they are."""
    dim %= input.layout.rank
    size = input.shape[dim]
    first, last = bounds(size, start, end)
    if step != 1:
        layout = call.fix(input.layout, [dim], "slice_scatter writes every n-th position")
        other = call.fix(src.layout, [dim], "slice_scatter writes every n-th position")
        rest = Layout(src.shape, tuple(b for b in other.blocks if b.shape[dim] == 1))
        whole = tuple(size if d == dim else s for d, s in enumerate(rest.shape))
        return merge(
            call, [layout, Layout(whole, (*rest.blocks, *(b for b in layout.blocks if b.shape[dim] > 1)))], call.shape
        )
    if input.layout.block_of(dim) is None and src.layout.block_of(dim) is None:
        shape = tuple(1 if d == dim else s for d, s in enumerate(call.shape))
        sides = [Layout(shape, v.layout.blocks) for v in (input, src)]
        return Layout(call.shape, merge(call, sides, shape).blocks)
    # the positions that are written over: their units go where src's go
    block, own = input.layout.block_of(dim), src.layout.block_of(dim)
    if block is None or own is None or block.ndim != own.ndim or sum(s > 1 for s in block.shape) > 1:
        call.hold_all([input, src], "slice_scatter joins what is tracked with what is not")
        return Layout(call.shape)
    call.tie(block.take(range(first, last), axis=dim), own)
    rest_shape = tuple(1 if d == dim else s for d, s in enumerate(call.shape))
    others = [Layout(rest_shape, tuple(b for b in v.layout.blocks if b.shape[dim] == 1)) for v in (input, src)]
    return Layout(call.shape, (block, *merge(call, others, rest_shape).blocks))


@slice_scatter.known
def _known_slice_scatter(
    call: KnownCall,
    input: Known,
    src: Known,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Known:
    dim %= len(call.shape)
    first, last = bounds(input.shape[dim], start, end)
    if step != 1:
        return Known.anything(call.shape)
    held = input.held(dim)
    before, after = (_part(held, dim, a, b) for a, b in ((0, first), (last, input.shape[dim])))
    pieces = [piece for piece in (before, src, after) if piece.shape[dim]]
    assert cat.knows is not None
    joined: Known = cat.knows(call, pieces, dim)
    return joined


def _part(known: Known, dim: int, start: int, stop: int) -> Known:
    def narrow(array: torch.Tensor) -> torch.Tensor:
        return array.narrow(dim, start, stop - start)

    shape = tuple(stop - start if d == dim else s for d, s in enumerate(known.shape))
    return known.map(narrow, shape)


@rule("aten.select_scatter.default")
def select_scatter(call: Call, input: Value, src: Value, dim: int, index: int) -> Layout:
    """`x[index] = src` along a dim: that position is a number in the code, so the dim stays."""
    dim %= input.layout.rank
    layout = call.fix(input.layout, [dim], "select_scatter writes one position")
    lifted = tuple(b.reshape((*b.shape[:dim], 1, *b.shape[dim:])) for b in src.layout.blocks)
    shape = (*src.shape[:dim], 1, *src.shape[dim:])
    return merge(call, [layout, Layout(shape, lifted)], call.shape)


@select_scatter.known
def _known_select_scatter(call: KnownCall, **_: Any) -> Known:
    return Known.anything(call.shape)
