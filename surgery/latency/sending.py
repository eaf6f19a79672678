"""How an arbitrary `nn.Module` travels to another process of ours: one file, written and read by us alone.

`torch.save` with cloudpickle underneath sends what plain pickling refuses: classes of `__main__` and of modules that
the other process cannot import (by value), lambdas, non-leaf tensors (a model that `torch.nn.utils.prune` has just
masked) and parametrized modules. The file is a pickle: only ever load one that this process wrote.
"""

from __future__ import annotations

import copyreg
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import torch
from torch import nn
from torch.nn.utils import parametrize


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, and parametrized modules, whose own `__getstate__` refuses: their class goes by value."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, nn.Module) and parametrize.is_parametrized(obj):
            return copyreg.__newobj__, (type(obj),), obj.__dict__.copy()  # type: ignore[attr-defined]
        return super().reducer_override(obj)


_PICKLING = SimpleNamespace(__name__="surgery.latency.sending", Pickler=_Pickler)


def send(value: Any, path: Path) -> None:
    """Write `value` (a module, or a call's inputs) for another process on this machine.

    Raises:
        Exception: Whatever pickling raises where a part cannot leave this process (an open file, a lock).
    """
    with _by_value(value):
        torch.save(value, path, pickle_module=_PICKLING)


def receive(path: Path, device: str = "cpu") -> Any:
    """What `send` wrote, its tensors on `device`. Runs code of the file: ours only."""
    return torch.load(path, map_location=device, weights_only=False)


@contextmanager
def _by_value(value: Any) -> Iterator[None]:
    """Let classes whose module a fresh process cannot find travel by value while the body runs."""
    names = {type(m).__module__ for m in value.modules()} if isinstance(value, nn.Module) else set()
    modules = [sys.modules[n] for n in sorted(names) if n in sys.modules and n != "__main__"]
    hidden = [
        m for m in modules if not _importable(m) and m.__name__ not in cloudpickle.list_registry_pickle_by_value()
    ]
    for module in hidden:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in hidden:
            cloudpickle.unregister_pickle_by_value(module)


def _importable(module: ModuleType) -> bool:
    """Whether a fresh process with this `sys.path` would import the same file under the same name."""
    path, spec = None, None
    parts = module.__name__.split(".")
    for last in range(1, len(parts) + 1):
        name = ".".join(parts[:last])
        found = (finder.find_spec(name, path) for finder in sys.meta_path)
        spec = next((s for s in found if s is not None), None)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    file = getattr(module, "__file__", None)
    return file is None or (spec is not None and spec.origin == file)
