"""Half of the dense model's latency, three times of three?

    python -m benchmarks.latency_targets             # half an hour; writes benchmarks/results/latency_targets.json
    python -m benchmarks.latency_targets resnet18 --runtimes onnxruntime --runs 1 --output quick.json

`surgery.choose(latency=0.5)` for ResNet-18 and ViT-S, with random weights that are others in each run, one thread,
batch 1. Each run starts without a table of widths. What it chose is cut, and measured again by `surgery.benchmark` in
processes of its own, longer than the search did: that figure is the one that counts.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import surgery
from benchmarks import torchvision_cpu  # noqa: F401  # before torchvision and timm
from surgery.deciding.aims import WITHIN
from surgery.latency.machine import load_average, this_machine
from surgery.targeting.store import FOLDER

RESULTS = Path(__file__).resolve().parent / "results" / "latency_targets.json"
NETS = ("resnet18", "vit_small_patch16_224")
RUNTIMES = ("onnxruntime", "eager")
TARGET = 0.5


def net_of(name: str, size: int = 224) -> tuple[nn.Module, torch.Tensor]:
    """A net of timm and its call."""
    import timm

    return timm.create_model(name).eval(), torch.randn(1, 3, size, size)


def ran(name: str, runtime: str, seed: int) -> dict[str, Any]:
    """One run, ready for JSON."""
    torch.manual_seed(seed)
    net, image = net_of(name)
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER] = folder
        began = time.perf_counter()
        plan = surgery.choose(net, image, latency=TARGET, runtime=runtime)
        seconds = time.perf_counter() - began
    slim = plan.apply(net)
    timed = surgery.benchmark({"dense": net, "slim": slim}, image, runtimes=runtime, min_seconds=8.0)
    ratio = timed.ratio("slim", "dense", runtime=runtime, batch=1)
    assert plan.aim is not None
    interval = f"{ratio.median:.4f} [{ratio.low:.4f}, {ratio.high:.4f}]"
    print(f"{name}, {runtime}, run {seed}: {interval}; {seconds:.0f} s", flush=True)
    rows = {row.model: row.summary().p50_ms for row in timed.cells[0].rows}
    return {
        "net": name, "runtime": runtime, "run": seed, "share": ratio.median, "low": ratio.low, "high": ratio.high,
        "dense_ms": rows["dense"], "slim_ms": rows["slim"], "said": plan.aim.share, "tried": plan.aim.tried,
        "seconds": seconds, "load": load_average(), "benchmark": json.loads(timed.to_json()),
    }  # fmt: skip


def table(facts: dict[str, Any]) -> str:
    """The results as markdown."""
    lines = [
        "| net | runtime | dense | slim, run by run | share of the dense latency (95 % interval) | built | took |",
        "|---|---|---|---|---|---|---|",
    ]
    for net, runtime in dict.fromkeys((one["net"], one["runtime"]) for one in facts["runs"]):
        runs = [one for one in facts["runs"] if (one["net"], one["runtime"]) == (net, runtime)]
        shares = "; ".join(f"{one['share']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for one in runs)
        slim = ", ".join(f"{one['slim_ms']:.1f} ms" for one in runs)
        built, took = (", ".join(f"{one[name]:.0f}" for one in runs) for name in ("tried", "seconds"))
        lines.append(f"| {net} | {runtime} | {runs[0]['dense_ms']:.1f} ms | {slim} | {shares} | {built} | {took} s |")
    good = sum(abs(one["share"] / TARGET - 1) <= WITHIN for one in facts["runs"])
    loads = [one["load"] for one in facts["runs"] if one["load"] is not None]
    how = (
        f"Asked for {TARGET}; {good} of {len(facts['runs'])} runs are within {WITHIN:.0%} of it. One thread, batch 1, "
        "random weights, widths in multiples of 8. Every run measures its own table of widths: that is part of what it "
        "*took*; then so many slim models were *built* and measured."
    )
    load = f", load average {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    return "\n".join(
        [*lines, "", how, "", f"Made on {facts['machine']}{load}; `python -m benchmarks.latency_targets`."]
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=list(NETS), help="names of timm")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    runs = [ran(net, runtime, run) for net in asked.nets for runtime in asked.runtimes for run in range(asked.runs)]
    facts = {"machine": str(this_machine()), "runs": runs}
    asked.output.write_text(json.dumps(facts, indent=1))
    print(table(facts))


if __name__ == "__main__":
    main()
