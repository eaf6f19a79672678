"""A benchmark as text: a line per model and cell, what each costs, then what to be careful about."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table

from surgery.latency.results import Benchmark, Cell, Row
from surgery.latency.statistics import WIDE_IQR

Line = Sequence[str]

USUAL = {"precision": "float32"}
"""What goes without saying where a whole column says it; in other columns nothing does."""


@dataclass(frozen=True)
class Grid:
    """Cells of text under their heads, in sections; columns that say nothing are left out."""

    heads: Line
    sections: Sequence[Sequence[Line]]
    left: frozenset[str] = frozenset({"runtime", "precision", "device", "model", "p50"})

    def kept(self) -> tuple[list[str], list[list[Line]]]:
        """Heads and lines of the columns that say something."""
        lines = [line for section in self.sections for line in section]
        shown = [i for i, head in enumerate(self.heads) if any(line[i] != USUAL.get(head, "") for line in lines)]
        return [self.heads[i] for i in shown], [[[line[i] for i in shown] for line in s] for s in self.sections]

    def text(self) -> str:
        """Aligned, for a terminal."""
        heads, sections = self.kept()
        table = Table(box=box.SIMPLE, pad_edge=False)
        for head in heads:
            aligned = "left" if head in self.left or "/" in head else "right"
            table.add_column(head, justify=aligned, no_wrap=True)  # type: ignore[arg-type]
        for section in sections:
            for line in section:
                table.add_row(*line)
            table.add_section()
        text = io.StringIO()
        # Wide enough for any name: a line that a pipe or a log wraps is better than one that lost its figures.
        Console(file=text, width=1000, color_system=None).print(table, markup=False)
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n")

    def markdown(self) -> str:
        """For a README."""
        heads, sections = self.kept()
        rules = ["---" if head in self.left or "/" in head else "---:" for head in heads]
        lines = [heads, rules, *(line for section in sections for line in section)]
        return "\n".join(f"| {' | '.join(word.replace('|', chr(92) + '|') for word in line)} |" for line in lines)


def render(benchmark: Benchmark) -> str:
    """The tables, warnings, notes and the machine, as plain text."""
    return "\n\n".join([*(grid.text() for grid in grids(benchmark)), "\n".join(_below(benchmark))])


def render_markdown(benchmark: Benchmark) -> str:
    """The same as Markdown."""
    below = "\n".join(f"- {line}" for line in _below(benchmark))
    return "\n\n".join([*(grid.markdown() for grid in grids(benchmark)), below])


def grids(benchmark: Benchmark) -> list[Grid]:
    """The latencies, what opening each model took, and the models."""
    found = [_latencies(benchmark), openings(benchmark), described(benchmark)]
    return [grid for grid in found if any(grid.sections)]


PLACE = ("runtime", "precision", "threads", "device", "batch")


def place_of(cell: Cell) -> list[str]:
    """The columns of `PLACE`."""
    return [
        cell.runtime,
        cell.precision,
        str(cell.threads),
        cell.device,
        "-" if cell.batch is None else str(cell.batch),
    ]


def _latencies(benchmark: Benchmark) -> Grid:
    first = next((cell.rows[0].model for cell in benchmark.cells if cell.rows), "the first")
    heads = (*PLACE, "model", "p50", "p90", "p99", "samples/s", "GPU", "launch", f"{first} / model [95 %]")
    sections = [[_latency(benchmark, cell, row) for row in cell.rows] for cell in benchmark.cells]
    return Grid(heads, sections)


def _latency(benchmark: Benchmark, cell: Cell, row: Row) -> list[str]:
    if row.failure:
        return [*place_of(cell), row.model, "failed", "", "", "", "", "", ""]
    summary, base = row.summary(), cell.rows[0]
    verdict = ""
    if row is not base and not base.failure:
        ratio = benchmark.ratio_in(cell, base.model, row.model)
        verdict = f"{ratio.median:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] {ratio.verdict}"
    per_second = summary.calls_per_s * (cell.batch or 1)
    tail = "" if summary.p99_ms is None else milliseconds(summary.p99_ms)
    on_device = [milliseconds(median) if median is not None else "" for median in (row.device_p50, row.host_p50)]
    return [
        *place_of(cell),
        row.model,
        str(summary),
        milliseconds(summary.p90_ms),
        tail,
        f"{per_second:.4g}",
        *on_device,
        verdict,
    ]


def openings(benchmark: Benchmark) -> Grid:
    """What opening each model took, and how close it comes to its own eager outputs and to the first model."""
    first = next((cell.rows[0].model for cell in benchmark.cells if cell.rows), "the first")
    heads = (*PLACE, "model", "load", "first call", "peak memory", "file", "error", f"top-1 as {first}")
    lines = [
        [
            *place_of(cell),
            row.model,
            "" if row.load_ms is None else milliseconds(row.load_ms),
            "" if row.first_ms is None else milliseconds(row.first_ms),
            "" if row.peak_bytes is None else megabytes(row.peak_bytes),
            "" if row.file_bytes is None else megabytes(row.file_bytes),
            "" if row.error is None else f"{row.error:.0e}",
            "" if row.top1 is None else f"{row.top1:.1%}",
        ]
        for cell in benchmark.cells
        for row in cell.rows
        if row.load_ms is not None and not row.failure
    ]
    return Grid(heads, [lines])


def described(benchmark: Benchmark) -> Grid:
    """The models themselves."""
    lines = [
        [
            model.name,
            model.kind,
            "" if model.params is None else f"{model.params:,}",
            "" if model.macs is None else f"{model.macs / 1e6:,.4g} M",
            "" if model.size_bytes is None else megabytes(model.size_bytes),
        ]
        for model in benchmark.models
    ]
    return Grid(("model", "what", "parameters", "MACs", "size"), [lines], frozenset({"model", "what"}))


def milliseconds(ms: float) -> str:
    """`12.34 ms`, `0.1234 ms`, `1234 ms`."""
    return f"{ms:.{4 if ms < 1 else 2 if ms < 1000 else 0}f} ms"


def megabytes(count: int) -> str:
    """`44.7 MB`."""
    return f"{count / 1e6:.{1 if count >= 1e6 else 3}f} MB"


def _below(benchmark: Benchmark) -> Iterator[str]:
    """Warnings, failures, notes, and the machine."""
    for cell in benchmark.cells:
        yield from (f"warning: {warning}" for warning in _warnings(cell))
    yield from _failures(benchmark.cells)
    if benchmark.interrupted:
        yield "note: interrupted; what had been measured until then is shown"
    yield from (f"note: {note}" for note in benchmark.notes)
    for cell in benchmark.cells:
        yield from (f"note: {cell}: {note}" for note in cell.notes)
        yield from (f"note: {row.model} in {cell}: {hint}" for row in cell.rows if (hint := cell.hint(row)))
        if cell.clocks:
            yield f"note: {cell}: GPU at {' and '.join(dict.fromkeys(map(str, cell.clocks)))}"
    load = " to ".join("unknown" if n is None else f"{n:.2f}" for n in (benchmark.load_start, benchmark.load_end))
    yield f"machine: {benchmark.machine}; load {load}"


def _failures(cells: Sequence[Cell]) -> Iterator[str]:
    """Rows without times, together where models or cells of one runtime fail for the same reason."""
    found: dict[tuple[str, str, str, str, str], list[Cell]] = {}
    for cell in cells:
        reasons: dict[str, list[str]] = {}
        for row in cell.rows:
            if row.failure:
                reasons.setdefault(row.failure, []).append(row.model)
        for why, models in reasons.items():
            who = "all models" if len(models) == len(cell.rows) > 1 else ", ".join(models)
            found.setdefault((cell.runtime, cell.precision, cell.device, who, why), []).append(cell)
    for (*_, who, why), where in found.items():
        more = f" and {len(where) - 1} more like it" if len(where) > 1 else ""
        yield f"failed: {who} in {where[0]}{more}: {why}"


def _warnings(cell: Cell) -> Iterator[str]:
    """Rows whose times scatter or were disturbed."""
    for row in cell.rows:
        if row.failure:
            continue
        summary = row.summary()
        if summary.wide:
            share = summary.iqr_ms / summary.p50_ms
            yield (
                f"{row.model} in {cell}: the IQR is {share:.0%} of the median (above {WIDE_IQR:.0%}); "
                "close other programs or raise min_seconds"
            )
        if doubt := cell.disturbance(row):
            yield f"{row.model} in {cell}: {doubt}; something else was running"
