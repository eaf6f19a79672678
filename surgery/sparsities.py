"""`surgery.sparsity`: how many zeros a model holds, where they lie, and what they are worth on a disk."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surgery.errors import InputError
from surgery.masks import bake, check_finite, find_coats
from surgery.pieces import empty, pieces
from surgery.progress import stage

LEVEL = 6
"""Of zlib, as zip and gzip have it where nothing else is asked for."""

SHOWN = 40
"""How many tensors a printed table lists."""

MANY = 0.2
"""From which share of scattered zeros on `shrink` says what they are worth."""


@dataclass(frozen=True)
class TensorSparsity:
    """The zeros of one parameter, as the model computes with it: masks are looked through.

    Attributes:
        name: The parameter, without its mask (`conv1.weight`).
        shape: Its shape.
        zeros: How many of its values are zero.
        zero_rows: How many positions of dim 0 hold nothing but zeros (output channels, mostly).
        zero_columns: The same of dim 1 (input channels, mostly); 0 where there is no dim 1.
        scattered: Zeros outside of these rows and columns; 0 where there is no dim 1.
        dense_bytes: What it takes as it is.
        packed_bytes: What it would take as a bit per value, which says where it is zero, and the values that are not.
        compressed_bytes: What its bytes take when they are compressed by zlib; None where that was not asked for.
    """

    name: str
    shape: tuple[int, ...]
    zeros: int
    zero_rows: int
    zero_columns: int
    scattered: int
    dense_bytes: int
    packed_bytes: int
    compressed_bytes: int | None

    @property
    def size(self) -> int:
        """How many values it has."""
        return torch.Size(self.shape).numel()

    @property
    def share(self) -> float:
        """The share of its values that is zero, 0 to 1."""
        return self.zeros / self.size if self.size else 0.0


@dataclass(frozen=True)
class Sparsity:
    """The zeros of a model's parameters, tied ones counted once; buffers are left out.

    Attributes:
        tensors: One per parameter, in the model's order.
    """

    tensors: tuple[TensorSparsity, ...]

    @property
    def zeros(self) -> int:
        """How many values are zero."""
        return sum(tensor.zeros for tensor in self.tensors)

    @property
    def size(self) -> int:
        """How many values there are."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def share(self) -> float:
        """The share of all values that is zero, 0 to 1."""
        return self.zeros / self.size if self.size else 0.0

    @property
    def scattered(self) -> int:
        """How many zeros lie outside of rows and columns of zeros."""
        return sum(tensor.scattered for tensor in self.tensors)

    @property
    def dense_bytes(self) -> int:
        """What the parameters take as they are."""
        return sum(tensor.dense_bytes for tensor in self.tensors)

    @property
    def packed_bytes(self) -> int:
        """What they would take as a bit per value and the values that are not zero."""
        return sum(tensor.packed_bytes for tensor in self.tensors)

    @property
    def compressed_bytes(self) -> int | None:
        """What their bytes take when they are compressed by zlib; None where that was not asked for."""
        found = [tensor.compressed_bytes for tensor in self.tensors]
        return None if None in found else sum(count for count in found if count is not None)

    def table(self) -> str:
        """A line per tensor that holds zeros, those with the most of them if they are many."""
        from surgery.latency.table import Grid  # here, for it brings all that benchmarks need

        heads = ("tensor", "shape", "zeros", "share", "rows", "columns", "scattered", "dense", "packed", "zlib")
        most = sorted((t for t in self.tensors if t.zeros), key=lambda tensor: -tensor.zeros)[:SHOWN]
        lines = [_line(tensor) for tensor in self.tensors if tensor in most]
        whole = ("in all", "", f"{self.zeros:,}", f"{self.share:.1%}", "", "", f"{self.scattered:,}", *_sizes(self))
        return Grid(heads, [lines, [whole]], frozenset({"tensor", "shape"})).text()

    def __str__(self) -> str:
        holding = sum(bool(tensor.zeros) for tensor in self.tensors)
        if not holding:
            return f"no zeros among {self.size:,} values of {len(self.tensors)} parameters"
        more = [f"... and {holding - SHOWN} more parameters with fewer zeros"] if holding > SHOWN else []
        return "\n".join([self.table(), *more, f"note: {self.worth()}"])

    def worth(self) -> str:
        """What zeros are worth, in one sentence."""
        compressed = self.compressed_bytes
        by = "" if compressed is None else f" (zlib: {_megabytes(self.dense_bytes)} -> {_megabytes(compressed)})"
        return (
            f"scattered zeros make no model faster, and its file smaller only where that is compressed{by}; "
            "rows and columns can go where all that shares their channel agrees: surgery.analyze says which do, "
            "surgery.shrink removes them"
        )


def sparsity(model: nn.Module, *, compress: bool = True) -> Sparsity:
    """Count the zeros of a model's parameters, as it computes with them.

    Args:
        model: In any of the masks' coats; it is not modified.
        compress: Compress the bytes of every parameter to see what is left of them. It takes the most time.

    Raises:
        InputError: A value is NaN or infinite, or the model is on the meta device.
    """
    if empties := [name for name, parameter in model.named_parameters() if parameter.is_meta]:
        raise InputError(f"{empties[0]} is on the meta device, and has no values", "load the weights first")
    check_finite(model)
    with stage("counting zeros"):
        return _of_plain(bake(model) if find_coats(model) else model, compress)


def scattered_note(slim: nn.Module) -> list[str]:
    """What is to be said of a slim model where many of its values are scattered zeros: one sentence, or none."""
    found = _of_plain(slim, compress=False)
    if found.scattered <= MANY * found.size:
        return []
    share = f"{found.scattered / found.size:.0%} of what is left are zeros in rows and columns that stay"
    worth = "they make nothing faster, and a file smaller only where it is compressed"
    return [f"{share}: {worth} (surgery.sparsity counts them)"]


def _of_plain(model: nn.Module, compress: bool) -> Sparsity:
    return Sparsity(tuple(_counted(name, tensor, compress) for name, tensor in model.named_parameters()))


def _counted(name: str, parameter: Tensor, compress: bool) -> TensorSparsity:
    tensor, shape = parameter.detach(), tuple(parameter.shape)
    zeros = sum(int((_comparable(piece) == 0).sum()) for piece in pieces(tensor))
    values, each = tensor.numel(), tensor.element_size()
    rows = columns = scattered = 0
    if tensor.dim() and values:
        rows = int(empty(_comparable(tensor), 0).sum())
    if tensor.dim() > 1 and values:
        columns = int(empty(_comparable(tensor), 1).sum())
        outside = (shape[0] - rows) * (shape[1] - columns) * (values // (shape[0] * shape[1]))
        scattered = zeros - (values - outside)
    return TensorSparsity(
        name=name,
        shape=shape,
        zeros=zeros,
        zero_rows=rows,
        zero_columns=columns,
        scattered=scattered,
        dense_bytes=values * each,
        packed_bytes=-(-values // 8) + (values - zeros) * each,
        compressed_bytes=_compressed(tensor) if compress else None,
    )


def _comparable(tensor: Tensor) -> Tensor:
    """Float8 has no comparison of its own."""
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor


def _compressed(tensor: Tensor) -> int:
    """The bytes that zlib makes of the tensor's, without keeping them."""
    packer, count = zlib.compressobj(LEVEL), 0
    for piece in pieces(tensor):
        raw = piece.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        count += len(packer.compress(raw.data))
    return count + len(packer.flush())


def _line(tensor: TensorSparsity) -> tuple[str, ...]:
    rows = f"{tensor.zero_rows}/{tensor.shape[0]}" if tensor.shape else ""
    columns = f"{tensor.zero_columns}/{tensor.shape[1]}" if len(tensor.shape) > 1 else ""
    shape = "x".join(map(str, tensor.shape))
    counts = (f"{tensor.zeros:,}", f"{tensor.share:.1%}", rows, columns, f"{tensor.scattered:,}")
    return (tensor.name, shape, *counts, *_sizes(tensor))


def _sizes(of: TensorSparsity | Sparsity) -> tuple[str, str, str]:
    compressed = "" if of.compressed_bytes is None else _megabytes(of.compressed_bytes)
    return _megabytes(of.dense_bytes), _megabytes(of.packed_bytes), compressed


def _megabytes(count: int) -> str:
    from surgery.latency.table import megabytes

    return megabytes(count)
