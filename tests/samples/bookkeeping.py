"""Ops that look at a tensor's shape, or make a fresh one like it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.samples.sample import Plain, Sample

A = torch.ops.aten


def beside(look: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    """An op that looks at a tensor, and the tensor goes on."""

    def function(x: Tensor) -> Tensor:
        look(x)
        return x * 2

    return function


LOOKING = (
    Sample(
        "_assert_tensor_metadata",
        beside(lambda x: A._assert_tensor_metadata.default(x, None, None, torch.float64)),
        {"x": (2, 6)},
        free="x0 x1",
        found=(0, 1, 2),
    ),
    Sample(
        "_assert_async",
        beside(lambda x: A._assert_async.default((x * 0 == 0).all())),
        {"x": (2, 6)},
        held=("all runs",),
    ),
    Sample(
        "_assert_async.msg",
        beside(lambda x: A._assert_async.msg((x * 0 == 0).all(), "")),
        {"x": (2, 6)},
        held=("all runs",),
    ),
    Sample("sym_size", A.sym_size.int, {"x": (2, 6)}, settings=(1,), free="x0 x1"),
    Sample("sym_numel", A.sym_numel.default, {"x": (2, 6)}, free="x0 x1"),
    Sample("sym_stride", A.sym_stride.int, {"x": (2, 6)}, settings=(1,), free="x0 x1"),
    Sample("sym_storage_offset", A.sym_storage_offset.default, {"x": (2, 6)}, free="x0 x1"),
)

FRESH = (
    Sample(
        "new_zeros",
        lambda x: (
            x + x.new_zeros(2, 1, 1) + x.new_ones(1) + x.new_full((6,), 0.5) + torch.zeros_like(x.new_empty((1, 1)))
        ),
        {"x": (2, 5, 6)},
        free="x0 x1 x2",
        found=(0, 1, 2),
    ),
    Sample(
        "zeros, ones and full",
        lambda x: (x + torch.zeros(5, 6)) * torch.ones(6) + torch.full((5, 1), 0.5),
        {"x": (2, 5, 6)},
        free="x0 x1 x2",
        found=(0, 1, 2),
    ),
    Sample(
        "zeros that are joined",
        lambda x: torch.cat([x, torch.zeros(2, 3)], 1),
        {"x": (2, 6)},
        free="x1",
        held=("cat meets an operand whose dim 0", "cat lays it beside"),
        found=(0, 1, 2, 6, 7, 8),
    ),
    Sample("zeros_like", torch.zeros_like, {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2, 3, 4, 5)),
    Sample("ones_like", torch.ones_like, {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2, 3, 4, 5)),
    Sample("full_like", lambda x: torch.full_like(x, 0.3), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2, 3, 4, 5)),
    Sample("empty_like", lambda x: torch.empty_like(x).fill_(2), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2, 3, 4, 5)),
    Sample("rand_like", lambda x: torch.rand_like(x) * 0, {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2, 3, 4, 5)),
    Sample("randn_like", lambda x: torch.randn_like(x) * 0, {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2, 3, 4, 5)),
    Sample(
        "full_like an int",
        lambda x, y: x * torch.full_like(y, 2.7, dtype=torch.int64),
        {"x": (2, 6), "y": (6,)},
        free="x0 x1 y0",
        found=(0, 1, 2),
    ),
    Sample(
        "full_like of an int",
        lambda x, y: x * torch.full_like(y, 2.7),
        {"x": (2, 3), "y": torch.arange(3)},
        free="x0 x1 y0",
        found=(0, 1, 2),
    ),
    Sample(
        "full_like of an input",
        lambda x, y: x * torch.full_like(y, 2.7),
        {"x": (2, 6), "y": Plain((2, 1))},
        free="x1",
        held=("mul meets an operand whose dim 0 cannot shrink",),
    ),
)

SAMPLES = (*LOOKING, *FRESH)
