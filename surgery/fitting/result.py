"""What training did: every loss, every epoch, every change of the model, as a value, a table and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import nn

from surgery.results import Result
from surgery.schedules import Change

FORMAT = "surgery.fitted/1"


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Attributes:
        round: Of the schedule, from 0 on; 0 without one.
        epoch: Within the round, from 0 on.
        step: How many optimizer steps were done at its end, over all rounds.
        loss: The mean over its samples of what was trained on (with a teacher: of the sum).
        lr: The learning rate of the first parameter group at its end.
        value: What `evaluate` said; None without one.
    """

    round: int
    epoch: int
    step: int
    loss: float
    lr: float
    value: float | None = None


@dataclass(frozen=True)
class Fitted:
    """A trained model and how it came about. It prints as a table.

    Attributes:
        model: The trained model: the one given, but where a cut had to hand back a captured graph.
        losses: The mean loss of every optimizer step, in order, over all rounds and processes.
        epochs: One by one.
        changes: Of the model while it was trained.
        best: The epoch that `evaluate` liked best since the model last changed; with `patience` its weights are the
            model's.
        stopped_early: Whether `patience` ended a round.
        resumed_at: At which step this run went on from a checkpoint; None where it began anew.
        steps: How many optimizer steps an epoch has.
        processes: How many processes trained.
        device: Where this one did.
        precision: In which forward and backward ran.
        notes: What a reader should know, a sentence each.
        format: Of the JSON.
        result: What was cut meanwhile, for `surgery.save`, `recover` and `report`; None where nothing was.
    """

    model: nn.Module
    losses: tuple[float, ...]
    epochs: tuple[Epoch, ...]
    changes: tuple[Change, ...] = ()
    best: Epoch | None = None
    stopped_early: bool = False
    resumed_at: int | None = None
    steps: int = 0
    processes: int = 1
    device: str = "cpu"
    precision: str = "float32"
    notes: tuple[str, ...] = ()
    format: str = FORMAT
    result: Result | None = None

    def as_dict(self) -> dict[str, Any]:
        """Everything but the model, as JSON has it; numbers that are not finite are None."""
        left = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name not in ("model", "result")
        }
        left["epochs"] = [asdict(epoch) for epoch in self.epochs]
        left["changes"] = [change.as_dict() for change in self.changes]
        left["best"] = None if self.best is None else asdict(self.best)
        found: dict[str, Any] = _plain({"model": type(self.model).__name__, **left})
        return found

    def to_json(self) -> str:
        """`as_dict` as text."""
        return json.dumps(self.as_dict(), allow_nan=False)

    def table(self) -> str:
        """A line per epoch, and one per change where it was made."""
        valued = any(epoch.value is not None for epoch in self.epochs)
        rounds = any(epoch.round for epoch in self.epochs)
        head = ["round"] * rounds + ["epoch", "steps", "loss", "lr"] + ["evaluate"] * valued
        rows: list[list[str]] = [head]
        for epoch in self.epochs:
            cells = [str(epoch.round + 1)] * rounds
            cells += [str(epoch.epoch + 1), str(epoch.step), f"{epoch.loss:.4g}", f"{epoch.lr:.3g}"]
            said = "–" if epoch.value is None else f"{epoch.value:.4g}" + " (best)" * (epoch == self.best)
            rows.append(cells + [said] * valued)
        widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        changes, told = list(self.changes), [lines[0]]
        for line, epoch in zip(lines[1:], self.epochs, strict=True):
            ended = (epoch.round, (epoch.epoch + 1) * self.steps)
            while changes and (changes[0].round, changes[0].step) < ended:
                told.append(_told(changes.pop(0)))
            told.append(line)
        return "\n".join([*told, *map(_told, changes)])

    def __str__(self) -> str:
        many = f"{self.processes} processes" if self.processes > 1 else "1 process"
        said = f"trained {type(self.model).__name__}: {len(self.losses)} steps in {self.precision}"
        said += f", {many} on {self.device}"
        lines = [said, *self.table().splitlines()]
        if self.resumed_at is not None:
            lines.append(f"  went on from a checkpoint at step {self.resumed_at}")
        if self.stopped_early:
            lines.append("  stopped early: evaluate no longer got better")
        return "\n".join(lines + [f"  note: {note}" for note in self.notes])


def _told(change: Change) -> str:
    if change.loss_masked is None or change.loss_slim is None:
        return f"  {change}"
    return f"  {change}; loss when masked {change.loss_masked:.6g}, when cut {change.loss_slim:.6g}"


def _plain(value: Any) -> Any:
    """The value with lists for tuples, and None for what JSON has no number for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
