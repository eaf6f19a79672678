"""What a layer sees and answers as rows: one for every sample and position, convolutions as patches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from surgery.compensating.layers import Layer
from surgery.compensating.taps import Op
from surgery.inputs import Inputs

AT_ONCE = 1 << 22
"""Numbers of patches that are laid out at a time."""


@dataclass(frozen=True)
class Kernel:
    """The numbers of a convolution, one per dim of space; `upsample`, the stride of a transposed one, else empty."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    upsample: tuple[int, ...] = ()

    @staticmethod
    def of(op: Op) -> Kernel:
        """A transposed convolution is one with flipped kernel over an input with zeros between its pixels."""
        settings = op.settings
        size = tuple(settings["weight"].shape[2:])
        rank = len(size)
        stride, dilation = (_several(settings[word], rank) for word in ("stride", "dilation"))
        reach = [d * (k - 1) for d, k in zip(dilation, size, strict=True)]
        if op.name.startswith("conv_transpose"):
            before, after = (_several(settings[word], rank) for word in ("padding", "output_padding"))
            pads = tuple((r - p, r - p + more) for r, p, more in zip(reach, before, after, strict=True))
            return Kernel(size, (1,) * rank, dilation, pads, stride)
        padding = settings["padding"]
        if isinstance(padding, str):
            pads = tuple((r // 2, r - r // 2) if padding == "same" else (0, 0) for r in reach)
        else:
            pads = tuple((p, p) for p in _several(padding, rank))
        return Kernel(size, stride, dilation, pads)

    def windows(self, x: Tensor) -> Tensor:
        """x [b, c, ...] -> a view [b, c, positions..., kernel...]."""
        rank = len(self.size)
        if self.upsample:
            spread = [(s - 1) * step + 1 for s, step in zip(x.shape[2:], self.upsample, strict=True)]
            wide = x.new_zeros((*x.shape[:2], *spread))
            places: Any = (..., *(slice(None, None, step) for step in self.upsample))
            wide[places] = x
            x = wide
        x = F.pad(x, [side for pair in reversed(self.padding) for side in pair])  # a negative pad crops
        for dim, (k, step, d) in enumerate(zip(self.size, self.stride, self.dilation, strict=True)):
            x = x.unfold(2 + dim, d * (k - 1) + 1, step)[..., ::d]
        return x.flip([*range(2 + rank, 2 + 2 * rank)]) if self.upsample else x


def _several(value: Any, rank: int) -> tuple[int, ...]:
    numbers = tuple(value) if isinstance(value, list | tuple) else (value,)
    return numbers * rank if len(numbers) == 1 else numbers


def is_convolution(op: Op) -> bool:
    """Whether channels lie on dim 1, before space."""
    return op.name.startswith("conv")


def channel_dim(op: Op) -> int:
    """The dim of the op's input and output on which channels lie."""
    if not is_convolution(op):
        return op.input.dim() - 1
    return 1 if op.input.dim() == op.settings["weight"].dim() else 0


def real_rows(op: Op, call: Inputs) -> Tensor | None:
    """Which rows of the op are no padding, `[rows]`, where a call has an `attention_mask` `[b, t]` of its shape."""
    mask = call.kwargs.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.dim() != 2 or is_convolution(op):
        return None
    lead = op.output.shape[:-1]
    if tuple(lead[:2]) != tuple(mask.shape):
        return None
    flags = (mask != 0).reshape(*mask.shape, *[1] * (len(lead) - 2)).expand(lead)
    return flags.reshape(-1).to(op.output.device)


def count_rows(op: Op) -> int:
    """How many samples x positions the op answers."""
    return op.output.numel() // op.output.shape[channel_dim(op)]


def pick(op: Op, call: Inputs, most: int, seed: int) -> Tensor:
    """The rows to look at: all that are no padding, or at most so many of them, evenly at random."""
    real = real_rows(op, call)
    device = op.output.device
    rows = torch.arange(count_rows(op), device=device) if real is None else real.nonzero()[:, 0]
    if rows.numel() <= most:
        return rows
    generator = torch.Generator().manual_seed(seed)
    return rows[torch.randperm(rows.numel(), generator=generator)[:most].to(device)]


def outputs_at(op: Op, rows: Tensor) -> Tensor:
    """What came of the op in those rows, `[rows, outputs]`: its answers, and what they were added to."""
    answer = op.output if op.beside is None else op.output + op.beside
    flat = answer.movedim(channel_dim(op), -1)
    return flat.reshape(-1, flat.shape[-1])[rows]


def inputs_at(op: Op, layer: Layer, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Stretches of the rows: `(their places among rows, what is read there [n, conv_groups, inputs, kernel])`."""
    groups = layer.inputs.shape[0]
    if not is_convolution(op):
        flat = op.input.reshape(-1, op.input.shape[-1])
        yield slice_of(0, rows), flat[rows].reshape(rows.numel(), groups, -1, 1)
        return
    x = op.input if channel_dim(op) else op.input.unsqueeze(0)
    seen = Kernel.of(op).windows(x)
    rank = len(op.settings["weight"].shape) - 2
    positions = seen.shape[2 : 2 + rank]
    width = seen.shape[1] * math.prod(seen.shape[2 + rank :])
    done = 0
    for some in rows.split(max(1, AT_ONCE // width)):
        sample, *position = torch.unravel_index(some, (seen.shape[0], *positions))
        index: Any = (sample, slice(None), *position)
        picked = seen[index]  # (n, c, kernel...): indices around a slice come first
        yield slice_of(done, some), picked.reshape(some.numel(), groups, -1, math.prod(picked.shape[2:]))
        done += some.numel()


def slice_of(start: int, some: Tensor) -> Tensor:
    """The places `start, start + 1, ...` of a stretch."""
    return torch.arange(start, start + some.numel(), device=some.device)
