"""Tables that are read by data: rows are picked by number, columns are channels."""

from __future__ import annotations

from typing import Any

import torch

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known
from surgery.layout import Layout
from surgery.registry import rule
from surgery.rules.pointwise import merge, run


@rule("aten.embedding.default")
def embedding(call: Call, weight: Value, indices: Value, **_: Any) -> Layout:
    """`table [v, d], indices [...] -> [..., d]`: the numbers are data, so every row stays; columns are channels."""
    call.hold_all(indices, "its values are positions")
    layout = call.hold(weight.layout, [0], "embedding picks rows by number")
    block = layout.block_of(1)
    if block is None:
        return Layout(call.shape)
    if weight.parameter is not None:
        call.produce(weight, 1)
    return Layout(call.shape, call.placed(block.ravel(), len(call.shape), len(call.shape) - 1))


@embedding.known
def _known_embedding(call: KnownCall, weight: Known, indices: Known, **_: Any) -> Known:
    """A column is constant where all rows agree."""
    value, constant = weight.along(1)
    shape = [1] * (len(call.shape) - 1) + [-1]
    return Known.of(call.shape, value.reshape(shape), ~constant.reshape(shape))


@rule("aten.one_hot.default")
def one_hot(call: Call, input: Value, num_classes: int = -1) -> Layout:
    """`x [...] -> [..., classes]`: each number for itself."""
    return Layout(call.shape, tuple(block[..., None] for block in input.layout.blocks))


@one_hot.known
def _known_one_hot(call: KnownCall, input: Known, num_classes: int = -1) -> Known:
    if input.nothing:
        return Known.anything(call.shape)
    numbers = torch.where(input.varies, 0, input.value.cpu().long())
    return Known(call.shape, torch.nn.functional.one_hot(numbers, call.shape[-1]), input.varies[..., None])


@rule("aten.bucketize.Tensor", "aten.isin.Tensor_Tensor")
def bucketize(call: Call, input: Value | None = None, **others: Any) -> Layout:
    """Each number for itself, among all of a list."""
    value = others.pop("elements", input)
    call.hold_all(list(others.values()), f"{call.name} looks numbers up in it")
    layout: Layout = value.layout
    return layout


@bucketize.known
def _known_bucketize(call: KnownCall, input: Known | None = None, **others: Any) -> Known:
    name = "elements" if input is None else "input"
    value = others.pop("elements", input)
    rest = {key: other.full().cpu() if isinstance(other, Known) else other for key, other in others.items()}
    if value.nothing or any(isinstance(other, Known) and not other.everything for other in others.values()):
        return Known.anything(call.shape)
    return Known(call.shape, run(call.target, {name: value.value.cpu(), **rest}), value.varies)


@rule("aten.searchsorted.Tensor")
def searchsorted(call: Call, sorted_sequence: Value, input: Value, sorter: Value | None = None, **_: Any) -> Layout:
    """`list [n], x [...]`: each number for itself; with a list for every row, the rows go together."""
    rank = sorted_sequence.layout.rank
    reason = "searchsorted looks numbers up in it"
    call.hold_all(sorter, reason)
    if rank < 2:
        call.hold_all(sorted_sequence, reason)
        return input.layout
    layout = call.hold(sorted_sequence.layout, [rank - 1], reason)
    return merge(call, [Layout((*layout.shape[:-1], 1), layout.blocks), input.layout], call.shape)


@searchsorted.known
def _known_searchsorted(call: KnownCall, **_: Any) -> Known:
    return Known.anything(call.shape)
