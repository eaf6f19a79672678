"""Ways to choose what goes, at the same multiply-accumulates and by measured latency, each with the same tuning after.

    python -m benchmarks.choosing              # half an hour; writes benchmarks/results/choosing.json and choosing.png
    python -m benchmarks.choosing digits --seeds 0 --levels 0.4 --output quick.json

Two nets are trained with three seeds each (`benchmarks/choosing_tasks.py`). For each level, `latency-aware` chooses for
that share of the dense net's latency (ONNX Runtime, one thread). All others get as many multiply-accumulates as that
left: the same share of every group, one ranking over all groups by the norm of the weights, one by Taylor scores, and
torch-pruning's own pruner, by its norm and by its Taylor scores, within 1 % where its steps allow it. Then every net is
judged as it was cut, and after two epochs of tuning; ours also with the compensation ladder before that. All nets of a
task and a seed are timed together, interleaved.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

import surgery
from benchmarks.choosing_peer import pruned_by_peer
from benchmarks.choosing_table import picture, table
from benchmarks.choosing_tasks import TASKS, Task, loss
from surgery.errors import SurgeryError
from surgery.inputs import Inputs
from surgery.latency.machine import this_machine
from surgery.proof.cost import count_params, macs

RESULTS = Path(__file__).resolve().parent / "results" / "choosing.json"
SEEDS = (0, 1, 2)
RUNTIME = "onnxruntime"
SAMPLES = 512
"""Of what the net learnt from, so many are looked at for scores, and for the ladder."""

OURS: dict[str, dict[str, Any]] = {
    "uniform": {"global_": False, "importance": "l2"},
    "global l2": {"global_": True, "importance": "l2"},
    "global taylor": {"global_": True, "importance": "taylor"},
}
PEERS = ("torch-pruning l2", "torch-pruning taylor")


def examined(task: Task, seed: int, levels: tuple[float, ...]) -> Iterator[dict[str, Any]]:
    """One dense net, all that was made of it, ready for JSON."""
    torch.manual_seed(seed)
    dense = task.make()
    task.train_(dense, seed)
    x, inputs = task.example, Inputs.of(task.example)
    whole, right = macs(dense, inputs), task.accuracy(dense)
    print(f"{task.name}, seed {seed}: dense {right:.2%}, {whole:,} macs", flush=True)
    slim: dict[str, nn.Module] = {}
    for level in levels:
        plans = {"latency-aware": _aware(task, dense, level)}
        same = macs(plans["latency-aware"].apply(dense, x), inputs)
        for way, settings in OURS.items():
            plans[way] = surgery.choose(dense, x, macs=same, data=task.batches(SAMPLES), loss=loss, **settings)
        for way, plan in plans.items():
            found, slim[f"{way} {level}"] = _ours(task, dense, plan, seed)
            yield _told({"task": task.name, "seed": seed, "level": level, "way": way, "dense": right, **found}, whole)
        for way in PEERS:
            cut = pruned_by_peer(task, dense, same, way.split()[-1], SAMPLES)
            slim[f"{way} {level}"] = cut
            found = _judged(task, cut, seed) | {"params": count_params(cut), "macs": macs(cut, inputs)}
            found["off"] = found["macs"] / same - 1
            yield _told({"task": task.name, "seed": seed, "level": level, "way": way, "dense": right, **found}, whole)
    timed = surgery.benchmark({"dense": dense, **slim}, x, runtimes=RUNTIME, min_pairs=60, max_seconds=60)
    for name in slim:
        ratio = timed.ratio(name, "dense", runtime=RUNTIME, batch=timed.cells[0].batch)
        way, _, level_of = name.rpartition(" ")
        yield {
            "task": task.name, "seed": seed, "level": float(level_of), "way": way,
            "latency": ratio.median, "low": ratio.low, "high": ratio.high, "verdict": ratio.verdict,
        }  # fmt: skip
    yield {"task": task.name, "seed": seed, "benchmark": json.loads(timed.to_json())}


def _aware(task: Task, dense: nn.Module, level: float) -> surgery.Plan:
    settings: dict[str, Any] = {"importance": "taylor", "data": task.batches(SAMPLES), "loss": loss}
    plan = surgery.choose(dense, task.example, latency=level, runtime=RUNTIME, round_to=8, **settings)
    print(plan.aim, flush=True)
    return plan


def _ours(task: Task, dense: nn.Module, plan: surgery.Plan, seed: int) -> tuple[dict[str, Any], nn.Module]:
    """The net as it was cut, and with the ladder."""
    inputs = Inputs.of(task.example)
    cut = plan.apply(dense, task.example)
    repaired = surgery.compensate(dense, plan, task.example, data=task.batches(SAMPLES))
    climbed = repaired.plan.apply(repaired.model, task.example)
    with_ladder = {f"{name} with ladder": value for name, value in _judged(task, climbed, seed).items()}
    facts = {"params": count_params(cut), "macs": macs(cut, inputs), "aim": str(plan.aim or "")}
    return _judged(task, cut, seed) | with_ladder | facts, cut


def _judged(task: Task, net: nn.Module, seed: int) -> dict[str, Any]:
    """Accuracy as it is, and after tuning."""
    tuned = copy.deepcopy(net)
    task.train_(tuned, seed, tuning=True)
    return {"cut": task.accuracy(net), "tuned": task.accuracy(tuned)}


def _told(found: dict[str, Any], whole: int) -> dict[str, Any]:
    found["share_of_macs"] = found["macs"] / whole
    parts = [f"{name} {found[name]:.2%}" for name in ("share_of_macs", "cut", "tuned")]
    parts += [f"{name} {found[name]:.2%}" for name in ("cut with ladder", "tuned with ladder") if name in found]
    print(f"  {found['level']} {found['way']}: {', '.join(parts)}", flush=True)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TASKS), help=f"of {', '.join(TASKS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--levels", nargs="+", type=float, help="shares of the dense latency; each task has its own")
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    facts: dict[str, Any] = {"machine": str(this_machine()), "runtime": RUNTIME, "lines": [], "benchmarks": []}
    try:
        for seed in asked.seeds:
            for name in asked.tasks:
                task = TASKS[name]()
                for found in examined(task, seed, tuple(asked.levels or task.levels)):
                    facts["benchmarks" if "benchmark" in found else "lines"].append(found)
                written = {**facts, "lines": merged(facts["lines"])}
                asked.output.write_text(json.dumps(written, indent=1))  # so far: an interrupt loses one net
    except SurgeryError as error:
        raise SystemExit(str(error)) from error
    print(table(written))
    picture(written, asked.output.with_suffix(".png"))


def merged(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each net: what was judged, and what was timed."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in lines:
        found.setdefault(tuple(line[name] for name in ("task", "seed", "level", "way")), {}).update(line)
    return list(found.values())


if __name__ == "__main__":
    main()
