"""What a decision rests on: the coupling, what is read, and the rectangles and grids that have to stay whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from surgery.coupling import Coupling
from surgery.deciding.reads import Floats, Reading
from surgery.layout import Ids

Place = Callable[[str], str]
"""A node's place in words, for reasons."""


@dataclass(frozen=True)
class Case:
    """Everything that a decision rests on.

    Attributes:
        coupling: The coupling.
        readings: Every use, the last first.
        where: Names a node's place for people.
        run_time_values: For readings with borders, the constants in the run-time precision, `[g, i]`, by index.
    """

    coupling: Coupling
    readings: Sequence[Reading]
    where: Place
    run_time_values: dict[int, Floats] = field(default_factory=dict)

    @cached_property
    def rectangles(self) -> tuple[Rows, ...]:
        """Every rectangle of several rows once, the last first."""
        return tuple(rows for rows in self._rows if not rows.single)

    @cached_property
    def layers(self) -> Layers:
        """Everything that may not come to nothing."""
        rows = tuple(rows for rows in self._rows if rows.single)
        flat = [np.concatenate([channels.ravel() for channels in one.channels]) for one in rows]
        starts = np.cumsum([0, *(channels.size for channels in flat)])[:-1]
        return Layers(rows, np.concatenate([*flat, np.empty(0, np.int64)]), starts.astype(np.int64))

    @cached_property
    def outers(self) -> tuple[tuple[Ids, Ids, Ids, str], ...]:
        """Every grid in channels: its cells, the row and the column of each, and the node."""
        of = self.coupling.channel_of
        return tuple(
            (of[o.cells].ravel(), of[o.rows].ravel(), of[o.columns].ravel(), o.node) for o in self.coupling.outers
        )

    @cached_property
    def copies(self) -> tuple[tuple[Ids, Ids, str], ...]:
        """Copies in channels, what each is a copy of, and the node."""
        of = self.coupling.channel_of
        return tuple((of[c.copies].ravel(), of[c.originals].ravel(), c.node) for c in self.coupling.copies)

    @cached_property
    def _rows(self) -> tuple[Rows, ...]:
        found: dict[tuple[object, ...], Rows] = {}
        for uniform in self.coupling.uniforms[::-1]:
            channels = tuple(self.coupling.channel_of[array] for array in uniform.arrays)
            key = (uniform.rows_stay, *((each.shape, each.tobytes()) for each in channels))
            found.setdefault(key, Rows(channels, uniform.rows_stay, uniform.node))
        return tuple(found.values())


@dataclass(frozen=True)
class Rows:
    """A `Uniform` in channels: each `[rows, columns]`."""

    channels: tuple[Ids, ...]
    rows_stay: bool
    node: str

    @property
    def single(self) -> bool:
        """Whether it is one row: what is asked is only that something of it stays."""
        return all(channels.shape[0] == 1 for channels in self.channels)


@dataclass(frozen=True)
class Layers:
    """Single rows, one after the other: the channels of `rows[k]` begin at `starts[k]` in `channels`."""

    rows: tuple[Rows, ...]
    channels: Ids
    starts: Ids
