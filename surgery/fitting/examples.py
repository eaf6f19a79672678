"""A call of the model, read off the first item of the data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.iterating import tensors_in

ANSWERS = ("label", "start_positions", "end_positions", "target")
"""What names of forward's parameters say that they take the answer: with them a model computes its own loss."""


def example_of(item: Any, model: nn.Module, lossless: bool) -> Inputs:
    """The inputs in an item of the data.

    A mapping gives forward's parameters by name (what takes labels is none of the inputs); a tuple gives the inputs in
    order and then the targets; a tensor is the input.

    Args:
        item: The first item.
        model: Whose forward names the inputs.
        lossless: Whether no loss function was given: then all that forward takes may be inputs, labels among them.

    Raises:
        InputError: There is no input in it.
    """
    parameters = inspect.signature(model.forward).parameters
    if isinstance(item, tuple | list) and item and isinstance(item[0], Mapping):
        item = item[0]
    if isinstance(item, Mapping):
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        named = {
            str(name): _as_tensors(value)
            for name, value in item.items()
            if (name in parameters or open_ended) and tensors_in(value) and not _is_answer(str(name))
        }
        if not named:
            has = ", ".join(map(str, item)) or "nothing"
            raise InputError(f"the first item of the data has {has}", f"name the inputs: {', '.join(parameters)}")
        return Inputs((), named)
    parts = list(item) if isinstance(item, tuple | list) else [item]
    if not tensors_in(parts):
        way_out = "give batches of tensors: (inputs, targets), or a dict by the names of forward's parameters"
        raise InputError(f"the first item of the data is a {type(item).__name__} without tensors", way_out)
    if not lossless and len(parts) > 1 and isinstance(parts[-1], torch.Tensor) and not parts[-1].dim():
        fact = f"the first item of the data is one sample: its target {parts[-1]} has no batch dim"
        raise InputError(fact, "iterate over batches, as a DataLoader gives them")
    return Inputs(tuple(_as_tensors(part) for part in parts[: _inputs_among(parts, parameters, lossless)]), {})


def _inputs_among(parts: Sequence[Any], parameters: Mapping[str, inspect.Parameter], lossless: bool) -> int:
    """How many of a tuple's parts are inputs: with a loss all but the last, without as many as forward takes."""
    if len(parts) == 1:
        return 1
    placed = [p for p in parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = sum(p.default is p.empty for p in placed)
    starred = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
    if not lossless:
        return len(parts) - 1 if starred else max(min(len(parts) - 1, len(placed)), 1)
    asks = [place for place, p in enumerate(placed) if _is_answer(p.name)]
    if asks and asks[0] < len(parts):  # forward takes the answer itself, where it computes its loss
        return len(parts)
    return max(min(needed, len(parts)), 1)


def _is_answer(name: str) -> bool:
    return any(said in name.lower() for said in ANSWERS)


def _as_tensors(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _as_tensors(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_as_tensors(one) for one in value)
    return torch.as_tensor(value) if tensors_in(value) else value
