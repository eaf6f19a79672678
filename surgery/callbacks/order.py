"""Which parameter has which place in an optimizer: a checkpoint's state goes by place, and places change.

A mask of `torch.nn.utils.prune` moves its parameter behind the others of its module, and a fold gives layers a bias: an
optimizer that is made over such a model has the same parameters in another order than one that went through it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from surgery.errors import InputError
from surgery.schedules import keep_masks

Names = list[list[str]]
"""The name of every parameter of an optimizer, by group; a masked one's without its mask, a stranger's number."""


def names_in(optimizer: Optimizer, model: nn.Module) -> Names:
    """The names of an optimizer's parameters, by group; those that are not the model's are numbered in each."""
    originals = {f"{name}_orig": name for name in keep_masks(model)}
    named = {id(p): originals.get(name, name) for name, p in model.named_parameters()}
    found = []
    for group in optimizer.param_groups:
        strangers = itertools.count()
        found.append([named.get(id(p)) or str(next(strangers)) for p in group["params"]])
    return found


def arrange_(optimizer: Optimizer, model: nn.Module, saved: Sequence[Sequence[str]]) -> None:
    """Give every parameter the state that its name had, where a checkpoint's state was loaded by place.

    Args:
        optimizer: Over the model's parameters, with the state as it was loaded.
        model: The model.
        saved: What `names_in` said when the checkpoint was written.

    Raises:
        InputError: The groups hold other parameters than they did.
    """
    now = names_in(optimizer, model)
    if now == [list(names) for names in saved]:
        return
    if [sorted(names) for names in now] != [sorted(names) for names in saved]:
        raise InputError(
            "the optimizer's groups hold other parameters than when the checkpoint was written",
            "make the optimizer as it was made then, or start it afresh",
        )
    for group, names, before in zip(optimizer.param_groups, now, saved, strict=True):
        parameters = dict(zip(names, group["params"], strict=True))
        placed = zip(before, group["params"], strict=True)
        states: dict[str, Any] = {name: optimizer.state.pop(p) for name, p in placed if p in optimizer.state}
        for name, state in states.items():
            optimizer.state[parameters[name]] = state
