"""Whether a slim net is as fast as its widths allow, and which widths are fast.

    python -m benchmarks.widths                    # half an hour; writes benchmarks/results/widths.json
    python -m benchmarks.widths --parts sweep --nets resnet18 --batch 1 --seconds 0.5 --output quick.json

Limit: a net with half of its channels, against one of the same widths that was built natively (`benchmarks.native`),
in each runtime. 1.00 is the limit: a slim net should cost what its widths cost, and nothing for having been cut.

Sweep: 45 % of the channels of every group are kept, which makes odd widths, rounded up to multiples of 1, 4, 8, 16 and
32. More channels are more MACs; where the time falls all the same, the odd widths hit a cliff. Ratios are paired and
interleaved, on one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import surgery
from benchmarks.full_size import dense_net
from benchmarks.native import resnet_like, vgg_like
from benchmarks.prepared import prepare_
from surgery.inputs import Inputs
from surgery.latency.results import Benchmark
from surgery.progress import stage
from surgery.proof.cost import cost, count_params

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "widths.json"

NATIVE: Mapping[str, Callable[[nn.Module], nn.Module]] = {"vgg16_bn": vgg_like, "resnet18": resnet_like}
"""Nets that can be built natively from the widths of a slim one."""
SWEPT = ("resnet18", "mobilenet_v2")
ROUND_TO = (1, 4, 8, 16, 32)
LIMIT_KEEP, LIMIT_ROUND_TO = 0.5, 8
SWEEP_KEEP = 0.45
"""Odd widths: 64 channels become 29, 512 become 230."""


@dataclass(frozen=True)
class Clock:
    """How to time: images `[1, 3, size, size]`, and the settings of `surgery.benchmark`."""

    size: int
    runtimes: Sequence[str]
    batch: Sequence[int]
    min_pairs: int
    seconds: float
    max_seconds: float

    @property
    def image(self) -> Tensor:
        """The example input."""
        return torch.randn(1, 3, self.size, self.size, generator=torch.Generator().manual_seed(0))

    def time(self, models: Mapping[str, nn.Module]) -> Benchmark:
        """All of them, interleaved."""
        return surgery.benchmark(
            models,
            self.image,
            runtimes=tuple(self.runtimes),
            batch_sizes=tuple(self.batch),
            min_pairs=self.min_pairs,
            min_seconds=self.seconds,
            max_seconds=max(self.max_seconds, self.seconds),
        )


def slimmed(name: str, image: Tensor, keep_ratio: float, round_to: int) -> nn.Module:
    """The net masked through a plan, and shrunk."""
    with stage(f"shrinking {name}, widths rounded to {round_to}"):
        dense = dense_net(name)
        masked = surgery.choose(dense, image, keep_ratio=keep_ratio, round_to=round_to).mask(dense)
        return surgery.shrink(masked, image, round_to=round_to, prove=False).model


def limit(name: str, clock: Clock) -> dict[str, Any]:
    """Slim against native.

    Raises:
        ValueError: The two do not multiply equally often, so that they are not the same net.
    """
    slim = slimmed(name, clock.image, LIMIT_KEEP, LIMIT_ROUND_TO)
    torch.manual_seed(0)
    native = prepare_(NATIVE[name](slim))
    costs = {kind: cost(net, Inputs.of(clock.image)) for kind, net in (("slim", slim), ("native", native))}
    if costs["slim"].macs != costs["native"].macs:
        counts = " and ".join(f"{found.macs} ({kind})" for kind, found in costs.items())
        raise ValueError(f"{name}: the native net is another one: MACs are {counts}")
    timed = clock.time({"slim": slim, "native": native})
    print(
        f"{name}, half of every group kept, rounded to {LIMIT_ROUND_TO}: slim over native",
        *limit_lines(timed),
        sep="\n",
    )
    return {
        "net": name,
        "keep_ratio": LIMIT_KEEP,
        "round_to": LIMIT_ROUND_TO,
        "macs": costs["slim"].macs,
        "params": {kind: found.params for kind, found in costs.items()},  # biases that folds made are the difference
        "benchmark": json.loads(timed.to_json()),
    }


def limit_lines(timed: Benchmark) -> list[str]:
    """Slim over native, a line per cell."""
    return [f"  {cell}: {timed.ratio_in(cell, 'slim', 'native')}" for cell in timed.cells]


def sweep(name: str, round_to: Sequence[int], clock: Clock) -> dict[str, Any]:
    """The dense net and the slim ones, interleaved."""
    nets = {"dense": dense_net(name)}
    nets |= {str(multiple): slimmed(name, clock.image, SWEEP_KEEP, multiple) for multiple in round_to}
    timed = clock.time(nets)
    facts = {
        "net": name,
        "keep_ratio": SWEEP_KEEP,
        "params": {key: count_params(net) for key, net in nets.items()},
        "macs": {key: cost(net, Inputs.of(clock.image)).macs for key, net in nets.items()},
        "benchmark": json.loads(timed.to_json()),
    }
    print(f"{name}, {SWEEP_KEEP:.0%} of every group kept, rounded to multiples", *sweep_lines(facts), sep="\n")
    return facts


def sweep_lines(facts: dict[str, Any]) -> list[str]:
    """Size, time, and time per MAC, a line per net and cell."""
    timed = Benchmark.from_json(json.dumps(facts["benchmark"]))
    lines = []
    for cell in timed.cells:
        lines.append(f"  {cell}")
        for key, macs in facts["macs"].items():
            milliseconds = cell.row(key).summary().p50_ms
            per_mac = milliseconds * 1e6 / (macs * (cell.batch or 1))
            size = f"{facts['params'][key] / 1e6:.2f} M parameters, {macs / 1e6:.0f} M MACs"
            lines.append(f"    {key:>5}: {milliseconds:8.2f} ms, {per_mac:.4f} ns per MAC, {size}")
    return lines


def main() -> None:
    """Time both parts, and keep every raw sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("limit", "sweep"), default=["limit", "sweep"])
    parser.add_argument("--native", nargs="+", choices=tuple(NATIVE), default=tuple(NATIVE), help="nets of the limit")
    parser.add_argument("--nets", nargs="+", default=SWEPT, help="nets of the sweep, by torchvision name")
    parser.add_argument("--round-to", type=int, nargs="+", default=ROUND_TO)
    parser.add_argument("--runtimes", nargs="+", default=("eager", "torchscript", "onnxruntime"))
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--pairs", type=int, default=50, help="the least number of rounds in each cell")
    parser.add_argument("--seconds", type=float, default=3.0, help="the least time spent on each cell")
    parser.add_argument("--max-seconds", type=float, default=30.0, help="the most, where the rounds are done")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()

    sys.path.insert(0, str(HERE / "worker_site"))  # the processes that time need torchvision's classes, too
    clock = Clock(options.size, options.runtimes, options.batch, options.pairs, options.seconds, options.max_seconds)
    facts: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {}
    options.output.parent.mkdir(exist_ok=True)
    if "limit" in options.parts:
        facts["limit"] = [limit(name, clock) for name in options.native]
        options.output.write_text(json.dumps(facts) + "\n")  # kept, should the rest fail
    if "sweep" in options.parts:
        facts["sweep"] = [sweep(name, options.round_to, clock) for name in options.nets]
        options.output.write_text(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
