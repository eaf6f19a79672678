"""The user's batches as calls of the model: checked, some to repair with, others held back to judge by."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from surgery.errors import InputError, first_line
from surgery.inputs import Inputs

CHUNK = 32
"""Rows of a single tensor that are fed at a time."""

EVERY = 4
"""One of so many batches is held back; of a single batch one row of so many."""


@dataclass(frozen=True)
class Batches:
    """Calls of the model.

    Attributes:
        fit: What is repaired with.
        held: What the error is measured on; the same as `fit` where there was too little to hold any back.
        n_fit, n_held: How many samples these are.
        notes: What a reader should know of them.
    """

    fit: tuple[Inputs, ...]
    held: tuple[Inputs, ...]
    n_fit: int
    n_held: int
    notes: tuple[str, ...] = ()


def read(data: Any, model: nn.Module, example: Inputs, samples: int) -> Batches:
    """Take up to `samples` samples of the data and hold some back: every fourth batch, or row where there are few.

    Args:
        data: An iterable of batches (a tensor; a tuple or list whose first tensors are the inputs, labels may follow;
            or a dict by argument name), or one tensor with samples along dim 0, or one dict of such.
        model: Its forward names what a dict is to hold.
        example: The example inputs, which say how many tensors the model takes, and of which kind.
        samples: The most that is taken.

    Raises:
        InputError: The data is empty or cannot be iterated; an item has too few tensors, or tensors of another kind or
            number of dims than the example, or NaN in it.
    """
    if samples < 1:
        raise InputError(f"samples is {samples}", "give the most samples to take of the data, at least 1")
    notes: dict[str, None] = {}
    names = _names(model, example)
    calls: list[Inputs] = []
    taken = 0
    for number, item in enumerate(_items(data)):
        call = _call_of(item, f"item {number} of the data", names, example, notes)
        if call.batch is not None and taken + call.batch > samples:
            left = samples - taken
            call = call.map(lambda tensor, left=left: tensor[:left])
        calls.append(call)
        taken += _count(call)
        if taken >= samples:
            break
    if not taken:
        raise InputError("the data is empty", "pass at least one batch of inputs like those the model will see")
    rows = isinstance(data, Tensor | np.ndarray | Mapping)
    return _split([part for call in calls for part in _chunks(call)] if rows else calls, rows, tuple(notes))


def _chunks(call: Inputs) -> Iterator[Inputs]:
    """The same rows, at most 32 at a time."""
    for start in range(0, call.batch or 1, CHUNK):
        yield call if call.batch is None else call.map(lambda t, start=start: t[start : start + CHUNK])


def _items(data: Any) -> Iterator[Any]:
    if isinstance(data, np.ndarray):
        data = torch.from_numpy(data)
    if isinstance(data, Tensor) and not data.dim():
        raise InputError("the data is a single number", "pass batches, or a tensor with samples along dim 0")
    if isinstance(data, Tensor | Mapping):
        return iter([data])
    if isinstance(data, str) or (not isinstance(data, Iterable) and not hasattr(data, "__getitem__")):
        raise InputError(f"the data is a {type(data).__name__}", "pass a DataLoader, a list of batches, or a tensor")
    return _guarded(data)


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


def _names(model: nn.Module, example: Inputs) -> list[tuple[str, int]]:
    """The arguments that hold tensors, in the order of `example.tensors()`, and how many tensors each holds."""
    positional = list(inspect.signature(model.forward).parameters)
    named = {**dict(zip(_padded(positional, len(example.args)), example.args, strict=False)), **example.kwargs}
    held = {name: sum(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value)) for name, value in named.items()}
    return [(name, count) for name, count in held.items() if count]


def _padded(names: list[str], count: int) -> list[str]:
    """As many names as there are arguments: those that a `*args` takes up are numbered."""
    return names[:count] + [f"argument {place}" for place in range(len(names), count)]


def _call_of(item: Any, where: str, names: list[tuple[str, int]], example: Inputs, notes: dict[str, None]) -> Inputs:
    """An item in the place of the example's tensors; what was left out of it is noted."""
    if isinstance(item, Mapping):
        found: list[Any] = []
        for name, count in names:
            if name not in item:
                has = ", ".join(map(str, item)) or "nothing"
                raise InputError(f"{where} has no {name!r} (it has {has})", "name the inputs as the model does")
            leaves = [leaf for leaf in pytree.tree_leaves(item[name]) if isinstance(leaf, Tensor | np.ndarray)]
            if len(leaves) != count:
                raise InputError(
                    f"{where}: {name!r} holds {len(leaves)} tensors, not {count}", "pass what forward takes"
                )
            found += leaves
        known = {name for name, _ in names}
        notes |= dict.fromkeys(f"{name!r} of the data's items was not used" for name in item if name not in known)
    else:
        wanted = sum(count for _, count in names)
        found = [leaf for leaf in pytree.tree_leaves(item) if isinstance(leaf, Tensor | np.ndarray)]
        if len(found) < wanted:
            fact = f"{where} ({type(item).__name__}) gives {len(found)} tensors, the model takes {wanted}"
            raise InputError(fact, f"give {', '.join(name for name, _ in names)}, in this order or as a dict")
        if len(found) > wanted:
            notes[f"the model takes {wanted} of the {len(found)} tensors in each item of the data"] = None
    said = [name if count == 1 else f"{name}[{place}]" for name, count in names for place in range(count)]
    checked = iter(
        [
            _checked(value, like, f"{where}: {name}")
            for value, like, name in zip(found, example.tensors(), said, strict=False)
        ]
    )
    return example.map(lambda _: next(checked))


def _checked(value: Any, like: Tensor, what: str) -> Tensor:
    """The value as a tensor of the example's kind, dtype and device."""
    tensor = torch.as_tensor(value).detach()
    if tensor.dim() != like.dim():
        way_out = (
            "the batch dim is missing: iterate over batches, as a DataLoader gives them"
            if tensor.dim() == like.dim() - 1
            else "pass batches like the example inputs"
        )
        raise InputError(f"{what} has shape {list(tensor.shape)}, the example {list(like.shape)}", way_out)
    if not tensor.numel():
        raise InputError(f"{what} is empty ({list(tensor.shape)})", "leave empty batches out")
    if (tensor.is_floating_point(), tensor.dtype == torch.bool) != (like.is_floating_point(), like.dtype == torch.bool):
        raise InputError(f"{what} is {tensor.dtype}, the example {like.dtype}", "prepare it as for the model itself")
    if tensor.is_floating_point() and not tensor.isfinite().all():
        held = "NaN" if tensor.isnan().any() else "infinity"
        raise InputError(f"{what} holds {held}", "clean the data: what is learnt from it would be meaningless")
    return tensor.to(like.device, like.dtype)


def _count(call: Inputs) -> int:
    return call.batch or 1


def _split(calls: list[Inputs], rows: bool, notes: tuple[str, ...]) -> Batches:
    """Hold back every fourth batch; every fourth row where there are fewer, or `rows` are known to be samples."""
    if len(calls) >= EVERY and not rows:
        held = [call for place, call in enumerate(calls) if place % EVERY == EVERY - 1]
        fit = [call for place, call in enumerate(calls) if place % EVERY != EVERY - 1]
    else:
        fit, held = [], []
        for call in calls:
            place = torch.arange(call.batch or 1) % EVERY
            for side, back in ((fit, place != EVERY - 1), (held, place == EVERY - 1)):
                if back.all():
                    side.append(call)
                elif back.any():
                    side.append(call.map(lambda tensor, back=back: tensor[back.to(tensor.device)]))
    if not held:
        fit, held = calls, calls
        notes += ("too few samples to hold any back: errors are those on the data that was repaired with",)
    return Batches(tuple(fit), tuple(held), sum(map(_count, fit)), sum(map(_count, held)), notes)
