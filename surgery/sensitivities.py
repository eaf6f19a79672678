"""What a sensitivity study found: how much worse a model is without a share of each group, as a value and as JSON."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression
from torch import Tensor

from surgery.deciding.pick import Floats
from surgery.errors import InputError

FORMAT = "surgery.sensitivity/1"

EVALUATE, LOSS, ERROR = "evaluate", "loss", "error"

MEASURES = {
    EVALUATE: "what evaluate returns (more is better)",
    LOSS: "mean loss",
    ERROR: "error of the outputs beside the dense model's",
}
"""What can be measured, in words."""

APART = 1e-9
"""Channels whose loss is alike are this share of the largest rise apart, so that they keep their order."""


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        ratio: The share of the group that was to go.
        removed: How many channels went: whole heads and the like only.
        value: What was measured then; None where it was no finite number.
    """

    ratio: float
    removed: int
    value: float | None


@dataclass(frozen=True)
class Curve:
    """One group of channels that gave up more and more of them, all others whole.

    Attributes:
        name: The tensor that hands the channels out first, as reports name groups.
        axis: A `tensor:dim` that they live on.
        size: How many positions that has.
        channels: How many channels the group has.
        order: The position of every channel that may go, the one that goes first first.
        points: The measurements, the fewest channels first.
    """

    name: str
    axis: str
    size: int
    channels: int
    order: tuple[int, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Sensitivity:
    """How much worse a model is without a share of the channels of one group, group by group.

    It is an importance: `choose(..., importance=sensitivity, global_=True)`. The score of a channel is what the model
    was worse for giving it up, so that the scores of different groups are comparable as they are (`comparable`).
    Groups that were not measured stay whole.

    Attributes:
        model: The class of the model.
        measured: `"evaluate"`, `"loss"` or `"error"`.
        dense: What was measured of the whole model.
        importance: By which the channels of a group went, the lowest first.
        ratios: The shares that were asked for.
        samples: How many samples of the data it was measured on; 0 where `evaluate` brings its own.
        curves: One per group.
        notes: What a reader should know, a sentence each.
        interrupted: Whether it was ended before all groups were measured.
        format: Of the JSON file.
    """

    comparable: ClassVar[bool] = True

    model: str
    measured: str
    dense: float
    importance: str
    ratios: tuple[float, ...]
    samples: int
    curves: tuple[Curve, ...]
    notes: tuple[str, ...] = ()
    interrupted: bool = False
    format: str = FORMAT

    def rises(self, curve: Curve) -> tuple[float, ...]:
        """How much worse the model was at each point, at least 0 and never less than at the points before.

        Where nothing finite was measured, it counts as the worst of all points of all groups.
        """
        worst = max(rise for one in self.curves for point in one.points if (rise := self._rise(point)) is not None)
        found = [worst if (rise := self._rise(point)) is None else rise for point in curve.points]
        return tuple(itertools.accumulate([0.0, *found], max))[1:]

    def _rise(self, point: Point) -> float | None:
        if point.value is None:
            return None
        return self.dense - point.value if self.measured == EVALUATE else point.value - self.dense

    def scores(self, curve: Curve) -> Floats:
        """What the model is worse for giving up each channel that may go, in the order in which they do, `[n]`.

        The rises are interpolated (monotone cubic: Fritsch and Carlson, 1980); a whole group, which was not measured,
        counts as much as the worst point of all, or more where its own rise, straight on, comes further. The
        differences from channel to channel are made to grow (isotonic regression), so that the sum of the first k is
        at most the rise measured without them, and about that where the curve bends upwards.
        """
        n = len(curve.order)
        gone, rises = [0, *(point.removed for point in curve.points)], [0.0, *self.rises(curve)]
        if gone[-1] < n:
            slope = (rises[-1] - rises[-2]) / (gone[-1] - gone[-2])
            gone, rises = [*gone, n], [*rises, max(rises[-1] + slope * (n - gone[-1]), self._largest)]
        places = np.arange(n + 1)
        steps: Floats = isotonic_regression(np.diff(PchipInterpolator(gone, rises)(places))).x
        apart = APART * max(self._largest, APART) * places[1:] / n
        return np.maximum(steps, 0.0) + apart

    @property
    def _largest(self) -> float:
        return max(self.rises(curve)[-1] for curve in self.curves)

    def __call__(self, model: Any) -> Mapping[str, Tensor]:
        """Scores by `tensor:dim`, as an importance gives them: NaN where a channel may not go or was not measured."""
        found: dict[str, Tensor] = {}
        for curve in self.curves:
            values = found.setdefault(curve.axis, torch.full((curve.size,), math.nan, dtype=torch.float64))
            values[list(curve.order)] = torch.from_numpy(self.scores(curve))
        return found

    def table(self) -> str:
        """A line per group: what was measured without each share of it."""
        head = ["group", "channels", *(f"-{ratio:.0%}" for ratio in self.ratios)]
        rows = [head]
        for curve in self.curves:
            at = {point.ratio: "none" if point.value is None else f"{point.value:.4g}" for point in curve.points}
            rows.append([curve.name, str(curve.channels), *(at.get(ratio, "–") for ratio in self.ratios)])
        widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
        left, *right = widths
        return "\n".join(
            "  ".join([row[0].ljust(left), *(cell.rjust(width) for cell, width in zip(row[1:], right, strict=True))])
            for row in rows
        )

    def __str__(self) -> str:
        told = MEASURES[self.measured] + (f", on {self.samples} samples" if self.samples else "")
        lines = [f"sensitivity of {self.model}: {told}; {self.dense:.4g} when whole; lowest {self.importance} first"]
        if self.curves:
            lines += self.table().splitlines()
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines + ["  interrupted: the groups above are those that were measured"] * self.interrupted)

    def plot(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a picture, one small chart per group; an `.svg` that needs nothing beside it.

        Raises:
            MissingExtraError: jinja2 is not installed (the extra `report`).
            InputError: The path ends otherwise, or the file cannot be written.
        """
        from surgery.reporting.curves import draw

        return draw(self, Path(path), overwrite=overwrite)

    def to_json(self) -> str:
        """Everything, so that `from_json` gives an equal one."""
        return msgspec.json.encode(self).decode()

    @staticmethod
    def from_json(text: str | bytes) -> Sensitivity:
        """What `to_json` wrote.

        Raises:
            InputError: It is no such file, or its numbers do not fit together.
        """
        try:
            loaded = msgspec.json.decode(text, type=Sensitivity)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"this is not a saved sensitivity: {error}", "give a file that to_json wrote") from error
        for fault in _faults(loaded):
            raise InputError(f"this is not a valid sensitivity: {fault}", "give a file that to_json wrote")
        return loaded

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Sensitivity:
        """The one in a JSON file.

        Raises:
            InputError: The file cannot be read, or as `from_json`.
        """
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            raise InputError(
                f"{str(path)!r} cannot be read: {error.strerror}", "give a file that to_json wrote"
            ) from error
        try:
            return Sensitivity.from_json(text)
        except InputError as error:
            raise InputError(f"{str(path)!r}: {error.fact}", error.way_out) from error


def _faults(found: Sensitivity) -> Iterator[str]:
    """What types cannot tell."""
    if found.format != FORMAT:
        yield f"its format is {found.format!r}, this version reads {FORMAT!r}"
    if found.measured not in MEASURES:
        yield f"it measures {found.measured!r}, which is none of {', '.join(MEASURES)}"
    for curve in found.curves:
        if len(set(curve.order)) < len(curve.order) or not all(0 <= place < curve.size for place in curve.order):
            yield f"the order of {curve.name} names a position twice, or one outside of {curve.axis}"
        removed = [0, *(point.removed for point in curve.points), len(curve.order) + 1]
        if not curve.points or any(more <= less for less, more in itertools.pairwise(removed)):
            yield f"the points of {curve.name} do not grow from 1 to at most {len(curve.order)} channels"
