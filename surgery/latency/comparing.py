"""Two saved benchmarks beside each other: what became faster or slower since?

Between two runs lie hours, other processes and other programs, and nothing pairs their samples. So the margin is wider
than within one run, and the times over the first model, which are paired within each run, stand beside it: a machine
that was slower as a whole shows in the first and not in the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from surgery.errors import InputError
from surgery.latency.machine import Machine
from surgery.latency.results import Benchmark, Cell, Row
from surgery.latency.statistics import Ratio, unpaired_ratio
from surgery.latency.table import PLACE, Grid, milliseconds, place_of


@dataclass(frozen=True)
class Change:
    """One model in one cell of both.

    Attributes:
        cell: The new one.
        model: Its name.
        old_ms: Median then.
        new_ms: Median now.
        ratio: Old over new: above 1 it is faster now.
        old_over_first: Times faster than the first model, then; None for the first itself, or where that failed.
        new_over_first: The same now.
    """

    cell: Cell
    model: str
    old_ms: float
    new_ms: float
    ratio: Ratio
    old_over_first: float | None
    new_over_first: float | None


@dataclass(frozen=True)
class Comparison:
    """What changed between two benchmarks; `notes` say what could not be compared, and what else differs."""

    first: str
    changes: tuple[Change, ...]
    notes: tuple[str, ...]

    def grid(self) -> Grid:
        """As a table."""
        over = f"{self.first} / model"
        heads = (*PLACE, "model", "old", "new", "old / new [95 %]", f"{over}, old", f"{over}, new")
        return Grid(heads, [[_line(change) for change in self.changes]])

    def table(self) -> str:
        """For a terminal, with the notes below."""
        return "\n".join([self.grid().text(), "", *(f"note: {note}" for note in self.notes)]).rstrip()

    def markdown(self) -> str:
        """For an issue or a pull request."""
        return "\n".join([self.grid().markdown(), "", *(f"- note: {note}" for note in self.notes)]).rstrip()

    def __str__(self) -> str:
        return self.table()


def compare(old: Benchmark, new: Benchmark, *, any_machine: bool = False) -> Comparison:
    """Hold every model in every cell that both benchmarks have against its own past.

    Args:
        old: The earlier one.
        new: The later one.
        any_machine: Compare although the processors, cores or GPUs differ.

    Raises:
        InputError: The machines differ, or the two have no model and cell in common.
    """
    if not any_machine and old.machine.hardware != new.machine.hardware:
        told = "; ".join(_differences(old.machine, new.machine))
        raise InputError(f"they were measured on different machines: {told}", "pass any_machine=True to compare anyway")
    before = {cell.key: cell for cell in old.cells}
    pairs = [(before[cell.key], cell) for cell in new.cells if cell.key in before]
    changes = tuple(change for one, other in pairs for change in _changes(old, new, one, other))
    if not changes:
        listed = "; ".join(f"{', '.join(row.model for row in cell.rows)} in {cell}" for cell in new.cells[:3])
        raise InputError("they have no model and cell in common", f"measure the same again (the new one has {listed})")
    first = next(cell.rows[0].model for cell in new.cells if cell.rows)
    return Comparison(first, changes, tuple(_notes(old, new, changes)))


def _changes(old: Benchmark, new: Benchmark, one: Cell, other: Cell) -> Iterator[Change]:
    then = {row.model: row for row in one.rows if not row.failure}
    for row in other.rows:
        before = then.get(row.model)
        if row.failure or before is None:
            continue
        doubts = [
            f"{when}: {d}" for when, c, r in (("old", one, before), ("new", other, row)) if (d := c.disturbance(r))
        ]
        ratio = unpaired_ratio(before.latency_ms, row.latency_ms, disturbed="; ".join(doubts), seed=new.settings.seed)
        yield Change(
            other,
            row.model,
            before.summary().p50_ms,
            row.summary().p50_ms,
            ratio,
            _over_first(old, one, before),
            _over_first(new, other, row),
        )


def _over_first(benchmark: Benchmark, cell: Cell, row: Row) -> float | None:
    first = cell.rows[0]
    return (
        None if first.failure or first.model == row.model else benchmark.ratio_in(cell, first.model, row.model).median
    )


def _notes(old: Benchmark, new: Benchmark, changes: Sequence[Change]) -> Iterator[str]:
    """What differs beside the times."""
    yield from (f"{told} (old, new)" for told in _differences(old.machine, new.machine))
    facts = {model.name: model for model in old.models}
    for model in new.models:
        before = facts.get(model.name)
        if before is not None and (before.params, before.macs) != (model.params, model.macs):
            yield f"{model.name} is another model now: {before.params} parameters before, {model.params} now"
    compared = {(change.cell.key, change.model) for change in changes}
    for when, benchmark in (("old", old), ("new", new)):
        for cell in benchmark.cells:
            left = [row.model for row in cell.rows if (cell.key, row.model) not in compared]
            if left:
                yield f"only timed in the {when} one: {', '.join(left)} in {cell}"


def _differences(old: Machine, new: Machine) -> Iterator[str]:
    for field in fields(Machine):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before != after:
            yield f"{field.name} {before!r} and {after!r}"


def _line(change: Change) -> list[str]:
    ratio = change.ratio
    over = ["" if one is None else f"{one:.2f}x" for one in (change.old_over_first, change.new_over_first)]
    return [
        *place_of(change.cell),
        change.model,
        milliseconds(change.old_ms),
        milliseconds(change.new_ms),
        f"{ratio.median:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] {ratio.verdict}",
        *over,
    ]
