"""The README's tables about widths, from the raw samples of `benchmarks.widths`."""

from __future__ import annotations

import json
import statistics
from typing import Any

from surgery.latency.results import Benchmark, Cell
from surgery.latency.statistics import Ratio

LIMIT = 0.02
"""How far slim over native may lie from 1."""
ODD = "1"
"""The column of the widths that were not rounded."""


def table(facts: dict[str, Any]) -> str:
    """Limit, then sweep, as markdown; a part that was not measured is left out."""
    parts = [limit_table(facts["limit"])] if "limit" in facts else []
    parts += [sweep_table(facts["sweep"])] if "sweep" in facts else []
    return "\n\n".join(parts)


def timed(facts: dict[str, Any]) -> Benchmark:
    """The raw samples of one net."""
    return Benchmark.from_json(json.dumps(facts["benchmark"]))


def limit_table(nets: list[dict[str, Any]]) -> str:
    """A line per net, runtime and batch."""
    rows = []
    for facts in nets:
        benchmark = timed(facts)
        rows += [(facts["net"], cell, benchmark.ratio_in(cell, "slim", "native")) for cell in benchmark.cells]
    within = sum(abs(ratio.median - 1) <= LIMIT for _, _, ratio in rows)
    headline = (
        f"A slim net over one of the same widths that was built natively ({nets[0]['keep_ratio']:.0%} of every group "
        f"kept, rounded to {nets[0]['round_to']}; 1 means that the cut costs nothing): within {LIMIT:.0%} of 1 in "
        f"{within} of {len(rows)} cells."
    )
    lines = [
        headline,
        "",
        "| net | runtime | batch | slim over native (95 % interval) |",
        "|---|---|---|---|",
    ]
    lines += [f"| {net} | {cell.runtime} | {cell.batch} | {interval(ratio, 3)} |" for net, cell, ratio in rows]
    return "\n".join(lines)


def interval(ratio: Ratio, digits: int) -> str:
    """`1.002 (0.998 to 1.004)`."""
    return f"{ratio.median:.{digits}f} ({ratio.low:.{digits}f} to {ratio.high:.{digits}f})"


def sweep_table(nets: list[dict[str, Any]]) -> str:
    """Size by multiple; time and time per MAC by cell and multiple; and what rounding bought in each runtime."""
    multiples = [key for key in nets[0]["macs"] if key != "dense"]
    headline = (
        f"{nets[0]['keep_ratio']:.0%} of every group kept, widths rounded up to a multiple. Medians, and picoseconds "
        "per MAC; the fastest of each line is bold:"
    )
    lines = [
        headline,
        "",
        f"| net | runtime | batch | {' | '.join(f'multiple of {key}' for key in multiples)} |",
        "|---|---|---|" + "---|" * len(multiples),
    ]
    for facts in nets:
        sizes = [f"{facts['params'][key] / 1e6:.2f} M, {facts['macs'][key] / 1e6:.0f} M" for key in multiples]
        lines.append(f"| {facts['net']} | parameters, MACs | | {' | '.join(sizes)} |")
        lines += [_line(facts, cell, multiples) for cell in timed(facts).cells]
    advice = [f"* {runtime}: {'; '.join(words)}." for runtime, words in _bought(nets, multiples).items()]
    lines += ["", "Times faster than with odd widths, the median over nets and batches (least to most):", "", *advice]
    lines += ["", f"Measured on {timed(nets[0]).machine}, one thread."]
    return "\n".join(lines)


def _line(facts: dict[str, Any], cell: Cell, multiples: list[str]) -> str:
    medians = {key: cell.row(key).summary().p50_ms for key in multiples}
    best = min(medians, key=medians.__getitem__)
    words = []
    for key, milliseconds in medians.items():
        per_mac = milliseconds * 1e9 / (facts["macs"][key] * (cell.batch or 1))
        bold = "**" if key == best else ""
        words.append(f"{bold}{milliseconds:.1f} ms{bold}, {per_mac:.0f}")
    return f"| {facts['net']} | {cell.runtime} | {cell.batch} | {' | '.join(words)} |"


def _bought(nets: list[dict[str, Any]], multiples: list[str]) -> dict[str, list[str]]:
    """By runtime, for every multiple: how many times faster than odd widths."""
    ratios: dict[str, dict[str, list[float]]] = {}
    for facts in nets if ODD in multiples else []:
        benchmark = timed(facts)
        for cell in benchmark.cells:
            by_multiple = ratios.setdefault(cell.runtime, {})
            for key in multiples:
                if key != ODD:
                    by_multiple.setdefault(key, []).append(benchmark.ratio_in(cell, ODD, key).median)
    return {
        runtime: [
            f"multiples of {key} {statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"
            for key, found in by_multiple.items()
        ]
        for runtime, by_multiple in ratios.items()
    }
