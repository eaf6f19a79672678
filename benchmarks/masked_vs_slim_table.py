"""The headline table: how many times faster slim is than masked, a line per net, from the raw samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from surgery.latency.results import Benchmark, Cell

Facts = Mapping[str, Any]


def rows_of(facts: Facts) -> dict[str, Any]:
    """Facts by net; results of a single net, as they used to be written, are a row of that name."""
    if "nets" in facts:
        return dict(facts["nets"])
    return {"ResNet-18": {key: value for key, value in facts.items() if key != "net"}} if facts else {}


def table(facts: Facts) -> str:
    """A line per net, a column per runtime, device and batch."""
    rows = rows_of(facts)
    timed = {name: Benchmark.from_json(json.dumps(row["benchmark"])) for name, row in rows.items()}
    cells = [cell for benchmark in timed.values() for cell in benchmark.cells]
    columns = list(dict.fromkeys(_column(cell) for cell in cells if not all(row.failure for row in cell.rows)))
    heads = " | ".join(", ".join(str(part) for part in column) for column in columns)
    lines = [f"| net | parameters | MACs | {heads} |", "|---|---|---|" + "---|" * len(columns)]
    for name, row in rows.items():
        faster = {_column(cell): _faster(timed[name], cell) for cell in timed[name].cells}
        before, after = (f"{count / 1e6:.1f}" for count in row["params"])
        fewer = row["macs"][0] / row["macs"][1]
        words = [name, f"{before} M to {after} M", f"{fewer:.2f} times fewer", *(faster.get(c, "") for c in columns)]
        lines.append(f"| {' | '.join(words)} |")
    worst = max(row["relative_error_float64"] or 0.0 for row in rows.values())
    machines = "; ".join(dict.fromkeys(str(benchmark.machine) for benchmark in timed.values()))
    cuda = any(cell.device != "cpu" for cell in cells)
    source = "raw samples and intervals in `benchmarks/results/`, written by `make bench`."
    return "\n".join(
        [
            _caption(rows),
            "",
            *lines,
            "",
            f"Relative error of every slim net at most {worst:.0e} in float64. Measured on {machines}; {source}"
            + ("" if cuda else " CUDA was not measured."),
        ]
    )


def _caption(rows: Facts) -> str:
    """What is timed against what."""
    rounded = " or ".join(str(multiple) for multiple in dict.fromkeys(row["round_to"] for row in rows.values()))
    return (
        f"Half the channels of every group zeroed (where a name does not say otherwise), widths rounded to {rounded}: "
        "times by which the slim net is faster than the masked one (zeros baked in), in the same runtime, on one "
        "thread, interleaved:"
    )


def _column(cell: Cell) -> tuple[str, ...]:
    """The runtime, the precision where it is not float32, the device where it is not the processor, the batch."""
    precision = () if cell.precision == "float32" else (cell.precision,)
    device = () if cell.device == "cpu" else (cell.device,)
    return (cell.runtime, *precision, *device, *(() if cell.batch is None else (f"batch {cell.batch}",)))


def _faster(benchmark: Benchmark, cell: Cell) -> str:
    """Masked over slim; with the verdict where that is not plainly one of the two."""
    for row in cell.rows:
        if row.failure:
            return "not timed"
    ratio = benchmark.ratio_in(cell, "masked", "slim")
    plain = ratio.verdict in ("faster", "slower")
    return f"{ratio.median:.2f}" if plain else f"{ratio.median:.2f} ({ratio.verdict})"
