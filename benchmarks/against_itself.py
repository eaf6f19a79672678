"""A model against its own copy: does the harness see a difference where there is none, idle and under load?

    python -m benchmarks.against_itself             # half an hour; writes benchmarks/results/against_itself.json
    python -m benchmarks.against_itself --runs 5 --size 96 --output quick.json

Each run is a benchmark of its own, processes included. The load is other processes that compute without a pause, on one
core or on all of them.
"""

from __future__ import annotations

import argparse
import copy
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import surgery
from benchmarks.full_size import dense_net
from benchmarks.keeping import keep
from surgery.latency.machine import this_machine

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "against_itself.json"

BUSY = "while True: pass"
LIKE = 0.01
"""How far from 1 a ratio may be that is none."""


@contextmanager
def load(processes: int) -> Iterator[None]:
    """So many processes that compute without a pause, while the body runs."""
    running = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def conditions(cores: int) -> dict[str, int]:
    """Names of the conditions, and how many processes load the machine in each."""
    found = {"idle": 0, "one core loaded": 1}
    return found | ({f"all {cores} cores loaded": cores} if cores > 1 else {})


def run(size: int, runtimes: Sequence[str], seed: int, **clock: Any) -> list[dict[str, Any]]:
    """One benchmark of ResNet-18 against its copy; the ratio in each runtime."""
    torch.manual_seed(0)
    net = dense_net("resnet18").eval()
    models = {"a": net, "b": copy.deepcopy(net)}
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(seed))
    done = surgery.benchmark(models, x, runtimes=runtimes, seed=seed, **clock)
    return [
        {"runtime": cell.runtime, "sittings": len(cell.sittings), "load": [cell.load_start, cell.load_end]}
        | asdict(done.ratio_in(cell, "a", "b"))
        for cell in done.cells
    ]


def table(facts: Mapping[str, Any]) -> str:
    """A line per condition and runtime."""
    lines = [
        "| machine | runtime | runs | ratio within 1.00 ± 0.01 | ratios from, to | verdicts |",
        "|---|---|---|---|---|---|",
    ]
    for condition, runs in facts["conditions"].items():
        for runtime in dict.fromkeys(one["runtime"] for one in runs):
            here = [one for one in runs if one["runtime"] == runtime]
            medians = [one["median"] for one in here]
            near = sum(abs(median - 1) <= LIKE for median in medians)
            verdicts = Counter(one["verdict"] for one in here)
            told = ", ".join(f"{verdict} {count}" for verdict, count in verdicts.most_common())
            span = f"{min(medians):.3f}, {max(medians):.3f}"
            lines.append(f"| {condition} | {runtime} | {len(here)} | {near} | {span} | {told} |")
    return "\n".join([*lines, "", f"ResNet-18 at {facts['size']}, one thread. Measured on {facts['machine']}."])


def main() -> int:
    """Run, print, and write the results after each condition; 1 where a copy was called faster or slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="benchmarks on an idle machine")
    parser.add_argument("--loaded", type=int, default=10, help="benchmarks under each load")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--runtimes", nargs="+", default=["eager", "onnxruntime"])
    parser.add_argument("--seconds", type=float, default=3.0, help="the least time spent on each cell")
    parser.add_argument("--max-seconds", type=float, default=10.0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    sys.path.insert(0, str(HERE / "worker_site"))  # the processes that time need torchvision's classes, too
    machine = this_machine()
    facts: dict[str, Any] = {"machine": str(machine), "size": given.size, "conditions": {}}
    for condition, processes in conditions(machine.usable_cores).items():
        found: list[dict[str, Any]] = []
        with load(processes):
            runs = given.loaded if processes else given.runs
            for number in range(runs):
                print(f"{condition}: {number + 1} of {runs}", file=sys.stderr, flush=True)
                clock = {"min_seconds": given.seconds, "max_seconds": given.max_seconds}
                found += run(given.size, given.runtimes, number, **clock)
        facts["conditions"][condition] = found
        keep(given.output, facts, indent=None)
    print(table(facts))
    wrong = [one for runs in facts["conditions"].values() for one in runs if one["verdict"] in ("faster", "slower")]
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
