"""What a runtime adapter is: how a model becomes a file, and how that file becomes a call without arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from surgery.inputs import Inputs

Run = Callable[[], Any]
"""One forward pass on inputs that were bound before."""


@dataclass(frozen=True)
class Call:
    """What is timed.

    Attributes:
        run: Exactly what the clock sees.
        reset: What must be done before each run, outside the clock, for a model that writes into its inputs.
    """

    run: Run
    reset: Callable[[], None] | None = None


@dataclass(frozen=True)
class Runtime:
    """One way of running a model.

    Attributes:
        name: As users write it.
        suffix: Of the file that `write` makes.
        devices: The kinds of device that it can be measured on.
        per_batch: Whether the file fits one batch size only.
        write: `(model, inputs, path)`, in the process of the caller.
        load: `(path, threads, device)`, in the measuring process; gives a function that binds inputs to a `Run`.
    """

    name: str
    suffix: str
    devices: tuple[str, ...]
    per_batch: bool
    write: Callable[[nn.Module, Inputs, Path], None]
    load: Callable[[Path, int, str], Callable[[Inputs], Run]]
