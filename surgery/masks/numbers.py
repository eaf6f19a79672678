"""The values of weights themselves: what is not a number, and what is too small to be a normal one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from surgery.errors import InputError
from surgery.pieces import pieces

LISTED = 5
"""How many tensors an error names; the rest is counted."""


def count_subnormals(model: nn.Module) -> dict[str, int]:
    """How many values of each parameter and buffer are subnormal; tensors without any are left out.

    A subnormal is not zero, but below the smallest normal number of its dtype (1.2e-38 in float32). Arithmetic on
    them is tens of times slower than on zeros, so a masked model that is full of them makes any slim one look fast.
    """
    counts = {name: sum(int(_subnormal(p).sum()) for p in pieces(tensor)) for name, tensor in _floats(model)}
    return {name: count for name, count in counts.items() if count}


def flush_subnormals_(model: nn.Module) -> dict[str, int]:
    """Set every subnormal value of the parameters and buffers to zero; returns what `count_subnormals` saw."""
    counts: dict[str, int] = {}
    with torch.no_grad():
        for name, tensor in _floats(model):
            for piece in pieces(tensor):
                small = _subnormal(piece)
                if count := int(small.sum()):
                    counts[name] = counts.get(name, 0) + count
                    real = torch.view_as_real(piece) if piece.is_complex() else piece
                    real.copy_(_wide(piece).masked_fill(small, 0))
    return counts


def check_finite(model: nn.Module) -> None:
    """Refuse a model whose parameters or buffers hold NaN or Inf.

    Infinities are at home in a buffer that masks attention; in a running statistic they are not.

    Raises:
        InputError: naming the tensors and how many values of each are NaN or infinite.
    """
    bad = []
    buffers = dict(model.named_buffers())
    for name, tensor in _floats(model):
        masking = name in buffers and not name.rpartition(".")[2].startswith("running_")
        # the sum of finite values is finite, and quickly found, but where it grows too large
        wide = [_wide(piece) for piece in pieces(tensor) if not _wide(piece).sum().isfinite()]
        counts = {
            "NaN": sum(int(piece.isnan().sum()) for piece in wide),
            "Inf": sum(int(piece.isinf().sum()) for piece in wide),
        }
        if not counts["NaN"] and (masking or not counts["Inf"]):
            continue
        bad.append(f"{name} ({', '.join(f'{count} {what}' for what, count in counts.items() if count)})")
    if bad:
        more = f" and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
        have = "tensor holds" if len(bad) == 1 else "tensors hold"
        raise InputError(
            f"{len(bad)} {have} NaN or Inf: {', '.join(bad[:LISTED])}{more}",
            "take a checkpoint from before the training diverged: no function can be kept that is not a number",
        )


def _floats(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a floating or complex dtype that have values; a shared one once."""
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        if (tensor.is_floating_point() or tensor.is_complex()) and not tensor.is_meta:
            yield name, tensor.detach()


def _wide(tensor: Tensor) -> Tensor:
    """The tensor in a dtype that has every operation: complex as pairs, float8 as float32."""
    if tensor.is_complex():
        return torch.view_as_real(tensor)
    return tensor.float() if tensor.element_size() == 1 else tensor


def _subnormal(tensor: Tensor) -> Tensor:
    """True where a value (for complex tensors a part of one, [..., 2]) is subnormal in the tensor's own dtype."""
    wide = _wide(tensor)
    return (wide != 0) & (wide.abs() < torch.finfo(tensor.dtype).tiny)
