"""The user's data, read in one way for all: its items one by one, as checked calls of the model and their targets."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from surgery.errors import InputError, first_line
from surgery.inputs import Inputs
from surgery.iterating import check_samples, is_one, items, made, tensors_in

KINDS = "a tensor, a tuple of the model's inputs and then the targets, or a dict by the names of its forward"

CHUNK = 32
"""Rows of data that is one tensor, or one dict of tensors, that are fed at a time."""


@dataclass(frozen=True)
class Batch:
    """One item of the user's data.

    Attributes:
        inputs: The call of the model: the example's, with the item's tensors in it, in the example's dtype.
        targets: What follows the inputs in a tuple (one alone as it is, several as a tuple); the item itself where it
            is a tensor or a dict.
        size: How many samples it holds: dim 0 of its first tensor.
        where: Its place, in words.
        more: Entries of a dict that forward takes beside those that the example has, such as `labels`.
        notes: What of it is no input, a sentence each.
    """

    inputs: Inputs
    targets: Any
    size: int
    where: str
    more: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def run(self, model: nn.Module) -> Any:
        """The model's output.

        Raises:
            InputError: The model fails on it.
        """
        try:
            return Inputs(self.inputs.args, {**self.inputs.kwargs, **self.more}).call(model)
        except Exception as error:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in self.inputs.tensors())
            fact = f"{type(model).__name__} fails on {self.where} ({shapes}): {first_line(error)}"
            raise InputError(fact, f"let every item be {KINDS}") from error

    def rows(self, start: int, end: int, where: str) -> Batch:
        """Some of its samples, of inputs and targets alike; itself where its inputs share no dim 0."""
        if self.inputs.batch is None:
            return self

        def part(tensor: Tensor) -> Tensor:
            return tensor if tensor.dim() == 0 or tensor.shape[0] != self.size else tensor[start:end]

        targets, more = pytree.tree_map_only(Tensor, part, (self.targets, dict(self.more)))
        return replace(
            self,
            inputs=self.inputs.map(part),
            targets=targets,
            more=more,
            size=min(end, self.size) - start,
            where=where,
        )

    def samples(self) -> Iterator[Batch]:
        """Its samples one by one; itself where its inputs share no dim 0."""
        if self.inputs.batch is None:
            yield replace(self, size=1)
            return
        for index in range(self.size):
            yield self.rows(index, index + 1, f"sample {index} of {self.where}")


def batches(data: Any, model: nn.Module, example: Inputs) -> Iterator[Batch]:
    """The items of the user's data as calls of the model, where the example's tensors are.

    Args:
        data: A DataLoader, a list, a generator or another iterable of batches, or a function without arguments that
            returns one. A batch is a tensor; a tuple or list of the model's inputs (the tensors of the example, in its
            order) and then the targets; a mapping by the names of forward's parameters; or such a mapping and then the
            targets. Arrays will do for tensors. A tensor or a mapping alone is one batch: of more than 32 rows, they
            are fed 32 at a time.
        model: The model, whose forward names the inputs.
        example: Its example inputs: settings among them are passed along with every batch.

    Raises:
        InputError: The data is empty, cannot be iterated or fails itself; an item is of another kind, lacks an input,
            or has one of another number of dims, of another kind of numbers, empty, or not finite.
    """
    wanted = _wanted(model, example)
    device = example.tensors()[0].device
    data = made(data)
    whole = is_one(data)
    number = -1
    for number, item in enumerate(items(data)):
        batch = _batch(item, f"item {number} of the data", wanted, model, example)
        targets, more = pytree.tree_map_only(Tensor, lambda one: one.to(device), (batch.targets, dict(batch.more)))
        batch = replace(batch, targets=targets, more=more)
        if not whole or batch.size <= CHUNK or batch.inputs.batch is None:
            yield batch
            continue
        for start in range(0, batch.size, CHUNK):
            yield batch.rows(start, start + CHUNK, f"{batch.where}, from row {start} on")
    if number < 0:
        raise no_items()


def no_items() -> InputError:
    """The refusal of data that yields nothing."""
    return InputError("the data is empty", "pass at least one batch of inputs like those the model will see")


def first(found: Iterable[Batch], most: int) -> Iterator[Batch]:
    """Batches of at most so many samples together; nothing behind them is read.

    Raises:
        InputError: `most` is no whole number, or below 1.
    """
    check_samples(most)
    taken = 0
    for batch in found:
        size = batch.inputs.batch or 1
        yield batch if taken + size <= most else batch.rows(0, most - taken, batch.where)
        taken += size
        if taken >= most:
            return


def _wanted(model: nn.Module, example: Inputs) -> list[tuple[str, int]]:
    """The arguments that hold tensors, in the order of `example.tensors()`, and how many tensors each holds."""
    names = list(inspect.signature(model.forward).parameters)[: len(example.args)]
    names += [f"argument {place}" for place in range(len(names), len(example.args))]  # those that a `*args` takes up
    named = {**dict(zip(names, example.args, strict=True)), **example.kwargs}
    held = {name: sum(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value)) for name, value in named.items()}
    return [(name, count) for name, count in held.items() if count]


def _batch(item: Any, where: str, wanted: list[tuple[str, int]], model: nn.Module, example: Inputs) -> Batch:
    found = placed(item, where, wanted)
    said = [name if count == 1 else f"{name}[{place}]" for name, count in wanted for place in range(count)]
    values = [value for name, _ in wanted for value in found.values[name]]
    checked = [
        _checked(value, like, f"{where}: {name}")
        for value, like, name in zip(values, example.tensors(), said, strict=True)
    ]
    following = iter(checked)
    size = int(checked[0].shape[0]) if checked[0].dim() else 1
    more = {str(name): found.others[name] for name in _taken(model, found.others)}
    inputs = example.map(lambda _: next(following))
    return Batch(
        inputs, found.targets, size, where, pytree.tree_map_only(np.ndarray, torch.as_tensor, more), found.notes
    )


def _taken(model: nn.Module, others: Mapping[Any, Any]) -> list[Any]:
    """Those entries of a mapping, beside the inputs, that forward takes by name."""
    parameters = inspect.signature(model.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return list(others)
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return [name for name in others if name in named]


@dataclass(frozen=True)
class Placed:
    """An item taken apart.

    Attributes:
        values: The tensors or arrays of every input, by its name.
        targets: What is none, as `Batch.targets`.
        others: The entries of a mapping that are none.
        notes: The same in words.
    """

    values: Mapping[str, Sequence[Any]]
    targets: Any
    others: Mapping[Any, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def placed(item: Any, where: str, wanted: Sequence[tuple[str, int]], needed: Collection[str] | None = None) -> Placed:
    """Which of an item's tensors is which input.

    Args:
        item: An item of the data.
        where: Its place, in words.
        wanted: The inputs in their order, each with the number of its tensors.
        needed: Those of them that a mapping must have; None: all.

    Raises:
        InputError: An input is missing, or has another number of tensors.
    """
    targets = item
    if isinstance(item, tuple | list) and item and isinstance(item[0], Mapping):
        item, targets = item[0], _rest(item[1:])
    if isinstance(item, Mapping):
        values = {}
        for name, count in wanted:
            if needed is not None and name not in needed:
                continue
            if name not in item:
                has = ", ".join(map(str, item)) or "nothing"
                raise InputError(f"{where} has no {name!r} (it has {has})", "name the inputs as the model does")
            values[name] = tensors_in(item[name])
            if len(values[name]) != count:
                fact = f"{where}: {name!r} holds {len(values[name])} tensors, not {count}"
                raise InputError(fact, "pass what forward takes")
        others = {name: value for name, value in item.items() if name not in dict(wanted)}
        notes = tuple(f"{name!r} of the data's items was not used" for name in others)
        return Placed(values, targets, others, notes)
    total = sum(count for _, count in wanted)
    parts = list(item) if isinstance(item, tuple | list) else [item]
    found: list[Any] = []
    while parts and len(found) < total:
        found += tensors_in(parts.pop(0))
    if len(found) < total:
        names = ", ".join(name for name, _ in wanted)
        fact = f"{where} ({type(item).__name__}) gives {len(found)} tensors, the model takes {total}"
        raise InputError(fact, f"give {names}, in this order or as a dict")
    targets = _rest([*found[total:], *parts]) if isinstance(item, tuple | list) else item
    every = len(found) + len(tensors_in(parts))
    notes = (f"the model takes {total} of the {every} tensors in each item of the data",) if every > total else ()
    following = iter(found)
    return Placed({name: [next(following) for _ in range(count)] for name, count in wanted}, targets, notes=notes)


def _rest(rest: Sequence[Any]) -> Any:
    found = pytree.tree_map_only(np.ndarray, torch.as_tensor, tuple(rest))
    return found[0] if len(found) == 1 else found


def _checked(value: Any, like: Tensor, what: str) -> Tensor:
    """The value as a tensor of the example's kind, dtype and device."""
    tensor = torch.as_tensor(value).detach()
    if tensor.dim() != like.dim():
        fact = f"{what} has shape {list(tensor.shape)}, the example {list(like.shape)}"
        raise InputError(fact, no_batch_dim(tensor.dim(), like.dim()) or "pass batches like the example inputs")
    require_some(what, tensor.shape)
    if (tensor.is_floating_point(), tensor.dtype == torch.bool) != (like.is_floating_point(), like.dtype == torch.bool):
        raise InputError(f"{what} is {tensor.dtype}, the example {like.dtype}", "prepare it as for the model itself")
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise not_finite(what, bool(tensor.isnan().any()))
    return tensor.to(like.device, like.dtype)


def no_batch_dim(dims: int, wanted: int) -> str:
    """The way out where a value lacks the batch dim; "" where it does not."""
    return "the batch dim is missing: iterate over batches, as a DataLoader gives them" if dims == wanted - 1 else ""


def require_some(what: str, shape: Sequence[int]) -> None:
    """Refuse a value without any number in it.

    Raises:
        InputError: So it is.
    """
    if 0 in shape:
        raise InputError(f"{what} is empty ({list(shape)})", "leave empty batches out")


def not_finite(what: str, nan: bool) -> InputError:
    """The refusal of NaN or infinity among the inputs."""
    fact = f"{what} holds {'NaN' if nan else 'infinity'}"
    return InputError(fact, "clean the data: what is learnt from it would be meaningless")
