"""What compensating hands back: the masked model as it was repaired, and the ladder with the error after each rung."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from surgery.plans import Plan

TOLD = {
    "fold": "exact fold",
    "bias": "mean-activation bias",
    "lstsq": "least squares",
    "batchnorm": "BatchNorm statistics",
}
"""The rungs in their order, in words."""


@dataclass(frozen=True)
class Rung:
    """One rung of the ladder.

    Attributes:
        name: `"fold"`, `"bias"`, `"lstsq"` or `"batchnorm"`.
        error: On the held-out batches, after this rung: the root of the summed squared differences from the dense
            outputs over that of what these vary by; the mean over all outputs. None without data.
        evaluated: What the user's own function says after this rung, or None.
        layers: How many layers it changed.
        taken: Whether its changes were kept; a rung after which the error is larger is taken back.
        notes: What a reader should know, one sentence each.
    """

    name: str
    error: float | None
    evaluated: float | None = None
    layers: int = 0
    taken: bool = True
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compensated:
    """A masked model in its old shapes, repaired so that it computes what the dense one did as nearly as it can.

    Attributes:
        model: The model; `plan` cuts it exactly, and so does `surgery.shrink`.
        plan: The plan for this model: the same channels go.
        ladder: The rungs, the exact fold first.
        evaluated: What the user's own function says of the dense model, or None.
        fitted: How many samples were repaired with.
        held_out: How many the errors were measured on.
        notes: What a reader should know of the data.
    """

    model: nn.Module
    plan: Plan
    ladder: tuple[Rung, ...]
    evaluated: float | None = None
    fitted: int = 0
    held_out: int = 0
    notes: tuple[str, ...] = ()

    @property
    def error(self) -> float | None:
        """The error after the last rung that was kept; None without data."""
        return [rung.error for rung in self.ladder if rung.taken][-1]

    def table(self) -> str:
        """The ladder, a line per rung."""
        evaluated = self.evaluated is not None
        head = ["rung", "layers", "error"] + ["evaluate"] * evaluated
        rows = [["dense", "", "0"] + [_number(self.evaluated)] * evaluated]
        for rung in self.ladder:
            error = _number(rung.error) + ("" if rung.taken else " (taken back)")
            layers = "" if rung.name == "fold" else str(rung.layers)
            rows.append([TOLD[rung.name], layers, error] + [_number(rung.evaluated)] * evaluated)
        widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
        return "\n".join(line.rstrip() for line in lines)

    def __str__(self) -> str:
        if not self.held_out:
            return "compensated: exact fold alone, for there is no data"
        lines = [f"compensated with {self.fitted} samples, judged on {self.held_out}", *self.table().splitlines()]
        lines += [f"  {TOLD[rung.name]}: {note}" for rung in self.ladder for note in rung.notes]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, without the model and the plan."""
        return {
            "ladder": [asdict(rung) for rung in self.ladder],
            "error": self.error,
            "evaluated": self.evaluated,
            "fitted": self.fitted,
            "held_out": self.held_out,
            "notes": self.notes,
        }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
