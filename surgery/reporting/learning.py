"""Training as pictures: the loss of every step, smoothed, the measure of every epoch, and where channels went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from surgery.reporting.scales import Scale, linear, powers

WIDTH, LEFT, RIGHT, TOP, HIGH = 560, 54, 12, 26, 190
"""In pixels: the width, the margins beside the axes, the top of the first picture, and the height of one."""

POINTS = 400
"""Along a line, at most: more cannot be told apart."""
SHARE = 0.02
"""Of all steps, what a loss is smoothed over."""
STEEP = 50
"""Losses that lie so many times apart are drawn on powers of ten."""
APART = 62
"""Words beside marks are so far from each other, at least, in pixels."""


class Trained(Protocol):
    """What `surgery.fit` hands back: epochs and changes are its `Epoch` and `Change`."""

    model: Any
    losses: Sequence[float]
    epochs: Sequence[Any]
    changes: Sequence[Any]
    best: Any
    stopped_early: bool
    resumed_at: int | None
    processes: int
    device: str
    precision: str
    notes: Sequence[str]


NEEDED = ("model", "losses", "epochs", "changes", "best", "stopped_early", "precision")
"""By these attributes it is known."""


@dataclass(frozen=True)
class Mark:
    """A change: where in all steps, in pixels, with a word for the picture and a sentence."""

    change: Any
    x: float
    word: str
    told: str
    anchor: str


@dataclass(frozen=True)
class Plot:
    """A line over all steps: its SVG path, `thin` the path of what it was smoothed from, dots as `(x, y, epoch)`."""

    scale: Scale
    path: str
    thin: str = ""
    dots: tuple[tuple[float, float, Any], ...] = ()


@dataclass(frozen=True)
class RoundTold:
    """A round of a schedule: what it began with, and how it ended."""

    number: int
    epochs: int
    steps: int
    last: Any
    change: Any


@dataclass(frozen=True)
class Learning:
    """All of a training that is drawn and told; `starts` are where rounds begin, but for the first, in pixels."""

    steps: Scale
    loss: Plot | None
    value: Plot | None
    smoothed: int
    marks: tuple[Mark, ...]
    starts: tuple[tuple[float, int], ...]
    rounds: tuple[RoundTold, ...]
    skipped: int
    width: int = WIDTH
    top: int = TOP
    high: int = HIGH

    @property
    def cut(self) -> bool:
        """Whether any change was a cut."""
        return any(mark.change.plan is not None for mark in self.marks)

    @property
    def zeroed(self) -> bool:
        """Whether any change only masked."""
        return any(mark.change.plan is None for mark in self.marks)


def learning_of(found: Trained) -> Learning | None:
    """The pictures; None where not one step was done."""
    if not found.losses:
        return None
    losses = np.asarray(found.losses, np.float64)
    steps = linear(0, len(losses), LEFT, WIDTH - RIGHT)
    before = _before_rounds(found.epochs)
    window = max(1, round(SHARE * len(losses)))
    finite = np.isfinite(losses)
    valued = [(epoch, epoch.value) for epoch in found.epochs if epoch.value is not None]
    values = np.asarray([value for _, value in valued], np.float64)
    ends = [epoch.step for epoch, _ in valued]
    return Learning(
        steps=steps,
        loss=_losses(losses, finite, steps, window) if finite.any() else None,
        value=_values(values, ends, [epoch for epoch, _ in valued], steps) if np.isfinite(values).any() else None,
        smoothed=window,
        marks=_marks(found.changes, before, steps),
        starts=tuple((steps(at), number + 1) for number, at in sorted(before.items()) if number and at < len(losses)),
        rounds=_rounds(found, before),
        skipped=int((~finite).sum()),
    )


def _before_rounds(epochs: Iterable[Any]) -> dict[int, int]:
    """By round, how many steps were done before it."""
    done: dict[int, int] = {0: 0}
    for epoch in epochs:
        done[epoch.round + 1] = max(done.get(epoch.round + 1, 0), epoch.step)
    return done


def _losses(losses: NDArray[np.float64], finite: NDArray[np.bool_], steps: Scale, window: int) -> Plot:
    """The loss of every step, and the mean over the steps around it."""
    smooth = _smoothed(np.where(finite, losses, 0.0), finite, window)
    shown = losses[finite]
    low, high = np.percentile(shown, [0.5, 99.5]) if len(shown) > POINTS else (shown.min(), shown.max())
    low, high = min(float(low), float(np.nanmin(smooth))), max(float(high), float(np.nanmax(smooth)))
    steep = low > 0 and high > STEEP * low
    scale = (powers if steep else linear)(low, high, TOP + HIGH, TOP)
    places = np.arange(len(losses))
    thin = "" if window == 1 else _line(places, np.where(finite, losses, np.nan), steps, scale)
    return Plot(scale, _line(places, smooth, steps, scale), thin)


def _smoothed(values: NDArray[np.float64], counted: NDArray[np.bool_], window: int) -> NDArray[np.float64]:
    """The mean over a window around each step, of the steps that count; NaN where none does."""
    kernel = np.ones(window)
    total = np.convolve(values, kernel, mode="same")[: len(values)]
    count = np.convolve(counted.astype(np.float64), kernel, mode="same")[: len(values)]
    return np.where(count > 0.5, total / np.maximum(count, 1), np.nan)


def _values(values: NDArray[np.float64], ends: Sequence[int], epochs: Sequence[Any], steps: Scale) -> Plot:
    """What was measured at the end of every epoch."""
    finite = values[np.isfinite(values)]
    scale = linear(float(finite.min()), float(finite.max()), TOP + HIGH, TOP)
    dots = tuple(
        (steps(end), scale(float(value)), epoch)
        for end, value, epoch in zip(ends, values, epochs, strict=True)
        if np.isfinite(value)
    )
    return Plot(scale, _line(np.asarray(ends) - 1, values, steps, scale), dots=dots)


def _line(places: NDArray[np.int64], values: NDArray[np.float64], steps: Scale, scale: Scale) -> str:
    """A path through the values at these steps, which breaks where there is none."""
    every = np.unique(np.linspace(0, len(values) - 1, min(len(values), POINTS)).astype(np.int64))
    parts, drawing = [], False
    for place in every:
        if np.isnan(values[place]):
            drawing = False
            continue
        at = f"{steps(float(places[place]) + 1):.1f} {scale(float(values[place])):.1f}"
        parts.append(("L" if drawing else "M") + at)
        drawing = True
    return "".join(parts)


def _marks(changes: Sequence[Any], before: Mapping[int, int], steps: Scale) -> tuple[Mark, ...]:
    marks: list[Mark] = []
    free = float(WIDTH + APART)
    for change in reversed(changes):  # from the last one, which says how much is gone in the end
        at = before.get(change.round, 0) + change.step
        x = steps(at)
        word = f"−{100 * change.amount:.0f} %" if free - x >= APART else ""
        free = x if word else free
        marks.append(Mark(change, x, word, f"before step {at}: {change}", "start" if x < WIDTH - APART else "end"))
    return tuple(reversed(marks))


def _rounds(found: Trained, before: Mapping[int, int]) -> tuple[RoundTold, ...]:
    told = []
    for number, group in groupby(found.epochs, key=lambda epoch: epoch.round):
        epochs = list(group)
        change = next((one for one in reversed(found.changes) if one.round == number), None)
        steps = epochs[-1].step - before.get(number, 0)
        told.append(RoundTold(number + 1, len(epochs), steps, epochs[-1], change))
    return tuple(told)
