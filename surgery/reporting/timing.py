"""Latencies as pictures: the distribution of every model's times, and the paired ratios with their intervals.

Shapes are kernel densities (`scipy.stats.gaussian_kde`, Scott's bandwidth) of the raw samples. The slowest and
fastest 0.5 %, and what lies beyond Tukey's fences (1977; of six IQR), are left out of the drawing and counted; the
tables hold all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surgery.latency.results import Benchmark, Cell, Row
from surgery.latency.statistics import Ratio, Summary
from surgery.latency.table import Grid, described, openings
from surgery.reporting.scales import Scale, linear, ratios

WIDTH, LEFT, HALF, TOP, STEP, HEADING, LABEL = 560, 4, 11, 34, 52, 38, 40
"""In pixels: a picture's width and margin, half the height of a shape, the first line, from line to line; from a line
to the next heading, and from that to its first line."""

FENCE = 6
"""Samples further than so many IQR beyond the quartiles are not drawn."""

ROOM = 1.6
"""The axis of ratios reaches so many times beyond the intervals, at most."""

POINTS = 80
"""Along the outline of a shape."""

SAMPLES = 2000
"""A density is made of at most so many samples, evenly drawn from the sorted ones."""

ZOOM = 1.25
"""Where the slowest is less than this many times the fastest, the axis of times does not start at 0."""


@dataclass(frozen=True)
class Shape:
    """A distribution, drawn.

    Attributes:
        outline: The path of an SVG element; "" where all samples are alike.
        low, median, high: Positions of the quartiles, `[pixels]`.
        y: The middle, `[pixels]`.
        left_out: How many samples lie beyond what is drawn.
    """

    outline: str
    low: float
    median: float
    high: float
    y: int
    left_out: int


@dataclass(frozen=True)
class Timed:
    """One model in one cell.

    Attributes:
        row: Its samples, or why there are none.
        summary: Median and spread; None without samples.
        ratio: The first model over this one; None for the first itself, and without samples.
        doubt: Why its times are doubtful, or "".
        shape: Its distribution.
    """

    row: Row
    summary: Summary | None
    ratio: Ratio | None
    doubt: str
    shape: Shape | None


@dataclass(frozen=True)
class Place:
    """A cell: its models on one axis of milliseconds; `left_out` samples lie beyond it."""

    cell: Cell
    timed: tuple[Timed, ...]
    scale: Scale | None
    from_zero: bool
    width: int
    height: int

    @property
    def left_out(self) -> int:
        """How many samples of all models lie beyond the axis."""
        return sum(one.shape.left_out for one in self.timed if one.shape is not None)


@dataclass(frozen=True)
class Compared:
    """A ratio on the scale of all; positions in pixels. `heading_y` is where its cell is named, on its first line."""

    cell: Cell
    first: str
    second: str
    ratio: Ratio
    shape: Shape
    low: float
    median: float
    high: float
    heading_y: int | None


@dataclass(frozen=True)
class Forest:
    """All ratios with the first model of their cell."""

    lines: tuple[Compared, ...]
    scale: Scale
    one: float
    width: int
    height: int


def places_of(benchmark: Benchmark) -> tuple[Place, ...]:
    """Every cell, with the distributions in it."""
    return tuple(_place(benchmark, cell) for cell in benchmark.cells)


def forest_of(places: Iterable[Place]) -> Forest | None:
    """The ratios in all cells; None where no two models were timed in one."""
    found = list(_ratios(places))
    if not found:
        return None
    middles = [_middle(drawn) for _, _, drawn, _ in found]
    ends = [end for *_, ratio in found for end in (ratio.low, ratio.high)]
    low, high = min(*ends, *(float(m[0]) for m in middles)), max(*ends, *(float(m[-1]) for m in middles))
    # a few wild pairs may not squeeze the rest into a corner
    low, high = max(low, min(ends) / ROOM), min(high, max(ends) * ROOM)
    scale = ratios(low, high, LEFT, WIDTH - LEFT)
    lines: list[Compared] = []
    y = 0
    for cell, row, drawn, ratio in found:
        heading = None if lines and lines[-1].cell is cell else y + HEADING if lines else 18
        y = y + STEP if heading is None else heading + LABEL
        low, median, high = (scale(value) for value in (ratio.low, ratio.median, ratio.high))
        first = cell.rows[0].model
        lines.append(Compared(cell, first, row.model, ratio, _shape(drawn, scale, y), low, median, high, heading))
    return Forest(tuple(lines), scale, scale(1), WIDTH, y + HALF + 8)


def _ratios(places: Iterable[Place]) -> Iterator[tuple[Cell, Row, NDArray[np.float64], Ratio]]:
    """Every timed model beside a timed first one, with the ratio of each pair."""
    for place in places:
        for one in place.timed:
            if one.ratio is not None:
                first, other = (np.asarray(row.latency_ms, np.float64) for row in (place.cell.rows[0], one.row))
                yield place.cell, one.row, first / other, one.ratio


def _place(benchmark: Benchmark, cell: Cell) -> Place:
    samples = {row.model: np.asarray(row.latency_ms, np.float64) for row in cell.rows if not row.failure}
    scale, from_zero = None, False
    if samples:
        middles = [_middle(one) for one in samples.values()]
        low, high = min(float(m[0]) for m in middles), max(float(m[-1]) for m in middles)
        from_zero = high > ZOOM * low
        scale = linear(0 if from_zero else low, high, LEFT, WIDTH - LEFT)
    first = cell.rows[0].model if cell.rows and not cell.rows[0].failure else None
    timed = []
    for row in cell.rows:
        if row.failure or scale is None:
            timed.append(Timed(row, None, None, "", None))
            continue
        ratio = None if first in (None, row.model) else benchmark.ratio_in(cell, str(first), row.model)
        drawn = sum(one.shape is not None for one in timed)
        shape = _shape(samples[row.model], scale, TOP + STEP * drawn)
        timed.append(Timed(row, row.summary(), ratio, cell.disturbance(row), shape))
    return Place(cell, tuple(timed), scale, from_zero, WIDTH, TOP + STEP * (len(samples) - 1) + HALF + 8)


def _middle(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is drawn, sorted: the middle 99 % of the samples, as far as they lie within the fences."""
    ordered = np.sort(samples)
    cut = int(len(ordered) * 0.005)
    ordered = ordered[cut : len(ordered) - cut]
    low, high = np.percentile(samples, [25, 75])
    reach = FENCE * (high - low)
    return np.asarray(ordered[(ordered >= low - reach) & (ordered <= high + reach)])


def _shape(samples: NDArray[np.float64], scale: Scale, y: int) -> Shape:
    middle = _middle(samples)
    middle = middle[(middle >= scale.low) & (middle <= scale.high)]
    low, median, high = (scale(float(p)) for p in np.percentile(samples, [25, 50, 75]))
    return Shape(_outline(middle, scale, y), low, median, high, y, len(samples) - len(middle))


def _outline(middle: NDArray[np.float64], scale: Scale, y: int) -> str:
    """The density of the samples above and below a line at `y`."""
    from scipy import stats  # slow to import

    at = np.log(middle) if scale.log else middle
    if len(at) < 3 or float(np.ptp(at)) <= 1e-9 * abs(float(at.max())):
        return ""
    thin = at[np.linspace(0, len(at) - 1, min(len(at), SAMPLES)).astype(np.int64)]
    if float(np.ptp(thin)) == 0:
        return ""
    grid = np.linspace(at[0], at[-1], POINTS)
    density = stats.gaussian_kde(thin)(grid)
    heights = HALF * density / density.max()
    xs = [scale(float(v)) for v in (np.exp(grid) if scale.log else grid)]
    upper = [f"{x:.1f} {y - h:.1f}" for x, h in zip(xs, heights, strict=True)]
    lower = [f"{x:.1f} {y + h:.1f}" for x, h in zip(xs, heights, strict=True)]
    return f"M{'L'.join([*upper, *reversed(lower)])}Z"


def tables_of(benchmark: Benchmark) -> tuple[tuple[str, Grid], ...]:
    """What stands beside the times, under the name of each table; those without a line are left out."""
    named = (("What opening them took", openings(benchmark)), ("The models that were timed", described(benchmark)))
    return tuple((label, grid) for label, grid in named if any(grid.sections))


def verdicts(ratios_shown: Sequence[Ratio]) -> str:
    """All verdicts in few words: `faster in 5 of 6, no difference in 1`."""
    counts: dict[str, int] = {}
    for ratio in ratios_shown:
        counts[ratio.verdict] = counts.get(ratio.verdict, 0) + 1
    order = sorted(counts.items(), key=lambda item: -item[1])
    whole = f" of {len(ratios_shown)}"
    return ", ".join(f"{verdict} in {n}{whole if number == 0 else ''}" for number, (verdict, n) in enumerate(order))
