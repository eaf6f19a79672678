"""Axes of pictures: from values to positions, with round ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

TICKS = 6
EDGE = 24
"""Pixels from an end of the picture within which words would stick out."""


@dataclass(frozen=True)
class Scale:
    """A straight line from values to positions along a picture.

    Attributes:
        low, high: The values at its ends.
        start, end: The positions there.
        log: Whether equal steps are equal ratios.
        ticks: Round values between the ends.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """The position of a value; beyond the ends, the end."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, self._inside(value)))
        return round(self.start + (self.end - self.start) * (value - low) / (high - low), 2)

    def _inside(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    @property
    def marks(self) -> tuple[tuple[float, str, str], ...]:
        """`(position, words, anchor)` of every tick; words at an end are anchored so that they stay inside."""
        return tuple((self(tick), _said(tick), self._anchor(self(tick))) for tick in self.ticks)

    @property
    def sides(self) -> tuple[tuple[float, str], ...]:
        """`(position, words)` of every tick of an axis that goes upwards."""
        return tuple((self(tick), _said(tick)) for tick in self.ticks)

    def _anchor(self, position: float) -> str:
        if abs(position - self.start) < EDGE:
            return "start"
        return "end" if abs(position - self.end) < EDGE else "middle"


def linear(low: float, high: float, start: float, end: float) -> Scale:
    """A scale whose ends are round numbers at or beyond `low` and `high`."""
    span = (high - low) or abs(high) or 1.0
    step = _round_step(span / TICKS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last += first == last
    ticks = tuple(float(f"{n * step:.12g}") for n in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], start, end, False, ticks)


def powers(low: float, high: float, start: float, end: float) -> Scale:
    """A scale of powers of ten that holds both positive values."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last += first == last
    stride = math.ceil((last - first) / TICKS)
    ticks = tuple(float(f"1e{n}") for n in range(first, last + 1, stride))
    return Scale(float(f"1e{first}"), float(f"1e{last}"), start, end, True, ticks)


def ratios(low: float, high: float, start: float, end: float) -> Scale:
    """A scale of ratios around 1: 2 lies as far from it as 0.5; ends with some room beyond both values."""
    low, high = min(low, 1 / 1.02), max(high, 1.02)
    room = (high / low) ** 0.08
    low, high = low / room, high * room
    if high / low < 1.6:
        step = _round_step((high - low) / TICKS)
        known = [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]
    else:
        finest = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,))
        several = [[m * 10.0**n for n in range(-6, 7) for m in steps if low <= m * 10.0**n <= high] for steps in finest]
        known = next((some for some in several if len(some) <= TICKS + 2), several[-1])
    return Scale(low, high, start, end, True, tuple(float(f"{v:.6g}") for v in known))


def _round_step(least: float) -> float:
    """The next of 1, 2, 5, 10, 20, ... from `least` up."""
    power = 10.0 ** math.floor(math.log10(least))
    return float(next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9)))


def _said(tick: float) -> str:
    if tick and (abs(tick) < 1e-3 or abs(tick) >= 1e5):
        return np.format_float_scientific(tick, trim="-", exp_digits=1).replace("e-", "e−").replace("e+", "e")
    return f"{tick:g}"
