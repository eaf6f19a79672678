"""Every architecture of the zoo: half of every group masked, shrunk, and judged without the package's own proof.

    python -m benchmarks.zoo                        # all of them, and torch-pruning beside; an hour on two cores
    python -m benchmarks.zoo Llama "Swin v2"        # some, merged into the results
    python -m benchmarks.zoo --missing --jobs 2     # those that the results do not have yet
    python -m benchmarks.zoo --parts preparations   # the convolutional families, masked in two more ways
    python -m benchmarks.zoo --parts quick --failed # ours without exports, again where it failed

Exact means: in float64 to 1e-9 of the output's spread, in float32 to the masked net's own rounding, on fresh inputs of
other batch sizes and, where the net takes them, other lengths or resolutions. Each net has a process and a time limit
of its own; results are written after each.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.architectures import ARCHITECTURES
from benchmarks.families import BY_NAME
from benchmarks.keeping import keep, kept
from benchmarks.processes import finished
from benchmarks.zoo_peer import PACKAGE
from benchmarks.zoo_row import PARTS, one_part
from benchmarks.zoo_table import line

RESULTS = Path(__file__).resolve().parent / "results" / "zoo.json"
LIMITS_S = {"ours": 120.0, "quick": 120.0, "preparations": 600.0, "peer": 60.0}
"""Wall time for one net: our part of the table, the same without exports, the other preparations, torch-pruning."""


def merged(row: Mapping[str, Any], part: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A row with one part measured again; the other parts stay."""
    if part in ("ours", "quick"):
        return {**facts, **{key: row[key] for key in ("preparations", "peer") if key in row}}
    return {**row, "peer": dict(facts)} if part == "peer" else {**row, **facts}


def of_part(part: str, names: Sequence[str]) -> list[str]:
    """The names that a part is about."""
    return [name for name in names if part != "preparations" or name in BY_NAME]


def wanted(options: argparse.Namespace, part: str, rows: Mapping[str, Any]) -> list[str]:
    """The names that a part is to be measured for."""
    names = of_part(part, options.names or [*ARCHITECTURES])
    has = {"ours": "net", "quick": "net", "preparations": "preparations", "peer": "peer"}[part]
    if options.missing:
        names = [name for name in names if has not in rows.get(name, {})]
    if options.failed:
        names = [name for name in names if "failed" in rows.get(name, {"failed": ""})]
    return names


def main() -> int:
    """Examine, keep, print; 1 where something of ours failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="architecture", help="as in the table; all by default")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["ours", "peer"])
    parser.add_argument("--missing", action="store_true", help="only what the results do not have yet")
    parser.add_argument("--failed", action="store_true", help="only what failed in the results")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time, one thread each")
    parser.add_argument("--limit", type=float, help="seconds for one net; by default 120, and 60 for torch-pruning")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in ARCHITECTURES]:
        parser.error(f"no architecture {unknown[0]!r}; there are {', '.join(ARCHITECTURES)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    rows: dict[str, Any] = kept(options.output).get("rows", {})
    failed = False
    for part in options.parts:
        names, limit_s = wanted(options, part, rows), options.limit or LIMITS_S[part]
        done = finished(partial(one_part, part), names, jobs=options.jobs, limit_s=limit_s)
        for number, (name, facts) in enumerate(done, 1):
            rows[name] = merged(rows.get(name, {}), part, facts)
            failed |= part != "peer" and "failed" in facts
            print(f"{part} {number} of {len(names)}: {line(name, rows[name])}", file=sys.stderr, flush=True)
            written(options.output, rows)
    return int(failed)


def written(output: Path, rows: Mapping[str, Any]) -> None:
    """Write the rows in the order of the list."""
    ordered = {name: rows[name] for name in ARCHITECTURES if name in rows}
    facts = {"torch": torch.__version__, "python": platform.python_version(), "peer": PACKAGE, "rows": ordered}
    keep(output, facts)


if __name__ == "__main__":
    sys.exit(main())
