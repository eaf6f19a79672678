"""Write the tables of README.md and benchmarks/README.md from the results: `python -m benchmarks.readme`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import (
    against_itself,
    analyzer,
    analyzer_table,
    article,
    article_table,
    choosing,
    choosing_table,
    compensated,
    large,
    latency_targets,
    masked_vs_slim,
    masked_vs_slim_table,
    peers,
    peers_table,
    quantized,
    widths,
    widths_table,
    zoo,
    zoo_table,
)

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


SECTIONS = (
    Section("results", masked_vs_slim.RESULTS, masked_vs_slim_table.table),
    Section("analyzer", analyzer.RESULTS, analyzer_table.table),
    Section("large", large.RESULTS, large.table),
    Section("quantized", quantized.RESULTS, quantized.table),
    Section("widths", widths.RESULTS, widths_table.table),
    Section("latency_targets", latency_targets.RESULTS, latency_targets.table),
    Section("architectures", zoo.RESULTS, zoo_table.summary),
    Section("peers", peers.RESULTS, peers_table.table),
    Section("itself", against_itself.RESULTS, against_itself.table, PAGE),
    Section("compensated", compensated.RESULTS, compensated.table, PAGE),
    Section("article", article.RESULTS, article_table.table, PAGE),
    Section("choosing", choosing.RESULTS, choosing_table.table, PAGE),
    Section("removers", peers.RESULTS, peers_table.page_table, PAGE),
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
