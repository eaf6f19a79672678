"""A file that was opened, as a module, for functions that expect one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from surgery.errors import InputError
from surgery.quantizing.float_file import Array, Feed, Slot


class AsModule(nn.Module):
    """Tensors in, by position or name, a tensor or a tuple of tensors out: the file's answer, on the CPU."""

    def __init__(self, run: Callable[[Feed], list[Array]], slots: Sequence[Slot]) -> None:
        super().__init__()
        self.names = [slot.name for slot in slots]
        self._run = run
        self.eval()

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the file.

        Raises:
            InputError: Inputs are missing, or the file refuses them.
        """
        given = dict(zip(self.names, args, strict=False)) | kwargs
        if missing := [name for name in self.names if name not in given]:
            raise InputError(f"the input {missing[0]!r} is missing", f"pass {', '.join(self.names)}")
        outputs = self._run({name: given[name].detach().cpu().numpy() for name in self.names})
        tensors = tuple(torch.from_numpy(output) for output in outputs)
        return tensors[0] if len(tensors) == 1 else tensors
