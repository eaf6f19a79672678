"""Which layers share channels, as a picture: a row for every layer, a line for every group of channels.

Drawn as version control draws its branches. A line runs from the first layer that its channels touch to the last; a
dot says that the layer writes them, a ring that it reads them. Lines take the leftmost lane that is free, so that a
residual stream is one long line at the left and what lives inside a block runs beside it for two rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from surgery.deciding.parts import GroupCut
from surgery.results import Result

ROW, LANE, MARGIN, LETTER, COLUMN = 22, 16, 14, 7.3, 160
"""Pixels from row to row, from lane to lane, around the picture, per letter of a name, and for a bar with its words."""

READS_FIRST = ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Conv1D", "Embedding", "EmbeddingBag")
"""Modules whose weights are read along dim 0 and write along dim 1."""


@dataclass(frozen=True)
class Mark:
    """A layer on a line: whether it writes the channels, reads them, or both; `x` and `y` in pixels."""

    x: int
    y: int
    role: str


@dataclass(frozen=True)
class Line:
    """A group of channels across the layers that share it; `state` is cut, stranded or whole."""

    group: GroupCut
    state: str
    x: int
    top: int
    bottom: int
    marks: tuple[Mark, ...]

    @property
    def kept(self) -> int:
        """How many of its channels stay."""
        return self.group.channels - self.group.removed


@dataclass(frozen=True)
class Row:
    """A layer: its place, and `(kept, total)` of the channels that it reads and writes; None where none are drawn."""

    name: str
    y: int
    first_x: int
    reads: tuple[int, int] | None
    writes: tuple[int, int] | None


@dataclass(frozen=True)
class Sharing:
    """The picture; sizes in pixels.

    Attributes:
        rows: Layers that share channels with another one, in the model's order.
        lines: Groups of channels that live on more than one of them.
        lone: How many more groups live on a single layer.
        names_x, reads_x, writes_x: Where the columns of words begin.
    """

    rows: tuple[Row, ...]
    lines: tuple[Line, ...]
    lone: int
    names_x: int
    reads_x: int
    writes_x: int

    @property
    def width(self) -> int:
        """The picture's width."""
        return self.writes_x + COLUMN

    @property
    def height(self) -> int:
        """The picture's height, with the heading of its columns."""
        return ROW * (len(self.rows) + 1) + MARGIN


def sharing_of(result: Result) -> Sharing | None:
    """The picture; None where no two layers share a channel."""
    kinds = {name: type(module).__name__ for name, module in result.model.named_modules()}
    order = {path: place for place, path in enumerate(dict.fromkeys(_layer(name) for name in result.plan.shapes))}
    roles = [(group, _roles(group, result, kinds)) for group in result.plan.groups]
    shared = [(group, touched) for group, touched in roles if len(touched) > 1]
    paths = sorted({path for _, touched in shared for path in touched}, key=lambda path: order[path])
    if not shared:
        return None
    place = {path: number for number, path in enumerate(paths)}
    spans = [(min(place[p] for p in touched), max(place[p] for p in touched)) for _, touched in shared]
    lanes = _lanes(spans)
    lines = tuple(
        _line(group, {place[path]: role for path, role in touched.items()}, span, lane)
        for (group, touched), span, lane in zip(shared, spans, lanes, strict=True)
    )
    names_x = MARGIN + LANE * (max(lanes) + 1) + 6
    longest = max(len(path or "the model") for path in paths)
    reads_x = names_x + round(LETTER * max(longest, 5)) + 24
    rows = tuple(_row(path, number, shared, lines) for path, number in place.items())
    return Sharing(rows, lines, len(roles) - len(shared), names_x, reads_x, reads_x + COLUMN)


def _layer(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def _roles(group: GroupCut, result: Result, kinds: dict[str, str]) -> dict[str, str]:
    """By layer, "reads", "writes" or "both". Vectors alone, as of norms, only go along and make no row."""
    found: dict[str, str] = {}
    for axis in group.axes:
        name, _, dim = axis.rpartition(":")
        path = _layer(name)
        if len(result.plan.shapes.get(name, ())) < 2:
            continue
        read_dim = 0 if kinds.get(path, "") in READS_FIRST else 1
        role = "reads" if int(dim) == read_dim else "writes"
        found[path] = role if found.get(path, role) == role else "both"
    return found


def _lanes(spans: list[tuple[int, int]]) -> list[int]:
    """The leftmost free lane for every span of rows; where several begin at once, the longest is first."""
    ends: list[int] = []
    lanes = [0] * len(spans)
    for index in sorted(range(len(spans)), key=lambda i: (spans[i][0], spans[i][0] - spans[i][1])):
        first, last = spans[index]
        free = next((lane for lane, end in enumerate(ends) if end < first), len(ends))
        ends[free : free + 1] = [last]
        lanes[index] = free
    return lanes


def _line(group: GroupCut, roles: dict[int, str], span: tuple[int, int], lane: int) -> Line:
    x = MARGIN + LANE * lane
    marks = tuple(Mark(x, _y(number), role) for number, role in sorted(roles.items()))
    state = "stranded" if group.stranded else "cut" if group.removed else "whole"
    return Line(group, state, x, _y(span[0]), _y(span[1]), marks)


def _y(number: int) -> int:
    """The middle of a row; the first is the heading."""
    return ROW * (number + 1) + ROW // 2


def _row(path: str, number: int, shared: list[tuple[GroupCut, dict[str, str]]], lines: tuple[Line, ...]) -> Row:
    here = [(group, touched[path]) for group, touched in shared if path in touched]
    y = _y(number)
    first_x = min(mark.x for line in lines for mark in line.marks if mark.y == y)
    return Row(
        name=path or "the model",
        y=y,
        first_x=first_x,
        reads=_sum(group for group, role in here if role in ("reads", "both")),
        writes=_sum(group for group, role in here if role in ("writes", "both")),
    )


def _sum(groups: Iterable[GroupCut]) -> tuple[int, int] | None:
    found = list(groups)
    if not found:
        return None
    return sum(group.channels - group.removed for group in found), sum(group.channels for group in found)
