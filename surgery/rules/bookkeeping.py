"""Ops that make a tensor's facts, or nothing at all: shapes, assertions, fresh tensors."""

from __future__ import annotations

from typing import Any

import torch

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known
from surgery.layout import Layout
from surgery.registry import rule


@rule(
    "aten._assert_tensor_metadata.default",
    "aten._assert_async.msg",
    "aten._assert_async.default",
    "aten._assert_scalar.default",
    "aten.sym_constrain_range_for_size.default",
    "aten.sym_constrain_range.default",
    "aten.sym_size.int",
    "aten.sym_numel.default",
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
def _known_like(call: KnownCall, input: Known, **settings: Any) -> Known:

    fills = {"aten.zeros_like.default": 0.0, "aten.ones_like.default": 1.0, "aten.full_like.default": None}
    name = str(call.target)
    if name not in fills:
        return Known.anything(call.shape)
    number = settings.get("fill_value") if fills[name] is None else fills[name]
    ones = [1] * len(call.shape)
    return Known.of(call.shape, torch.full(ones, number, dtype=call.dtype), torch.zeros(ones, dtype=torch.bool))
