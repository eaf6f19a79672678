"""Nets of one expression: a body whose channels die, a function of it, a head that reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import surgery
from tests import nets

X = nets.image(3, 8)
EVEN = ((1, 0), (3, 0), (2, 4))
"""Shapes `(batch, grow)` that stay divisible by 4."""
FLAT = ((1, 0), (3, 0))
"""Where there is no space to grow in."""


def net_of(function: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> Any:
    """`function(net, *inputs)` over named parts, lively."""
    return nets.lively(nets.Lambda(function, **parts))


def dying(net: nn.Module, value: float | None = 0.5, **rows: Sequence[int]) -> Any:
    """Zero rows by layer name; their biases become `value` (None: stay as they are)."""
    nets.zero_rows_(net, **rows)
    with torch.no_grad():
        for name, positions in rows.items():
            bias = net.get_submodule(name).bias
            if value is not None and isinstance(bias, Tensor):
                bias[list(positions)] = value
    return net


def tower(function: Callable[[Any, Tensor], Tensor], width: int = 12, out: int | None = None, pad: int = 0) -> Any:
    """body (3 -> width) -> function -> head (out or width -> 4), padded or not."""
    return net_of(
        lambda m, x: m.head(function(m, m.body(x))),
        body=nn.Conv2d(3, width, 3, padding=1),
        head=nn.Conv2d(out or width, 4, 1 + 2 * pad, padding=pad),
    )


def left(result: surgery.Result, name: str = "body.weight") -> int:
    return len(result.plan.axis(name).keep)


def bordered(function: Callable[[Any, Tensor], Tensor], head: nn.Module) -> Any:
    return net_of(lambda m, x: m.head(function(m, m.body(x))), body=nn.Conv2d(3, 12, 1), head=head)
