"""A model's attributes while its forward runs: what it assigns is taken back, and noticed."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class UnsureError(Exception):
    """The code does something that a recording cannot vouch for."""


@contextmanager
def attributes_kept(model: nn.Module) -> Iterator[None]:
    """What forward assigns to its modules, or puts into their lists and dicts, is taken back and noticed."""
    containers = [kept for module in model.modules() for kept in _held(module)]
    before = [kept.copy() for kept in containers]
    try:
        yield
    finally:
        changed = [_restored_(kept, old) for kept, old in zip(containers, before, strict=True)]
    if any(changed):
        raise UnsureError("forward assigns to attributes")


def _held(module: nn.Module) -> Iterator[dict[Any, Any] | list[Any]]:
    """A module's attributes, its tensors and children by name, and every container in an attribute of its own."""
    attributes = vars(module)
    yield from (attributes, module._parameters, module._buffers, module._modules)
    for name, value in attributes.items():
        if name not in _REGISTRIES:
            yield from _containers(value)


_REGISTRIES = frozenset(vars(nn.Module()))
"""What every module holds: its parameters, buffers, children and hooks."""


def _containers(value: Any) -> Iterator[dict[Any, Any] | list[Any]]:
    """The dicts and lists in a value, the value itself included."""
    if isinstance(value, dict | list):
        yield value
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _containers(part)


def _restored_(kept: Any, old: Any) -> bool:
    """Give a container its old contents back; whether they had changed."""
    if isinstance(kept, dict):
        same = kept.keys() == old.keys() and all(kept[key] is value for key, value in old.items())
    else:
        same = len(kept) == len(old) and all(map(operator.is_, kept, old))
    if same:
        return False
    kept.clear()
    kept.update(old) if isinstance(kept, dict) else kept.extend(old)
    return True
