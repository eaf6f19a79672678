"""What a runtime adapter is: which file it opens, and how that becomes a call without arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from surgery.inputs import Inputs

Run = Callable[[], Any]
"""One forward pass on inputs that were bound before."""

Bind = Callable[[Inputs], Run]
"""An opened model: inputs in, the call on them out."""


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
class Setting:
    """What a model is opened for: the number of threads, the device, and the precision of its weights."""

    threads: int
    device: str = "cpu"
    precision: str = "float32"


def as_they_are(inputs: Inputs) -> Inputs:
    """The inputs themselves."""
    return inputs


@dataclass(frozen=True)
class Runtime:
    """One way of running a model.

    Attributes:
        name: As users write it.
        format: The export format that it opens; None where it runs the module itself.
        devices: The kinds of device that it can be measured on.
        precisions: Those that it knows.
        load: `(file, setting)`, in the measuring process.
        arrange: Lays out the inputs, once and outside the clock.
        lowers: Precisions that it makes itself, of a float32 file and float32 inputs.
        compiles: Whether loading or the first call compiles, which takes long, and is not done twice.
    """

    name: str
    format: str | None
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    load: Callable[[Path, Setting], Bind]
    arrange: Callable[[Inputs], Inputs] = as_they_are
    lowers: tuple[str, ...] = ()
    compiles: bool = False

    def written_in(self, precision: str) -> str:
        """The precision of the file that is to be timed in `precision`."""
        return "float32" if precision in self.lowers else precision
