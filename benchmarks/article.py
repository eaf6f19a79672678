"""The article's experiments: pruning under masks, lottery tickets, and what to try when masks make nothing faster.

    python -m benchmarks.article               # digits, three seeds; writes benchmarks/results/article.json
    python -m benchmarks.article --quick       # one seed, fewer levels: a few minutes; writes nothing unless --output
    python -m benchmarks.article --data mnist  # or cifar10: downloaded by torchvision

First four curves (`benchmarks/article_curves.py`): accuracy against the share of the weights that is gone, by magnitude
over all layers: at once, in rounds, as lottery tickets, and trained from the start under the mask that one pruning
found. Then the list of things to try (`benchmarks/article_things.py`): masked, other runtimes, int8, a smaller
architecture, distillation, channels that are cut, and these together, on accuracy against measured latency and size.
Everything is trained by `surgery.fit`, for as long: the dense net E epochs; each round of tuning T; whatever starts
anew E, the smaller architecture E + T, for it does not start from a trained net. The table says which of the article's
claims held.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import surgery
from benchmarks.article_curves import curves, trained
from benchmarks.article_picture import pictures
from benchmarks.article_table import table
from benchmarks.article_tasks import BATCH, TASKS, Task
from benchmarks.article_things import Tried, things, timed
from surgery.errors import SurgeryError
from surgery.latency.machine import this_machine

RESULTS = Path(__file__).resolve().parent / "results" / "article.json"
SEEDS = (0, 1, 2)
LEVELS = 8
TIMING = {"min_pairs": 40, "max_seconds": 40.0}
SHARES = (0.4, 0.2, 0.1)
"""Of the dense net's multiply-accumulates, that what is narrowed is left with."""


def measured(
    task: Task, seeds: Sequence[int], levels: int, shares: Sequence[float], output: Path | None, **timing: Any
) -> dict[str, Any]:
    """All facts, ready for JSON. Everything is made first, then timed seed by seed; written after each of these."""
    about = {"train": len(task.labels), "test": len(task.test_labels), "epochs": task.epochs, "tuning": task.tuning}
    facts: dict[str, Any] = {"machine": str(this_machine()), "data": task.name, "batch": BATCH, **about}
    facts |= {"dense": [], "points": [], "things": [], "benchmarks": []}
    tried: list[Tried] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            dense, early = trained(task, seed, task.epochs)
            right = task.accuracy(dense.eval())
            facts["dense"].append({"seed": seed, "accuracy": right})
            print(f"{task.name}, seed {seed}: dense {right:.2%}", flush=True)
            facts["points"] += curves(task, dense, early, seed, levels)
            tried.append(things(task, dense, seed, shares, Path(folder)))
        for one in tried:
            lines, benchmark = timed(one, **timing)
            facts["things"] += lines
            text = benchmark.to_json().replace(f"{folder}/", "")  # files are told by their names
            facts["benchmarks"].append({"seed": one.seed, "benchmark": json.loads(text)})
            if output is not None:
                output.write_text(json.dumps(facts))
    return facts


def reported(facts: dict[str, Any], drawn: Sequence[tuple[Path, str]], page: Path) -> Path:
    """The report page, with the pictures and the latencies of the last seed."""
    timed = surgery.Benchmark.from_json(json.dumps(facts["benchmarks"][-1]["benchmark"]))
    return surgery.report(page, benchmark=timed, figures=drawn, title=f"The article on {facts['data']}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=TASKS, default="digits")
    parser.add_argument("--quick", action="store_true", help="one seed, four levels, one size")
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--output", type=Path, help="the JSON file; pictures lie beside it")
    parser.add_argument("--report", type=Path, help="a page with the pictures and the latencies of the last seed")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    plain = not asked.quick and asked.data == "digits" and asked.seeds is None
    output = asked.output or (RESULTS if plain else None)
    seeds = tuple(asked.seeds) if asked.seeds else SEEDS[:1] if asked.quick else SEEDS
    try:
        levels, shares = (4, SHARES[1:2]) if asked.quick else (LEVELS, SHARES)
        timing = {"min_pairs": 20, "max_seconds": 10.0} if asked.quick else TIMING
        facts = measured(TASKS[asked.data](), seeds, levels, shares, output, **timing)
        print(table(facts))
        with tempfile.TemporaryDirectory() as folder:
            drawn = pictures(facts, Path(folder) / "article.json" if output is None else output)
            if asked.report is not None:
                print(f"report in {reported(facts, drawn, asked.report)}")
    except SurgeryError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
