"""The compensation ladder as a picture: the error after each rung, beside what it was with the exact fold alone."""

from __future__ import annotations

from dataclasses import dataclass

from surgery.compensating.result import TOLD, Compensated, Rung
from surgery.reporting.scales import Scale, linear

WIDTH, LEFT, TOP, STEP, THICK = 560, 4, 26, 44, 14
"""In pixels: the picture's width and margin, the first bar, from bar to bar, and a bar's height."""


@dataclass(frozen=True)
class Bar:
    """A rung with its error; `end` is where the bar ends, in pixels."""

    rung: Rung
    told: str
    error: float
    y: int
    end: float


@dataclass(frozen=True)
class Ladder:
    """The rungs with errors, from top to bottom, and every rung in words; `won` is the share of the error that went."""

    bars: tuple[Bar, ...]
    rungs: tuple[tuple[str, Rung], ...]
    scale: Scale | None
    won: float | None
    width: int
    height: int
    thick: int = THICK


def ladder_of(found: Compensated) -> Ladder:
    """The picture; without bars where there was no data to take an error on."""
    errors = [rung.error for rung in found.ladder if rung.error is not None]
    scale = linear(0.0, max(errors), LEFT, WIDTH - LEFT) if errors else None
    bars = tuple(
        Bar(rung, TOLD[rung.name], rung.error, TOP + STEP * number, scale(rung.error))
        for number, rung in enumerate(found.ladder)
        if rung.error is not None and scale is not None
    )
    first, last = found.ladder[0].error, found.error
    won = 1 - last / first if first and last is not None else None
    told = tuple((TOLD[rung.name], rung) for rung in found.ladder)
    return Ladder(bars, told, scale, won, WIDTH, TOP + STEP * (len(bars) - 1) + THICK + 10)
