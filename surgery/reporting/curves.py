"""A sensitivity study as a picture: a line per group, a dot per share that it gave up, on one axis for all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from surgery.errors import InputError
from surgery.exporting.staging import staged
from surgery.reporting.rendering import check_page, environment
from surgery.reporting.scales import Scale, linear, powers
from surgery.sensitivities import EVALUATE, MEASURES, Curve, Sensitivity

WIDTH, LEFT, TOP, STEP, BOTTOM, SHARE, LETTERS = 560, 10, 84, 38, 26, 74, 58
"""In pixels: the width, the margin, the first line, from line to line, below the last, from share to share in the key;
and how many letters of a name are drawn."""

SMALL, LARGE = 3.5, 7.0
"""Radius of the dots of the smallest share and of the largest, `[pixels]`."""

STEEP = 300
"""Values that lie so many times apart are drawn on powers of ten."""


@dataclass(frozen=True)
class Dot:
    """A measurement: its place and size in pixels; `known` is False where it was no finite number."""

    ratio: float
    value: float | None
    x: float
    radius: float

    @property
    def known(self) -> bool:
        """Whether something finite was measured."""
        return self.value is not None


@dataclass(frozen=True)
class Line:
    """A group: its dots, the one of the largest share first, from `start` to `end` in pixels."""

    curve: Curve
    name: str
    y: int
    start: float
    end: float
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Curves:
    """All groups on one scale; `dense_x` is where the whole model lies, `key` a dot of every size with its share."""

    lines: tuple[Line, ...]
    scale: Scale
    dense: float
    dense_x: float
    anchor: str
    key: tuple[Dot, ...]
    told: str
    width: int
    height: int


def curves_of(found: Sensitivity) -> Curves | None:
    """The picture; None where no group was measured."""
    if not found.curves:
        return None
    values = [point.value for curve in found.curves for point in curve.points if point.value is not None]
    low, high = min([found.dense, *values]), max([found.dense, *values])
    steep = low > 0 and high > STEEP * low
    scale = (powers if steep else linear)(low, high, LEFT, WIDTH - LEFT)
    dense_x = scale(found.dense)
    worst = scale.start if found.measured == EVALUATE else scale.end
    radius = {
        ratio: SMALL + (LARGE - SMALL) * place / max(len(found.ratios) - 1, 1)
        for place, ratio in enumerate(found.ratios)
    }
    lines = []
    for number, curve in enumerate(found.curves):
        dots = tuple(
            Dot(point.ratio, point.value, worst if point.value is None else scale(point.value), radius[point.ratio])
            for point in reversed(curve.points)
        )
        places = [dense_x, *(dot.x for dot in dots)]
        name = curve.name if len(curve.name) <= LETTERS else f"…{curve.name[1 - LETTERS :]}"
        lines.append(Line(curve, name, TOP + STEP * number, min(places), max(places), dots))
    key = tuple(Dot(ratio, None, LEFT + 8 + SHARE * n, radius[ratio]) for n, ratio in enumerate(found.ratios))
    middle = (scale.start + scale.end) / 2
    return Curves(
        lines=tuple(lines),
        scale=scale,
        dense=found.dense,
        dense_x=dense_x,
        anchor="start" if dense_x < middle else "end",
        key=key,
        told=MEASURES[found.measured],
        width=WIDTH,
        height=TOP + STEP * (len(lines) - 1) + 16,
    )


def check_picture(path: Path | None) -> None:
    """Refuse a picture that cannot be drawn, before hours are spent on what it is to show.

    Raises:
        MissingExtraError: jinja2 is not installed.
        InputError: The path does not end in .svg.
    """
    if path is None:
        return
    check_page()
    if path.suffix.lower() != ".svg":
        raise InputError(
            f"the picture {str(path)!r} does not end in .svg", "write an .svg: browsers show and convert it"
        )


def draw(found: Sensitivity, path: Path, *, overwrite: bool) -> Path:
    """Write the picture as a file of its own.

    Raises:
        MissingExtraError: jinja2 is not installed.
        InputError: Nothing was measured, the path does not end in .svg, or the file cannot be written.
    """
    check_picture(path)
    drawn = curves_of(found)
    if drawn is None:
        raise InputError("no group was measured, so that there is nothing to draw", "measure one, or see the notes")
    with staged(path, overwrite=overwrite) as file:
        text = environment().get_template("sensitivity.svg").render(curves=drawn, found=found, bottom=BOTTOM)
        file.write_text(text, encoding="utf-8")
    return path
