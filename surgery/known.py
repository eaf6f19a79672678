"""What is known of a tensor while its inputs are not: a value and whether it varies, position by position.

NaN as a mark for "varies" would not do: 44 pointwise ops turn it into a number. Both arrays have the tensor's rank;
each dim has the tensor's size, or 1 where nothing changes along it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from surgery.layout import Bools, Shape
from surgery.pieces import AT_ONCE

Memo = dict[Any, Any]
"""What was found of a value, to be found once."""

MAX_ELEMENTS = 1 << 26
"""Computed constants larger than this are not followed: they count as varying."""


@dataclass(frozen=True)
class Pattern:
    """Where a weight holds anything but zeros over its kernel.

    Attributes:
        rows: Outputs whose row is not all zero, `[conv_groups, outputs]`.
        columns: Inputs whose column is not all zero, `[conv_groups, inputs]`.
        bits: Element by element, a bit each along the inputs, `[conv_groups, outputs, inputs / 8]`; None where every
            such row reads every such column, as whole rows and columns of zeros leave it.
    """

    rows: Bools
    columns: Bools
    bits: npt.NDArray[np.uint8] | None = None

    @staticmethod
    def of(nonzero: Bools) -> Pattern:
        """The pattern of `[conv_groups, outputs, inputs]`."""
        rows, columns = np.asarray(nonzero.any(2)), np.asarray(nonzero.any(1))
        crossed = int(np.count_nonzero(nonzero)) == int((rows.sum(1) * columns.sum(1)).sum())
        return Pattern(rows, columns, None if crossed else np.packbits(nonzero, axis=2))

    @staticmethod
    def of_rows(stretches: Iterable[Bools], shape: tuple[int, int]) -> Pattern:
        """The pattern of a weight `[outputs, inputs]` in stretches of rows, of which one at a time is there."""
        rows, columns = np.empty((1, shape[0]), bool), np.zeros((1, shape[1]), bool)
        bits = np.empty((1, shape[0], -(-shape[1] // 8)), np.uint8)
        done = count = 0
        for stretch in stretches:
            here = slice(done, done := done + len(stretch))
            rows[0, here] = stretch.any(1)
            columns[0] |= stretch.any(0)
            bits[0, here] = np.packbits(stretch, axis=1)
            count += int(np.count_nonzero(stretch))
        crossed = count == int(rows.sum()) * int(columns.sum())
        return Pattern(rows, columns, None if crossed else bits)

    def rows_on(self, inputs: Bools) -> Bools:
        """Which rows read any of these inputs `[g, i]`; `[g, o]`."""
        if self.bits is None:
            return self.rows & (self.columns & inputs).any(1, keepdims=True)
        read = np.packbits(inputs, axis=1)[:, None]
        block = max(1, AT_ONCE // (self.bits.shape[0] * self.bits.shape[2]))
        steps = range(0, self.bits.shape[1], block)
        return np.concatenate([(self.bits[:, s : s + block] & read).any(2) for s in steps], axis=1)

    def columns_of(self, outputs: Bools) -> Bools:
        """Which columns any of these rows `[g, o]` reads; `[g, i]`."""
        if self.bits is None:
            return self.columns & (self.rows & outputs).any(1, keepdims=True)
        found = np.zeros((self.bits.shape[0], self.bits.shape[2]), np.uint8)
        for group, listening in enumerate(outputs):
            np.bitwise_or.reduce(self.bits[group], axis=0, out=found[group], where=listening[:, None])
        return np.unpackbits(found, axis=1, count=self.columns.shape[1]).astype(bool)


@dataclass(frozen=True, slots=True)
class Known:
    """A tensor of `shape`: `value` where `varies` is False, anything elsewhere.

    Along dim `total` the numbers are surely not negative and add to one (a softmax).
    """

    shape: Shape
    value: Tensor
    varies: Tensor
    total: int | None = None

    @staticmethod
    def anything(shape: Shape) -> Known:
        """Nothing is known: every position varies with the input."""
        ones = [1] * len(shape)
        return Known(shape, torch.zeros(ones, dtype=torch.float64), torch.ones(ones, dtype=torch.bool))

    @staticmethod
    def exactly(value: Tensor) -> Known:
        """Every position is known."""
        return Known(tuple(value.shape), value, torch.zeros([1] * value.dim(), dtype=torch.bool))

    @staticmethod
    def of(shape: Shape, value: Tensor, varies: Tensor) -> Known:
        """A value and where it varies; what is not finite counts as varying."""
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            varies = varies | ~torch.isfinite(value)
            value = torch.nan_to_num(value, 0.0, 0.0, 0.0)
        return Known(shape, _ranked(value, len(shape)), _ranked(varies, len(shape)))

    @property
    def nothing(self) -> bool:
        """Whether every position varies."""
        return bool(self.varies.all())

    @property
    def everything(self) -> bool:
        """Whether no position varies."""
        return not bool(self.varies.any())

    def map(self, move: Callable[[Tensor], Tensor], shape: Shape) -> Known:
        """A movement op, done on both arrays."""
        return Known(shape, move(self.value), move(self.varies))

    def widened(self, dtype: torch.dtype) -> Tensor:
        """The value on the CPU, in `dtype` where it is floating-point."""
        value = self.value.detach()
        return value.to("cpu", dtype) if value.is_floating_point() else value.cpu()

    def full(self) -> Tensor:
        """The value at the tensor's whole shape."""
        return self.value.expand(self.shape)

    def held(self, dim: int) -> Known:
        """The same, with `dim` expanded to its full size."""
        sizes = [-1] * len(self.shape)
        sizes[dim] = self.shape[dim]
        return Known(self.shape, self.value.expand(sizes), self.varies.expand(sizes))

    def along(self, *dims: int) -> tuple[Tensor, Tensor]:
        """`(value, constant)` of every position of `dims` (the last runs fastest), each `[product of their sizes]`.

        A position is constant where it varies neither with the input nor along any other dim.
        """
        known = self
        if len(dims) > 1:
            for dim in dims:
                known = known.held(dim)
        value, varies = (_rows(array, dims) for array in (known.value, known.varies))
        first = value[:, :1]
        constant = ~varies.any(1) if varies.shape[1] > 1 else ~varies[:, 0]
        if value.shape[1] > 1:
            constant = constant & (value == first).all(1)
        size = math.prod(self.shape[d] for d in dims)
        return first[:, 0].expand(size), constant.expand(size)


def _rows(array: Tensor, dims: tuple[int, ...]) -> Tensor:
    """`[positions of dims, the others]`."""
    others = [d for d in range(array.dim()) if d not in dims]
    size = math.prod(array.shape[d] for d in dims)
    return array.permute(*dims, *others).reshape(size, -1)


def _ranked(array: Tensor, rank: int) -> Tensor:
    """The array with leading dims of size 1, as broadcasting would add them."""
    return array.reshape((1,) * (rank - array.dim()) + tuple(array.shape)) if array.dim() < rank else array


def compressed(known: Known, dims: Any) -> Known:
    """Drop those of `dims` along which neither array changes."""
    value, varies = known.value, known.varies
    for dim in dims:
        if value.shape[dim] > 1 or varies.shape[dim] > 1:
            moving = varies.narrow(dim, 0, 1)
            first = value.narrow(dim, 0, 1)
            if bool((varies == moving).all()) and bool(((value == first) | varies).all()):
                value, varies = first, moving
    return Known(known.shape, value, varies)
