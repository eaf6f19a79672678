"""The user's loader: its items one by one, as calls of the model and what their outputs are held against."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from surgery.errors import InputError, first_line
from surgery.inputs import Inputs

KINDS = "a tensor, a tuple of the model's inputs and then the targets, or a dict by the names of its forward"


@dataclass(frozen=True)
class Batch:
    """One item of the user's data.

    Attributes:
        inputs: The call of the model.
        targets: What follows the inputs in a tuple (one alone as it is, several as a tuple); the item itself where it
            is a tensor or a dict.
        size: How many samples it holds: dim 0 of its first tensor.
        where: Its place, in words.
    """

    inputs: Inputs
    targets: Any
    size: int
    where: str

    def run(self, model: nn.Module) -> Any:
        """The model's output.

        Raises:
            InputError: The model fails on it.
        """
        try:
            return self.inputs.call(model)
        except Exception as error:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in self.inputs.tensors())
            fact = f"{type(model).__name__} fails on {self.where} ({shapes}): {first_line(error)}"
            raise InputError(fact, f"let every item be {KINDS}") from error

    def samples(self) -> Iterator[Batch]:
        """Its samples one by one; itself where its inputs share no dim 0."""
        if self.inputs.batch is None:
            yield replace(self, size=1)
            return
        for index in range(self.size):

            def one(tensor: Tensor, index: int = index) -> Tensor:
                whole = tensor.dim() == 0 or tensor.shape[0] != self.size
                return tensor if whole else tensor[index : index + 1]

            targets = pytree.tree_map_only(Tensor, one, self.targets)
            yield Batch(self.inputs.map(one), targets, 1, f"sample {index} of {self.where}")


def batches(data: Any, model: nn.Module, example: Inputs) -> Iterator[Batch]:
    """The items of the user's data as calls of the model, on its device.

    Args:
        data: A DataLoader or another iterable of batches. A batch is a tensor; a tuple or list of as many inputs as
            the example has positional ones, and then the targets; or a mapping by the names of forward's parameters
            (what forward does not take is left to the loss). A tensor alone is one batch.
        model: The model.
        example: Its example inputs: settings among the keyword inputs are passed along with every batch.

    Raises:
        InputError: The data is empty, cannot be iterated or fails itself, or an item is of another kind.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    number = -1
    for number, item in enumerate(items(data)):
        where = f"item {number} of the data"
        batch = _batch(item, where, model, example)
        if batch.size == 0:
            raise InputError(f"{where} is empty", "leave empty batches out")
        targets = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), batch.targets)
        yield replace(batch, inputs=batch.inputs.map(lambda tensor: tensor.to(device)), targets=targets)
    if number < 0:
        raise InputError("the data is empty", "pass at least one batch of inputs like those the model will see")


def _batch(item: Any, where: str, model: nn.Module, example: Inputs) -> Batch:
    settings = {name: value for name, value in example.kwargs.items() if not _holds_tensors(value)}
    wanted = len(example.args)
    targets = item
    if isinstance(item, tuple | list) and not wanted and item and isinstance(item[0], Mapping):
        item, targets = item[0], _rest(item[1:])
    if isinstance(item, Mapping):
        inputs = Inputs((), {**settings, **_taken(dict(item), where, model)})
        targets = dict(item) if targets is item else targets
    elif isinstance(item, tuple | list):
        if not wanted or len(item) < wanted:
            names = ", ".join(example.kwargs) or "none"
            takes = f"{wanted} positional inputs" if wanted else f"its inputs by name ({names})"
            fact = f"{where} is a {type(item).__name__} of {len(item)}, the model takes {takes}"
            raise InputError(fact, f"let every item be {KINDS}")
        inputs, targets = Inputs(tuple(item[:wanted]), settings), _rest(item[wanted:])
    elif isinstance(item, Tensor) and wanted <= 1:
        inputs = Inputs((item,), settings)
    else:
        raise InputError(f"{where} is a {type(item).__name__}", f"let every item be {KINDS}")
    tensors = inputs.tensors()
    if not tensors:
        raise InputError(f"{where} ({type(item).__name__}) holds no tensor for the model", f"let every item be {KINDS}")
    return Batch(inputs, targets, int(tensors[0].shape[0]) if tensors[0].dim() else 1, where)


def _rest(rest: Sequence[Any]) -> Any:
    return rest[0] if len(rest) == 1 else tuple(rest)


def _holds_tensors(value: Any) -> bool:
    return any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(value))


def _taken(item: dict[Any, Any], where: str, model: nn.Module) -> dict[str, Any]:
    """Those entries of a mapping that forward takes by name."""
    parameters = inspect.signature(model.forward).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return {str(name): value for name, value in item.items()}
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    taken = {str(name): value for name, value in item.items() if name in named}
    if not taken:
        has = ", ".join(map(str, item)) or "nothing"
        raise InputError(f"{where} has {has}; forward takes {', '.join(named)}", "name the entries as forward does")
    return taken


def items(data: Any) -> Iterator[Any]:
    """The items of the user's data; a tensor, an array or a mapping is one.

    Raises:
        InputError: It cannot be iterated, or fails itself.
    """
    if isinstance(data, Tensor | np.ndarray | Mapping):
        return iter([data])
    if isinstance(data, str) or (not isinstance(data, Iterable) and not hasattr(data, "__getitem__")):
        raise InputError(f"the data is a {type(data).__name__}", "pass a DataLoader, a list of batches, or a tensor")
    return _guarded(data)


def _guarded(data: Iterable[Any]) -> Iterator[Any]:
    """The items of the user's own loader, whose failure is told as such."""
    found, number = iter(data), 0
    while True:
        try:
            item = next(found)
        except StopIteration:
            return
        except InputError:
            raise
        except Exception as error:
            fact = f"the data raised {first_line(error)} at item {number}"
            raise InputError(fact, "make it iterate on its own first") from error
        yield item
        number += 1
