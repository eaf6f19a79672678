"""Tables that are read by data: rows are picked by number, columns are channels."""

from __future__ import annotations

from typing import Any

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known
from surgery.layout import Layout
from surgery.registry import rule


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
