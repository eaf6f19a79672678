"""Where in a model's code an op is called: the modules around it and the lines, read off the Python stack."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn

TORCH = f"{Path(torch.__file__).parent}{os.sep}"
LAYERS = f"{TORCH}nn{os.sep}modules{os.sep}"
CALLING = nn.modules.module.__file__
OURS = f"{Path(__file__).parent}{os.sep}"


Call = tuple[CodeType, int]
"""Code that was being run, and the offset of its instruction."""


def called(model: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`model(*args, **kwargs)`: the frame at which the walk up the stack ends."""
    return model(*args, **kwargs)


_CALL = called.__code__


class Places:
    """Where in the model's code an op is called: the modules around it, and the lines (read off the Python stack)."""

    def __init__(self, model: nn.Module) -> None:
        self.paths = {id(module): (path, type(module)) for path, module in reversed([*model.named_modules()])}
        self.modules: dict[FrameType, int] = {}

    def here(self) -> dict[str, Any]:
        """`nn_module_stack` and `stack_trace`, as `torch.export` leaves them with a node, and `calls`.

        Those are what the model's code was about, from the line that called the op out to the method of the innermost
        module: every frame's code, and its instruction.
        """
        frame: FrameType | None = sys._getframe(1)
        lines: list[str] = []
        inside: list[int] = []
        calls: list[Call] = []
        reached = False
        while frame is not None and frame.f_code is not _CALL:
            owner = self.modules.get(frame)
            if owner is None:
                owner = self.modules[frame] = self._owner(frame)
            if owner and (not inside or inside[-1] != owner):
                inside.append(owner)
            file = frame.f_code.co_filename
            if (file.startswith(LAYERS) and file != CALLING) or not file.startswith((TORCH, OURS)):
                lines.append(f'  File "{file}", line {frame.f_lineno}, in {frame.f_code.co_name}')
                if not reached:
                    calls.append((frame.f_code, frame.f_lasti))
            reached = reached or bool(owner)
            frame = frame.f_back
        stack = {str(owner): self.paths[owner] for owner in reversed(inside)}
        return {"nn_module_stack": stack, "stack_trace": "\n".join(reversed(lines)), "calls": tuple(calls)}

    def _owner(self, frame: FrameType) -> int:
        """The module whose method runs in this frame, or 0."""
        code = frame.f_code
        if not code.co_argcount or code.co_varnames[0] != "self":
            return 0
        owner = id(frame.f_locals.get("self"))
        return owner if owner in self.paths else 0
