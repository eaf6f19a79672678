"""What modules hand out while a model runs, listened to by hooks that are taken off whatever happens."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from surgery.distilling.targets import first_tensor
from surgery.errors import InputError

Features = dict[str, list[Tensor]]
"""By module name, what each of its calls handed out (of several tensors, the first)."""


@contextmanager
def listening(model: nn.Module, names: Sequence[str], whose: str) -> Iterator[Features]:
    """Record what some modules hand out, while the block runs; no hook is left afterwards.

    Args:
        model: The model.
        names: Names of its modules, as in `named_modules`.
        whose: What to call the model in errors: "student" or "teacher".

    Raises:
        InputError: It has no such module.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in names:
        if name not in modules:
            raise _unknown(name, modules, model, whose)
    features: Features = {name: [] for name in names}
    hooks = [modules[name].register_forward_hook(partial(_record, features[name])) for name in names]
    try:
        yield features
    finally:
        for hook in hooks:
            hook.remove()


def _record(calls: list[Tensor], _module: nn.Module, _args: Any, output: Any) -> None:
    found = first_tensor(output)
    if found is not None:
        calls.append(found)


def _unknown(name: str, modules: dict[str, nn.Module], model: nn.Module, whose: str) -> InputError:
    names = [one for one in modules if one]
    near = difflib.get_close_matches(name, names, 3) or [one for one in names if one.endswith(f".{name}")][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {len(names)}, such as {', '.join(names[:3])}"
    return InputError(f"the {whose} ({type(model).__name__}) has no module {name!r}", hint)
