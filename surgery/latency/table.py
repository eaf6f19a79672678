"""A benchmark as text: one line per model and cell, then what to be careful about."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table

from surgery.latency.results import Benchmark, Cell, Row
from surgery.latency.statistics import WIDE_IQR

_COLUMNS = ("runtime", "threads", "device", "batch", "model", "p50", "p90", "samples/s")
_RIGHT = ("threads", "batch", "p90", "samples/s")


def render(benchmark: Benchmark) -> str:
    """The table, warnings, notes and the machine, as plain text."""
    first = next((cell.rows[0].model for cell in benchmark.cells), "the first")
    table = Table(box=box.SIMPLE, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name in _RIGHT else "left", no_wrap=True)
    table.add_column(f"{first} / model [95 %]", no_wrap=True)
    for cell in benchmark.cells:
        for row in cell.rows:
            table.add_row(*_line(benchmark, cell, row))
        table.add_section()
    text = io.StringIO()
    # Wide enough for any name: a line that a pipe or a log wraps is better than one that lost its figures.
    Console(file=text, width=1000, color_system=None).print(table)
    lines = "\n".join(line.rstrip() for line in text.getvalue().splitlines()).strip("\n").splitlines()
    lines.append("")
    lines += [f"warning: {warning}" for cell in benchmark.cells for warning in _warnings(cell)]
    lines += [f"failed: {row.model} in {cell}: {row.failure}" for cell, row in _failed(benchmark)]
    lines += [f"note: {note}" for note in (*benchmark.notes, *_cell_notes(benchmark))]
    load = " to ".join("unknown" if n is None else f"{n:.2f}" for n in (benchmark.load_start, benchmark.load_end))
    return "\n".join([*lines, f"machine: {benchmark.machine}; load {load}"])


def _line(benchmark: Benchmark, cell: Cell, row: Row) -> list[str]:
    """One row of the table, in the order of its columns."""
    place = [cell.runtime, str(cell.threads), cell.device, "-" if cell.batch is None else str(cell.batch), row.model]
    if row.failure:
        return [*place, "failed", "", "", ""]
    summary, base = row.summary(), cell.rows[0]
    verdict = ""
    if row is not base and not base.failure:
        ratio = benchmark.ratio_in(cell, base.model, row.model)
        verdict = f"{ratio.median:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] {ratio.verdict}"
    per_second = summary.calls_per_s * (cell.batch or 1)
    return [
        *place,
        str(summary),
        f"{summary.p90_ms:.{2 if summary.p90_ms >= 1 else 4}f} ms",
        f"{per_second:.4g}",
        verdict,
    ]


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


def _failed(benchmark: Benchmark) -> Iterator[tuple[Cell, Row]]:
    return ((cell, row) for cell in benchmark.cells for row in cell.rows if row.failure)


def _cell_notes(benchmark: Benchmark) -> Iterator[str]:
    return (f"{cell}: {note}" for cell in benchmark.cells for note in cell.notes)
