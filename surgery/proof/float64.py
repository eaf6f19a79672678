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


def _grouped_mm(
    left: Tensor, right: Tensor, offs: Tensor | None = None, bias: Tensor | None = None, out_dtype: Any = None
) -> Tensor:
    """Products of groups side by side: `[t, k] x [g, k, n]`, `[g, m, k] x [k, t]`, `[m, t] x [t, n]`, t up to `offs`.

    Group j reaches from `offs[j - 1]` to `offs[j]` along t, and what lies behind the last offset is left 0.
    """
    ends = [] if offs is None else offs.tolist()
    pieces = [slice(first, last) for first, last in zip([0, *ends], ends, strict=False)]
    if offs is None:
        return left @ right
    if left.dim() == right.dim() == 2:
        return torch.stack([left[:, piece] @ right[piece] for piece in pieces])
    if left.dim() == 2:
        out = left.new_zeros(left.shape[0], right.shape[-1])
        for piece, weight in zip(pieces, right, strict=True):
            out[piece] = left[piece] @ weight
        return out
    out = left.new_zeros(left.shape[1], right.shape[-1])
    for piece, rows in zip(pieces, left, strict=True):
        out[:, piece] = rows @ right[:, piece]
    return out


SUBSTITUTES = {torch.ops.aten._grouped_mm.default: _grouped_mm}
"""For ops without a kernel for float64: what they compute."""


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
        named = {name: v if name in written else _wide(v) for name, v in kwargs.items()}
        return SUBSTITUTES.get(func, func)(*positional, **named)


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
    float64, too. Ops without a float64 kernel raise, as they would anyway, but for the `SUBSTITUTES`.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Float64():  # type: ignore[no-untyped-call]
            yield
    finally:
        torch.set_default_dtype(before)
