"""Ops that make a tensor's facts, or nothing at all: shapes, assertions, fresh tensors."""

from __future__ import annotations

from typing import Any

import torch

from surgery.calls import Call, KnownCall, Value, short_name
from surgery.known import Known
from surgery.layout import Layout
from surgery.registry import rule


@rule(
    "aten._assert_tensor_metadata.default",
    "aten._assert_async.msg",
    "aten._assert_async.default",
    "aten.sym_size.int",
    "aten.sym_numel.default",
    "aten.sym_stride.int",
    "aten.sym_storage_offset.default",
    drops=True,
    sizes=("size", "stride"),
)
def assertion(call: Call, **_: Any) -> None:
    """Looks at a tensor and hands nothing on."""


@assertion.known
def _known_assertion(call: KnownCall, **_: Any) -> None:
    return None


@rule(
    "aten.zeros_like.default",
    "aten.ones_like.default",
    "aten.full_like.default",
    "aten.empty_like.default",
    "aten.rand_like.default",
    "aten.randn_like.default",
    drops=True,
)
def like(call: Call, input: Value, **_: Any) -> Layout:
    """A fresh tensor as large as another: as wide as that is after a cut, so its ids are the other's."""
    return input.layout


@like.known
def _known_like(
    call: KnownCall, input: Known, fill_value: float | None = None, dtype: torch.dtype | None = None, **_: Any
) -> Known:
    number = {"zeros": 0.0, "ones": 1.0, "full": fill_value}.get(_filling(call.target))
    if number is None:
        return Known.anything(call.shape)
    if dtype is None:
        if input.nothing and number not in (0, 1):  # its dtype is not known: only 0 and 1 are the same in all of them
            return Known.anything(call.shape)
        dtype = input.value.dtype
    ones = [1] * len(call.shape)
    value = torch.full(ones, number, dtype=call.dtype if dtype.is_floating_point else dtype)
    return Known.of(call.shape, value, torch.zeros(ones, dtype=torch.bool))


def _filling(target: Any) -> str:
    """`zeros` of `zeros_like` and of `new_zeros`."""
    return short_name(target).removesuffix("_like").removeprefix("new_")


@rule(
    "aten.new_zeros.default",
    "aten.new_ones.default",
    "aten.new_full.default",
    "aten.new_empty.default",
    drops=True,
    sizes=("size",),
)
def new(call: Call, input: Value, **_: Any) -> Layout:
    """A fresh tensor of the dtype of another, of a size that the code knows."""
    call.accounted += input.layout.blocks
    return _even(call)


@new.known
def _known_new(call: KnownCall, input: Known, **settings: Any) -> Known:
    filled: Known = _known_like(call, input, **settings)
    return filled


@rule("aten.zeros.default", "aten.ones.default", "aten.full.default", sizes=("size",))
def filled(call: Call, **_: Any) -> Layout:
    """One number, as often as the code asks for."""
    return _even(call)


def _even(call: Call) -> Layout:
    """The same number everywhere: laid out for whatever it meets, as often as of that are left."""
    return Layout(call.shape, (), tuple(dim for dim, size in enumerate(call.shape) if size > 1))
