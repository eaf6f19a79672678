"""Write the README's table from the committed results: `python -m benchmarks.readme`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.masked_vs_slim import RESULTS
from surgery import Benchmark

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- results: begin (python -m benchmarks.readme) -->", "<!-- results: end -->"


def table(facts: dict[str, Any]) -> str:
    """The results as markdown."""
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


def main() -> None:
    """Put the table between the README's markers."""
    before, _, rest = README.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n{table(json.loads(RESULTS.read_text()))}\n{END}{after}")


if __name__ == "__main__":
    main()
