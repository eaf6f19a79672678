"""How to train, checked before anything is spent on it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from surgery.errors import InputError

LrSchedule = str | Callable[[Optimizer, int], LRScheduler]
"""`"constant"`, `"cosine"`, `"onecycle"`, or a function of the optimizer and the steps of a round."""

KINDS = ("constant", "cosine", "onecycle")
PRECISIONS = {None: None, "float32": "no", "bf16": "bf16", "fp16": "fp16"}
"""What each `precision` is called by Accelerate; None: as the launcher says."""


@dataclass(frozen=True)
class Settings:
    """The numbers of a run; see `surgery.fit`."""

    epochs: int = 1
    lr: float = 1e-3
    weight_decay: float = 0.01
    lr_schedule: LrSchedule = "cosine"
    higher_is_better: bool = True
    patience: int | None = None
    precision: str | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    seed: int = 0
    checkpoints: Path | None = None
    checkpoint_every: int | None = None
    resume: bool = False

    def check(self, evaluated: bool) -> None:
        """Refuse what cannot be trained with.

        Raises:
            InputError: The setting is named, with its value.
        """
        for name in ("epochs", "accumulate", "patience", "checkpoint_every"):
            value = getattr(self, name)
            optional = name in ("patience", "checkpoint_every")
            if not (optional and value is None) and (not _whole(value) or value < 1):
                raise InputError(f"{name} is {value!r}", "give a whole number from 1 on")
        if not _whole(self.seed) or self.seed < 0:
            raise InputError(f"seed is {self.seed!r}", "give a whole number from 0 on")
        for name, least in (("lr", 0.0), ("weight_decay", 0.0), ("clip_norm", 0.0)):
            value = getattr(self, name)
            if name == "clip_norm" and value is None:
                continue
            if not isinstance(value, int | float) or not math.isfinite(value) or value < least:
                raise InputError(f"{name} is {value!r}", "give a number from 0 on")
        if self.clip_norm == 0:
            raise InputError("clip_norm is 0, so that nothing would move", "give a larger one, or None")
        if not callable(self.lr_schedule) and self.lr_schedule not in KINDS:
            way_out = f"give one of {', '.join(KINDS)}, or a function of (optimizer, steps)"
            raise InputError(f"lr_schedule is {self.lr_schedule!r}", way_out)
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}", "give 'float32', 'bf16' or 'fp16'")
        if self.patience is not None and not evaluated:
            raise InputError("patience has nothing to go by", "pass evaluate=, which says how good the model is")
        if self.checkpoints is None and (self.resume or self.checkpoint_every is not None):
            which = "resume" if self.resume else "checkpoint_every"
            raise InputError(f"{which} was given without a directory", "pass checkpoints=, a directory for them")

    def begun_with(self) -> dict[str, Any]:
        """What a run that goes on must have been begun with, by name."""
        names = "epochs lr weight_decay higher_is_better patience clip_norm accumulate seed".split()
        return {name: getattr(self, name) for name in names} | {"lr_schedule": told(self.lr_schedule)}


def told(value: Any) -> str:
    """A setting that may be a function or a class, in words that do not change from run to run."""
    return value if isinstance(value, str) else getattr(value, "__qualname__", type(value).__qualname__)


def written(value: Any) -> str:
    """Its repr without addresses, which change from run to run."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
