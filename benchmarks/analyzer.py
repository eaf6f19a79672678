"""How fast we are beside torch-pruning, how our time grows with the net, and how much memory the cut takes.

    python -m benchmarks.analyzer                  # 15 minutes; writes benchmarks/results/analyzer.json
    python -m benchmarks.analyzer --parts time --nets resnet18 --growth --rounds 3 --output quick.json

Time: on one thread, interleaved (ours, theirs | theirs, ours | ...), every stage apart, on the same net: a full-size
one with half of every group masked through a plan. Both get a fresh deep copy; neither that nor the masking is timed.
`benchmarks.stages` says what each side does: ours also finds out from the weights which channels are dead, and keeps
what they still add. The first round of each net is kept apart. Ratios are medians of paired ratios, theirs over ours,
with a 95 % interval: above 1 we are faster.

Memory: see `benchmarks.memory`.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import memory
from benchmarks.full_size import masked_net
from benchmarks.growth import GROWTH, grown
from benchmarks.laps import Laps
from benchmarks.stages import CHECK, OURS, PEER, ours_, peer_
from surgery.latency.machine import load_average, this_machine
from surgery.latency.statistics import Ratio, disturbance, paired_ratio
from surgery.progress import stage
from surgery.proof.cost import count_params

RESULTS = Path(__file__).resolve().parent / "results" / "analyzer.json"

TEN = (
    "resnet18",
    "resnet50",
    "resnet152",
    "vgg16_bn",
    "densenet121",
    "mobilenet_v2",
    "efficientnet_b0",
    "regnet_y_400mf",
    "googlenet",
    "inception_v3",
)
"""Few layers and many, wide and thin, chains and concatenations: its strong sides and its weak ones."""

MEMORY_NETS = ("vgg16_bn", "resnet152", "wide_resnet101_2")
"""Big enough that the weights, not the libraries, are what is measured."""

SLOW_S = {5.0: 5, 20.0: 3}
"""Where a first round of both takes longer than this, only so many rounds."""


@dataclass(frozen=True)
class Timed:
    """One net: its size, and every sample of both sides by stage, in ms.

    Attributes:
        net: Its name in torchvision.
        params: Before the cut.
        ops: Calls in the captured program.
        params_after: `(ours, theirs)`.
        forward_ms: One forward of the masked net, for scale.
        first: The first round, `{"ours": {stage: ms}, "theirs": {stage: ms}}`.
        ours: The other rounds, a list of samples by stage.
        theirs: Likewise.
        ours_cpu_ms: Processor time of each round, without the check.
        theirs_cpu_ms: Likewise.
    """

    net: str
    params: int
    ops: int
    params_after: tuple[int, int]
    forward_ms: float
    first: dict[str, dict[str, float]]
    ours: dict[str, list[float]]
    theirs: dict[str, list[float]]
    ours_cpu_ms: list[float]
    theirs_cpu_ms: list[float]

    @property
    def ours_ms(self) -> list[float]:
        """Capture to cut, by round."""
        return [sum(stages) for stages in zip(*(self.ours[name] for name in OURS), strict=True)]

    @property
    def theirs_ms(self) -> list[float]:
        """Graph and step, by round."""
        return [sum(stages) for stages in zip(*(self.theirs[name] for name in PEER), strict=True)]

    def median_ms(self, stage_name: str) -> float:
        """The median of one of our stages."""
        return statistics.median(self.ours[stage_name])

    @property
    def ratio(self) -> Ratio:
        """Theirs over ours."""
        pairs = {"ours": (self.ours_cpu_ms, self.ours_ms), "theirs": (self.theirs_cpu_ms, self.theirs_ms)}
        doubts = (f"{who}: {doubt}" for who, (cpu, wall) in pairs.items() if (doubt := disturbance(cpu, wall, 1)))
        return paired_ratio(self.theirs_ms, self.ours_ms, disturbed="; ".join(doubts))

    def __str__(self) -> str:
        stages = ", ".join(f"{name} {self.median_ms(name):.0f}" for name in OURS)
        ours, theirs = statistics.median(self.ours_ms), statistics.median(self.theirs_ms)
        return (
            f"{self.net}: ours {ours:.0f} ms ({stages}; then {CHECK} {self.median_ms(CHECK):.0f}), "
            f"theirs {theirs:.0f} ms; theirs over ours {self.ratio}"
        )


def timed(name: str, image: Tensor, rounds: int) -> Timed:
    """Both sides on one net, in turns, after a first round that is kept apart."""
    masked = masked_net(name, image)
    params, forward_ms = count_params(masked), _forward_ms(masked, image)
    began = time.perf_counter()
    (first, ops), after = _ours(masked, image)
    theirs, after_theirs = _theirs(masked, image)
    seconds = time.perf_counter() - began
    rounds = min([rounds, *(most for slow, most in SLOW_S.items() if seconds > slow)])
    result = Timed(
        net=name,
        params=params,
        ops=ops,
        params_after=(after, after_theirs),
        forward_ms=forward_ms,
        first={"ours": first.wall_ms, "theirs": theirs.wall_ms},
        ours={stage_name: [] for stage_name in (*OURS, CHECK)},
        theirs={stage_name: [] for stage_name in PEER},
        ours_cpu_ms=[],
        theirs_cpu_ms=[],
    )
    for turn in range(rounds):
        for side in ("ours", "theirs") if turn % 2 == 0 else ("theirs", "ours"):
            laps = _ours(masked, image)[0][0] if side == "ours" else _theirs(masked, image)[0]
            samples = result.ours if side == "ours" else result.theirs
            for stage_name, milliseconds in laps.wall_ms.items():
                samples[stage_name].append(milliseconds)
            cpu = result.ours_cpu_ms if side == "ours" else result.theirs_cpu_ms
            cpu.append(sum(milliseconds for key, milliseconds in laps.cpu_ms.items() if key != CHECK))
    return result


def _ours(masked: nn.Module, image: Tensor) -> tuple[tuple[Laps, int], int]:
    slim = copy.deepcopy(masked)
    return ours_(slim, masked, image), count_params(slim)


def _theirs(masked: nn.Module, image: Tensor) -> tuple[Laps, int]:
    pruned = copy.deepcopy(masked)
    return peer_(pruned, image), count_params(pruned)


def _forward_ms(net: nn.Module, image: Tensor) -> float:
    samples = []
    with torch.inference_mode():
        for _ in range(6):
            began = time.perf_counter()
            net(image)
            samples.append((time.perf_counter() - began) * 1000)
    return statistics.median(samples[1:])


def all_timed(names: Sequence[str], size: int, rounds: int) -> dict[str, Any]:
    """Every net, one after the other, each printed as it is done."""
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    timed("resnet18", torch.randn(1, 3, 64, 64), 1)  # imports and the first use of everything are nobody's time
    load, results = load_average(), []
    for number, name in enumerate(names, 1):
        with stage(f"{number} of {len(names)}: {name}"):
            results.append(timed(name, image, rounds))
        print(results[-1], flush=True)
    for growth in grown(results):
        print(growth, flush=True)
    return {
        "machine": str(this_machine()),
        "torch_pruning": memory.peer_version(),
        "threads": torch.get_num_threads(),
        "size": size,
        "load": [load, load_average()],
        "nets": [dataclasses.asdict(result) for result in results],
    }


def main() -> None:
    """Time and weigh, and keep every raw sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("time", "memory"), default=["time", "memory"])
    parser.add_argument("--nets", nargs="+", default=TEN, help="torchvision names")
    parser.add_argument("--growth", nargs="*", default=[n for names in GROWTH.values() for n in names])
    parser.add_argument("--memory-nets", nargs="+", default=MEMORY_NETS)
    parser.add_argument("--rounds", type=int, default=15, help="pairs of samples; fewer where a round takes over 5 s")
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes per memory figure")
    parser.add_argument("--size", type=int, default=224, help="height and width of the image")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    facts: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {}
    options.output.parent.mkdir(exist_ok=True)
    if "time" in options.parts:
        facts["time"] = all_timed(tuple(dict.fromkeys([*options.nets, *options.growth])), options.size, options.rounds)
        options.output.write_text(json.dumps(facts) + "\n")  # kept, should the rest fail
    if "memory" in options.parts:
        facts["memory"] = memory.all_weighed(options.memory_nets, options.size, options.repeats)
        options.output.write_text(json.dumps(facts) + "\n")
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
