"""Write the tables of README.md and benchmarks/README.md from the results: `python -m benchmarks.readme`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import analyzer, analyzer_table, large, masked_vs_slim, quantized, widths, widths_table, zoo, zoo_table
from surgery import Benchmark

README = Path(__file__).parent.parent / "README.md"
PAGE = Path(__file__).parent / "README.md"


@dataclass(frozen=True)
class Section:
    """A stretch of a page that is generated: the name in its markers, its results, and how they become markdown."""

    name: str
    results: Path
    table: Callable[[dict[str, Any]], str]
    page: Path = README

    @property
    def begin(self) -> str:
        """The marker above it."""
        return f"<!-- {self.name}: begin (python -m benchmarks.readme) -->"

    @property
    def end(self) -> str:
        """The marker below it."""
        return f"<!-- {self.name}: end -->"

    def text(self) -> str:
        """What stands between the markers."""
        if not self.results.exists():
            return "Not measured yet: `make bench`."
        return self.table(json.loads(self.results.read_text()))

    def written(self, text: str) -> str:
        """The page's text with this section made anew.

        Raises:
            ValueError: The markers are not there.
        """
        before, begin, rest = text.partition(self.begin)
        _, end, after = rest.partition(self.end)
        if not begin or not end:
            raise ValueError(f"{self.page} has no {self.begin} ... {self.end}: put both where the table belongs")
        return f"{before}{begin}\n{self.text()}\n{end}{after}"


def table(facts: dict[str, Any]) -> str:
    """Masked against slim, as markdown."""
    timed = Benchmark.from_json(json.dumps(facts["benchmark"]))
    machine = timed.machine
    params, macs = facts["params"], facts["macs"]
    summary = (
        f"Half the channels of every group of a {facts['net']} (224 x 224, widths rounded to {facts['round_to']}): "
        f"{params[0] / 1e6:.1f} M to {params[1] / 1e6:.1f} M parameters, {macs[0] / macs[1]:.2f} times fewer MACs, "
        f"relative error {facts['relative_error_float64']:.0e} in float64. Masked (zeros baked in) against slim, one "
        "thread:"
    )
    lines = [
        summary,
        "",
        "| runtime | batch | masked, median | slim, median | times faster (95 % interval) |",
        "|---|---|---|---|---|",
    ]
    for cell in timed.cells:
        ratio = timed.ratio_in(cell, "masked", "slim")
        masked, slim = (cell.row(name).summary().p50_ms for name in ("masked", "slim"))
        lines.append(
            f"| {cell.runtime} | {cell.batch} | {masked:.1f} ms | {slim:.1f} ms "
            f"| {ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) |"
        )
    source = "raw samples in `benchmarks/results/`, written by `make bench`. CUDA was not measured."
    lines += ["", f"Measured on {machine}; {source}"]
    return "\n".join(lines)


SECTIONS = (
    Section("results", masked_vs_slim.RESULTS, table),
    Section("analyzer", analyzer.RESULTS, analyzer_table.table),
    Section("large", large.RESULTS, large.table),
    Section("quantized", quantized.RESULTS, quantized.table),
    Section("widths", widths.RESULTS, widths_table.table),
    Section("architectures", zoo.RESULTS, zoo_table.summary),
    Section("zoo", zoo.RESULTS, zoo_table.table, PAGE),
    Section("preparations", zoo.RESULTS, zoo_table.preparations, PAGE),
)
BEGIN, END = SECTIONS[0].begin, SECTIONS[0].end


def main() -> None:
    """Make every section anew."""
    for section in SECTIONS:
        section.page.write_text(section.written(section.page.read_text()))


if __name__ == "__main__":
    main()
