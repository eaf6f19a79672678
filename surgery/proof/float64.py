"""Run a model in float64 throughout, also where its own code casts to float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

WIDER = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
    torch.complex32: torch.complex128,
}
BITWISE = {torch.ops.aten.view.dtype, torch.ops.aten.detach.default}
"""`x.view(dtype)` reads the bits of x as they are (and calls the second of these)."""


class _Float64(TorchDispatchMode):
    """Rewrites every op on the way to the kernel: dtype arguments and tensor operands become float64.

    So `x.float()`, `softmax(dtype=torch.float32)` and `torch.zeros(3, dtype=torch.float32)` keep float64. A tensor
    that the op writes into stays what it is, for someone else may hold it.
    """

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in BITWISE:
            return func(*args, **kwargs)
        schema = func._schema.arguments
        written = {a.name for a in schema if a.alias_info is not None and a.alias_info.is_write}
        positional = [v if a.name in written else _wide(v) for a, v in zip(schema, args, strict=False)]
        return func(*positional, **{name: v if name in written else _wide(v) for name, v in kwargs.items()})


def _wide(value: Any) -> Any:
    """`value` with float64 in the place of narrower dtypes and tensors, inside lists too."""
    if isinstance(value, Tensor):
        return value.to(WIDER[value.dtype]) if value.dtype in WIDER else value
    if isinstance(value, torch.dtype):
        return WIDER.get(value, value)
    if isinstance(value, list | tuple):
        return pytree.tree_map(_wide, value, is_leaf=lambda v: not isinstance(v, list | tuple))
    return value


@contextmanager
def float64_run() -> Iterator[None]:
    """While the body runs, whatever a model computes in a narrower floating-point dtype is computed in float64.

    The model's own tensors and inputs must be float64 already (`float64_copy`). New tensors without a dtype are
    float64, too. Ops without a float64 kernel raise, as they would anyway.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Float64():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.set_default_dtype(before)
