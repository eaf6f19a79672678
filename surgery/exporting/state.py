"""The user's model stays as it is: an eval copy to work on, whose buffers are put back after each run."""

from __future__ import annotations

from typing import Self

import torch
from torch import nn

from surgery.errors import InputError
from surgery.masks import bake


def eval_copy(model: nn.Module) -> nn.Module:
    """A deep copy of `model` in eval mode, its masks and parametrizations baked (`torch.export` refuses their hooks).

    Raises:
        InputError: The model has no weights (meta device), or something inside it cannot be copied.
    """
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise InputError("the model is on the meta device: it has no weights", "load its weights first")
    return bake(model).eval()


class KeptState:
    """Puts a model's buffers back on leaving; `changed` then names those that the body had changed."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.changed: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        self._before = [
            (f"{prefix}.{name}" if prefix else name, module, name, buffer, buffer._version, buffer.clone())
            for prefix, module in self.model.named_modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        return self

    def __exit__(self, *_: object) -> None:
        changed = []
        for full_name, module, name, buffer, version, value in self._before:
            if module._buffers.get(name) is not buffer or buffer._version != version:
                changed.append(full_name)
                module._buffers[name] = buffer
                with torch.no_grad():
                    buffer.copy_(value)
        self.changed = tuple(changed)
