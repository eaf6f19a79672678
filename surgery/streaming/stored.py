"""A tensor whose numbers are in a file: whatever computes with it reads them, and lets them go."""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Step = Callable[[Tensor], Tensor]
"""What is done to a tensor after it was read."""

_TRIM: Callable[[int], int] = getattr(ctypes.CDLL(None), "malloc_trim", int) if sys.platform == "linux" else int
"""Gives what was freed back to the system: glibc keeps it, though the next tensor may not fit into its pieces."""

_ADDRESSES = itertools.count(1 << 60, 1 << 44)
"""Where tensors that are in no memory count as lying: far from all that is, and from each other."""


@dataclass(frozen=True)
class Origin:
    """Where the numbers come from.

    Attributes:
        read: Reads them afresh; what it returns may be written into.
        holder: Keeps the last that was read.
    """

    read: Callable[[], Tensor]
    holder: Holder
    address: int = field(default_factory=lambda: next(_ADDRESSES))

    def numbers(self) -> Tensor:
        """What is stored, from the file or as it was last read."""
        return self.holder.get(self)


class Holder:
    """Keeps the tensor that was read last, for an op rarely comes alone (mutable)."""

    def __init__(self) -> None:
        self.address, self.tensor = 0, torch.empty(0)

    def get(self, origin: Origin) -> Tensor:
        """The numbers of an origin; those of any other are let go before."""
        if self.address != origin.address:
            self.address, self.tensor = 0, torch.empty(0)
            _TRIM(0)
            self.tensor = origin.read()
            self.address = origin.address
        return self.tensor


class Stored(Tensor):
    """A tensor of the CPU that holds its shape, its type and where its numbers are.

    Ops that look at it from elsewhere (views) give another one; all others read the numbers, and what they compute is a
    tensor as any. It cannot be written into.
    """

    origin: Origin
    form: Tensor
    steps: tuple[Step, ...]
    _is_param: bool  # what isinstance(..., nn.Parameter) asks

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def of(read: Callable[[], Tensor], like: Tensor, holder: Holder) -> Stored:
        """A stored tensor.

        Args:
            read: Reads the numbers.
            like: A tensor of its shape and type; the stored one is a parameter if that is.
            holder: Keeps what was read last.
        """
        form = torch.empty(like.shape, dtype=like.dtype, device="meta")
        made = Stored._made(Origin(read, holder), form, ())
        made._is_param = isinstance(like, nn.Parameter)
        return made

    @staticmethod
    def _made(origin: Origin, form: Tensor, steps: tuple[Step, ...]) -> Stored:
        made: Stored = Tensor._make_wrapper_subclass(
            Stored, form.shape, strides=form.stride(), storage_offset=form.storage_offset(), dtype=form.dtype
        )
        made.origin, made.form, made.steps = origin, form, steps
        return made

    def changed(self, change: Callable[[Tensor], object]) -> Stored:
        """The same with something written into it, every time that it is read.

        Args:
            change: Writes into what was read.
        """
        own = self.origin.read

        def read() -> Tensor:
            numbers = own()
            change(numbers)
            return numbers

        return Stored.of(read, self, self.origin.holder)

    def numbers(self) -> Tensor:
        """The tensor itself."""
        found = self.origin.numbers()
        for step in self.steps:
            found = step(found)
        return found

    def data_ptr(self) -> int:
        """An address that no other tensor has, for those who tell tensors apart by it."""
        return self.origin.address + int(self.form.storage_offset()) * self.form.itemsize

    def __deepcopy__(self, memo: Any) -> Stored:
        return self

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Stored({list(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """A view of it, or what the op computes."""
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            raise RuntimeError(f"{func} would write into a tensor whose numbers are in a file")
        first = args[0] if args else None
        if isinstance(first, Stored) and (func.is_view or func is torch.ops.aten.detach.default):
            rest = args[1:]
            form = func(first.form, *rest, **kwargs)
            if isinstance(form, Tensor):
                steps = (*first.steps, lambda tensor: func(tensor, *rest, **kwargs))
                return Stored._made(first.origin, form, steps)
        args, kwargs = pytree.tree_map_only(Stored, lambda stored: stored.numbers(), (args, kwargs))
        return func(*args, **kwargs)
