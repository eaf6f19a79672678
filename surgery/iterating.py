"""What the user gives as data, item by item: whatever can be iterated, once or again, and what cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils import _pytree as pytree

from surgery.errors import InputError, first_line


def tensors_in(value: Any) -> list[Any]:
    """Every tensor and array in a value, in pytree order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor | np.ndarray)]


def is_one(data: Any) -> bool:
    """Whether the data is a single batch."""
    return isinstance(data, Tensor | np.ndarray | Mapping)


def _is_factory(data: Any) -> bool:
    """Whether the data is what returns it."""
    return callable(data) and not isinstance(data, Iterable) and not hasattr(data, "__getitem__")


def check_data(data: Any) -> None:
    """Refuse at once what is no data, before hours are spent; nothing is read.

    Raises:
        InputError: It cannot be iterated, or is a single number.
    """
    if isinstance(data, Tensor | np.ndarray) and not data.ndim:
        raise InputError("the data is a single number", "pass batches, or a tensor with samples along dim 0")
    if is_one(data) or _is_factory(data):
        return
    if isinstance(data, str | bytes) or (not isinstance(data, Iterable) and not hasattr(data, "__getitem__")):
        raise InputError(f"the data is a {type(data).__name__}", "pass a DataLoader, a list of batches, or a tensor")


def check_samples(samples: int) -> None:
    """Refuse what is no number of samples.

    Raises:
        InputError: So it is.
    """
    if not isinstance(samples, int | np.integer) or isinstance(samples, bool) or samples < 1:
        raise InputError(
            f"samples is {samples!r}", "give the most samples to take of the data, a whole number from 1 on"
        )


def made(data: Any) -> Any:
    """The data itself, or what the function that was given for it returns.

    Raises:
        InputError: As `check_data`, or the function fails.
    """
    check_data(data)
    if not _is_factory(data):
        return data
    try:
        found = data()
    except Exception as error:
        fact = f"the function that is to return the data raised {first_line(error)}"
        raise InputError(fact, "make it work on its own first") from error
    check_data(found)
    return found


def items(data: Any) -> Iterator[Any]:
    """The items of the user's data; a tensor, an array or a mapping is one, a function is called for them.

    Raises:
        InputError: It cannot be iterated, or fails itself.
    """
    data = made(data)
    return iter([data]) if is_one(data) else _guarded(data)


def _guarded(data: Iterable[Any]) -> Iterator[Any]:
    """The items of the user's own loader, whose failure is told as such."""
    number = 0
    try:
        for item in data:
            yield item
            number += 1
    except InputError:
        raise
    except Exception as error:
        fact = f"the data raised {first_line(error)} at item {number}"
        raise InputError(fact, "make it iterate on its own first") from error


def length_of(data: Any) -> int | None:
    """How many items the data has, where it says so."""
    if is_one(data):
        return None
    try:
        return len(data)
    except TypeError:  # a generator, a loader of a stream, a function
        return None


class Kept:
    """Data that is read once and can be iterated again: its first items are kept as they come (mutable).

    For who reads all of the data once, and then the first samples of it again: of a generator, nothing would be left.
    """

    def __init__(self, data: Iterable[Any], samples: int) -> None:
        self.data, self.left = data, samples
        self.items: list[Any] = []
        self.rest: Iterator[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        """What was kept, and what has not been read yet."""
        yield from self.items
        if self.rest is None:
            self.rest = iter(self.data)
        for item in self.rest:
            if self.left > 0:
                self.items.append(item)
                sizes = {tuple(one.shape[:1]) for one in tensors_in(item)}
                shared = sizes.pop() if len(sizes) == 1 else ()
                self.left -= shared[0] if shared else 1  # never more than whoever takes samples counts
            yield item

    def __len__(self) -> int:
        length = length_of(self.data)
        if length is None:
            raise TypeError(f"{type(self.data).__name__} has no length")
        return length


def kept(data: Any, samples: int) -> Any:
    """The data such that its first samples can be read again, whatever it is.

    Args:
        data: As for `batches`.
        samples: So many can be.

    Raises:
        InputError: As `check_data` and `check_samples`.
    """
    check_data(data)
    check_samples(samples)
    return data if is_one(data) or _is_factory(data) else Kept(data, samples)
