"""Pointwise ops: every one that PyTorch tags (called on tensors of one shape), and the ways in which operands meet."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload

from tests.samples.sample import Plain, Sample

A = torch.ops.aten

X = (2, 5, 3)
"""The operands' shape in the samples that are made from PyTorch's tags."""

NO_VALUE = {"aten.nextafter.default": "the next number after a constant cannot be told from it"}
"""Tagged ops without a sample, each with the reason."""


def tagged() -> Iterator[OpOverload]:
    """The pointwise overloads that take tensors and, otherwise, only what has a default."""
    for name in sorted(dir(A)):
        packet = getattr(A, name)
        for overload in packet.overloads() if hasattr(packet, "overloads") else ():
            op = getattr(packet, overload)
            needed = [a for a in op._schema.arguments if not a.has_default_value()]
            tensors = all(str(a.type) == "Tensor" for a in needed)
            if torch.Tag.pointwise in op.tags and tensors and not any(a.is_out for a in op._schema.arguments):
                yield op


def of_one_shape(op: OpOverload) -> Sample | None:
    """The op on tensors of one shape, of the first dtype that it takes; None where it takes none."""
    names = [a.name for a in op._schema.arguments if not a.has_default_value()]
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float64, torch.int64, torch.bool):
        numbers = [torch.randn(X, generator=generator, dtype=torch.float64) for _ in names]
        operands = [(n * 3).abs().to(dtype) if dtype is torch.int64 else n.to(dtype) for n in numbers]
        try:
            op(*[operand.clone() for operand in operands])
        except (RuntimeError, NotImplementedError):
            continue
        keys = "xyzuvw"[: len(names)]
        free = " ".join(f"{key}{dim}" for key in keys for dim in range(len(X)))
        return Sample(str(op), op, dict(zip(keys, operands, strict=True)), free=free)
    return None


TAGGED = tuple(s for op in tagged() if str(op) not in NO_VALUE and (s := of_one_shape(op)) is not None)

SAMPLES = (*TAGGED,)
