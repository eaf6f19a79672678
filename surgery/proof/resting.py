"""Run somebody's model for a comparison and leave it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Reset = Callable[[], None]


@contextmanager
def resting(model: nn.Module) -> Iterator[Reset]:
    """Put `model` under eval() and no_grad; yields a function that undoes what a forward changed.

    Undone are writes to buffers and to tensors that are attributes, and attributes that were set anew (a counter,
    a cache). On exit the same is undone and every module gets its own training flag back. Parameters are not watched.
    """
    modules = list(model.modules())
    flags = [module.training for module in modules]
    rest_(model)
    reset = _recorder(modules)
    try:
        with torch.no_grad():
            yield reset
    finally:
        reset()
        for module, flag in zip(modules, flags, strict=True):
            module.training = flag


def rest_(model: nn.Module) -> nn.Module:
    """`model.eval()`, also for the modules of `torch.export`, which refuse to be asked. Returns it."""
    try:
        return model.eval()
    except NotImplementedError:
        for module in model.modules():
            module.training = False
        return model


def _recorder(modules: Sequence[nn.Module]) -> Reset:
    """Remember the state of `modules` now; the function returned brings it back."""
    names: list[tuple[dict[str, Any], dict[str, Any]]] = []
    values: dict[int, tuple[Tensor, Tensor]] = {}
    for module in modules:
        watched = [*module.buffers(recurse=False)]
        if not isinstance(module, torch.jit.ScriptModule):  # whose attributes live in C++
            watched += [value for value in vars(module).values() if isinstance(value, Tensor)]
            names += [(own, dict(own)) for own in (vars(module), module._parameters, module._buffers)]
        values |= {id(t): (t, t.detach().clone()) for t in watched if not t.is_meta}

    def reset() -> None:
        for own, before in names:
            if own.keys() != before.keys() or any(own[name] is not value for name, value in before.items()):
                own.clear()
                own.update(before)
        with torch.no_grad():
            for tensor, before_run in values.values():
                if not torch.equal(tensor, before_run):
                    tensor.copy_(before_run)

    return reset


class RandomOps(TorchDispatchMode):
    """Collects in `names` the ops that may have drawn from a random generator while the mode was on."""

    FUSED = ("attention", "rnn", "gru", "lstm")
    """Parts of the names of ops that have a dropout of their own, mostly switched off."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    @property
    def certain(self) -> bool:
        """Whether one of the ops surely drew."""
        return any(all(part not in name for part in self.FUSED) for name in self.names)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.names.add(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))
