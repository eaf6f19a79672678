"""Ops that take sizes, called as Python code calls them: `torch.jit.trace` follows sizes there and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten
Size = Sequence[int]


def view(x: Tensor, size: Size) -> Tensor:
    """`x.view(size)`."""
    return x.view(size)


def reshape(x: Tensor, size: Size) -> Tensor:
    """`x.reshape(size)`."""
    return x.reshape(size)


def expand(x: Tensor, size: Size) -> Tensor:
    """`x.expand(size)`."""
    return x.expand(size)


def repeat(x: Tensor, times: Size) -> Tensor:
    """`x.repeat(times)`."""
    return x.repeat(times)


def slice_(x: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Tensor:
    """A slice along one dim; outside of a trace the op itself, for Python's indexing adds others."""
    if torch._C._get_tracing_state() is None:
        sliced: Tensor = aten.slice.Tensor(x, dim, start, end, step)
        return sliced
    whole = [slice(None)] * (dim % x.dim())
    return x[(*whole, slice(start, end, step))]


def new_zeros(x: Tensor, size: Size, **settings: Any) -> Tensor:
    """`x.new_zeros(size)`."""
    return x.new_zeros(size, **settings)


def new_ones(x: Tensor, size: Size, **settings: Any) -> Tensor:
    """`x.new_ones(size)`."""
    return x.new_ones(size, **settings)


AS_PYTHON: Mapping[Any, Callable[..., Any]] = {
    aten.view.default: view,
    aten.reshape.default: reshape,
    aten.expand.default: expand,
    aten.repeat.default: repeat,
    aten.slice.Tensor: slice_,
    aten.new_zeros.default: new_zeros,
    aten.new_ones.default: new_ones,
    aten.zeros.default: torch.zeros,
    aten.ones.default: torch.ones,
    aten.full.default: torch.full,
    aten.arange.default: torch.arange,
    aten.arange.start: torch.arange,
    aten.arange.start_step: torch.arange,
}
"""What is called in the place of an op."""
