"""What removers make of masked nets: torch-pruning, torch.ao's structured pruner, torch-simplify, and ours.

    python -m benchmarks.peers                          # five minutes; writes benchmarks/results/peers.json
    python -m benchmarks.peers LSTM "depthwise block" --sides surgery torch-pruning --output quick.json

`pip install 'surgery[peers]'` installs torch-simplify; where a package is not installed its column says so. Each net
and tool has a process and a time limit of its own. Every slim net is held against the masked one on fresh inputs, of
other batch sizes and then of another resolution or length, by code that shares nothing with our proof. Ours must be
exact in float64 and in float32 (errors over the spread of the outputs, 1e-9, and 1e-5 or the masked net's own
rounding), the others in float32. Exits with 1 where ours is not exact everywhere, or finds nothing where something is
dead.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.keeping import keep, kept
from benchmarks.peers_lines import LINES
from benchmarks.peers_sides import OURS, SIDES, examined, version_of
from benchmarks.peers_table import cell, page_table
from benchmarks.processes import finished
from surgery.latency.machine import this_machine

RESULTS = Path(__file__).resolve().parent / "results" / "peers.json"
LIMIT_S = 600.0
PRELOADED = ("benchmarks.peers_sides", "torch_pruning")

Rows = dict[str, dict[str, Any]]
"""Facts by line and side."""


def faults(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Where ours is not what it must be, and why."""
    return [f"{name}: {why}" for name, row in rows.items() if OURS in row and (why := fault(name, row[OURS]))]


def fault(name: str, facts: Mapping[str, Any]) -> str:
    """Why our cell of a line is not right; "" where it is."""
    if "failed" in facts:
        return str(facts["failed"])
    places = [facts[place] for place in ("alike", "elsewhere") if place in facts]
    if len(places) < 1 + bool(LINES[name].elsewhere):
        return "it was not judged"
    for found in places:
        if why := found.get("failed") or found["fault"]:
            return str(why)
    before, after = facts["params"]
    if LINES[name].untouched:
        return "" if after == before else "it removed what is alive"
    return "" if after < before else "it removed nothing"


def main() -> int:
    """Examine, keep, print; 1 where ours is not exact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="*", metavar="line", help="as in the table; all by default")
    parser.add_argument("--sides", nargs="+", choices=tuple(SIDES), default=[*SIDES])
    parser.add_argument("--limit", type=float, default=LIMIT_S, help="seconds for one net and tool")
    parser.add_argument("--output", type=Path, default=RESULTS, help="what it holds already stays, but for these lines")
    options = parser.parse_args()
    if unknown := [name for name in options.lines if name not in LINES]:
        parser.error(f"no line {unknown[0]!r}; there are {', '.join(LINES)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    names = options.lines or [*LINES]
    before = kept(options.output)
    rows: Rows = before.get("rows", {})
    versions = before.get("versions", {}) | {side: version_of(side) for side in options.sides}
    for side in options.sides:
        done = finished(partial(examined, side), names, jobs=1, limit_s=options.limit, preloaded=PRELOADED)
        for name, facts in done:
            rows.setdefault(name, {})[side] = facts
            print(f"{side}: {name}: {cell(facts).replace('**', '')}", file=sys.stderr, flush=True)
            keep(options.output, ordered(rows, versions))
    print(page_table(ordered(rows, versions)))
    wrong = faults({name: rows[name] for name in names})
    print(*wrong, sep="\n", file=sys.stderr)
    return int(bool(wrong))


def ordered(rows: Rows, versions: Mapping[str, str]) -> dict[str, Any]:
    """The rows in the order of the list, with what they were made on."""
    sides = [side for side in SIDES if side in versions]
    return {
        "machine": str(this_machine()),
        "torch": torch.__version__,
        "versions": {side: versions[side] for side in sides},
        "rows": {name: {s: rows[name][s] for s in sides if s in rows[name]} for name in LINES if name in rows},
    }


if __name__ == "__main__":
    sys.exit(main())
