"""Aims: a latency that a plan was chosen for, and what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass

WITHIN = 0.05
"""A latency this share of the target off, or less, has reached it."""


@dataclass(frozen=True)
class Aim:
    """A latency, asked for and measured.

    Attributes:
        asked: As the user gave it: `0.5`, `"12ms"`.
        target_ms: That in milliseconds, beside what the dense model took in the last measurement.
        dense_ms, slim_ms: Medians of the two, interleaved.
        share: Slim over dense, the median over pairs.
        low, high: Its 95 % interval.
        runtime, threads, device, batch: What it was measured in.
        machine: Where.
        tried: How many slim models were built and measured on the way.
        note: Why the target is missed, or what to know of the measurement; "" where there is nothing to say.
    """

    asked: float | str
    target_ms: float
    dense_ms: float
    slim_ms: float
    share: float
    low: float
    high: float
    runtime: str
    threads: int = 1
    device: str = "cpu"
    batch: int | None = None
    machine: str = ""
    tried: int = 0
    note: str = ""

    @property
    def off(self) -> float:
        """How far the slim model is off the target, over the target; above 0 it is too slow."""
        return self.share * self.dense_ms / self.target_ms - 1

    @property
    def reached(self) -> bool:
        """Whether it is within 5 % of the target."""
        return abs(self.off) <= WITHIN

    def __str__(self) -> str:
        batch = "" if self.batch is None else f", batch {self.batch}"
        place = f"{self.runtime}, {self.threads} thread{'s' * (self.threads > 1)}, {self.device}{batch}"
        verdict = "within 5 % of it" if self.reached else f"{abs(self.off):.0%} {'above' if self.off > 0 else 'below'}"
        measured = (
            f"{self.slim_ms:.3g} ms of {self.dense_ms:.3g} ms, {self.share:.3f} [{self.low:.3f}, {self.high:.3f}]"
        )
        note = f"; {self.note}" if self.note else ""
        return f"latency {self.asked} ({self.target_ms:.3g} ms) in {place}: measured {measured}: {verdict}{note}"
