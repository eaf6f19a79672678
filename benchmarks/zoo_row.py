"""One row of the zoo: a net masked, shrunk, judged and exported; beside it what torch-pruning makes of it."""

from __future__ import annotations

import copy
import os
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import surgery
from benchmarks.architecture import Architecture
from benchmarks.architectures import ARCHITECTURES
from benchmarks.judging import UNDECIDED, distance, faults, widened
from benchmarks.preparations import PREPARATIONS, drawn, lively_
from benchmarks.zoo_peer import peer_facts
from surgery.analysis.graph_specs import graph_again
from surgery.cutting.cut import cut_
from surgery.deciding.atoms import picked_together
from surgery.errors import CheckError
from surgery.exporting.target import first_line
from surgery.inputs import Inputs
from surgery.masks import bake
from tests.exactness import Distance

EXPORTS = {"onnx": "slim.onnx", "torchscript": "slim.pt"}
FIRST, *OTHERS = PREPARATIONS
PEER_BYTES = 12 * 2**30
"""Address space for another tool, libraries included: where one never ends its memory grows, too."""


@dataclass(frozen=True)
class Case:
    """One net, masked and shrunk.

    Attributes:
        masked: The net with zeros in it.
        result: What `shrink` made of it, unproven: nothing was put back.
        seconds: What `shrink` took.
        distance: From masked to slim.
        fault: Why the slim net is not the masked one; "" where it is.
    """

    masked: nn.Module
    result: surgery.Result
    seconds: float
    distance: Distance
    fault: str

    def facts(self) -> dict[str, Any]:
        """For the results."""
        result = self.result
        errors = {f"{k}_error" if k.startswith("float") else k: v for k, v in asdict(self.distance).items()}
        return {
            "params": [result.params_before, result.params_after],
            "macs": [result.macs_before, result.macs_after],
            "stranded": sum(group.stranded for group in result.plan.groups),
            "kind": kind_of(result),
            "shrink_s": round(self.seconds, 2),
            "exact": None if self.fault.startswith(UNDECIDED) else not self.fault,
            **errors,
        }


def kind_of(result: surgery.Result) -> str:
    """`class` where the user's own class survives, `graph` where the captured program was handed back."""
    kind: str = getattr(result, "kind", "class")
    return kind


def net_of(architecture: Architecture) -> nn.Module:
    """The architecture's net, lively, the same every time."""
    return lively_(architecture.make(), drawn(architecture))


def shrunk(architecture: Architecture, masked: nn.Module) -> Case:
    """Shrink a masked net and judge the result."""
    example = architecture.inputs()
    began = time.perf_counter()
    result = surgery.shrink(masked, example.args, example.kwargs, prove=False)
    seconds = time.perf_counter() - began
    plain = bake(masked)  # a weight that is standardised is rounded, and what is folded is of the rounded one
    found = distance(plain, result.model, in_float64(plain, result.plan), _trials(architecture))
    return Case(masked, result, seconds, found, faults(found))


def in_float64(masked: nn.Module, plan: surgery.Plan) -> nn.Module:
    """The plan on a float64 copy; where a graph was handed back, the same graph of a float64 copy.

    The graph is captured once more in the net's own precision: kernels that know no float64 could not be run there.
    """
    if plan.graph is None:
        return cut_(widened(masked), plan)
    return cut_(widened(graph_again(copy.deepcopy(masked), plan.graph)), plan)


def _trials(architecture: Architecture) -> Iterator[tuple[Inputs, Inputs]]:
    """Two fresh inputs of every size that the architecture is judged on."""
    for number, sizes in enumerate(architecture.others):
        first, second = (architecture.inputs(seed=100 * number + seed, **sizes) for seed in (1, 2))
        yield first, second


def exported(architecture: Architecture, slim: nn.Module) -> dict[str, dict[str, Any]]:
    """Parity of the slim net in every format, or why there is no file."""
    facts: dict[str, dict[str, Any]] = {}
    example = architecture.inputs()
    with tempfile.TemporaryDirectory() as folder:
        for name, file in EXPORTS.items():
            began = time.perf_counter()
            try:
                parity = surgery.export(slim, Path(folder) / file, example.args, example.kwargs).parity
                facts[name] = {"error": parity.max_rel_error, "bound": parity.bound, "batches": [*parity.batch_sizes]}
            except CheckError as error:
                facts[name] = {"refused": first_line(error)}
            except Exception as error:  # of any kind: it is the result
                facts[name] = {"failed": f"{type(error).__name__}: {first_line(error)}"}
            facts[name]["seconds"] = round(time.perf_counter() - began, 2)
    return facts


class StageError(Exception):
    """What went wrong, and in which stage."""

    def __init__(self, stage: str, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {first_line(error)}")
        self.stage = stage


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    began = time.perf_counter()
    try:
        yield
    except Exception as error:
        raise StageError(name, error) from error
    finally:
        seconds[name] = round(time.perf_counter() - began, 2)


def examined(architecture: Architecture, *, exports: bool = True) -> Iterator[dict[str, Any]]:
    """Our columns of one row, as they are found; where a stage fails, `failed` and `stage` are the last ones.

    Exports take most of the time: without them it is a second or two for a tiny net.
    """
    seconds: dict[str, float] = {}
    yield {"net": architecture.net, "note": architecture.note, "stays": architecture.stays, "captured": False}
    try:
        with _stage("build", seconds):
            net, example = net_of(architecture), architecture.inputs()
        with _stage("analyze", seconds):
            analysis = surgery.analyze(net, example.args, example.kwargs)
        yield {
            "captured": True,
            "removable_share": analysis.removable_share,
            "rounding": rounding_of(net, analysis),
            "unruled_ops": dict(analysis.unruled_ops),
            "pinned": by_reason((pinned.reason, pinned.channels) for pinned in analysis.pinned),
        }
        with _stage("choose", seconds):
            masked = PREPARATIONS[FIRST](copy.deepcopy(net), architecture)
        with _stage("shrink and judge", seconds):
            case = shrunk(architecture, masked)
        yield case.facts() | ({"failed": case.fault, "stage": "judge"} if case.fault else {})
        if exports:
            with _stage("export", seconds):
                yield {"exports": exported(architecture, case.result.model)}
    except StageError as error:
        yield {"failed": str(error), "stage": error.stage}
    yield {"seconds": seconds}


def rounding_of(net: nn.Module, analysis: surgery.Analysis) -> float:
    """What one unit more in every group weighs when half of each is gone, as a share of all parameters.

    A unit is a channel. Where channels go as wholes (heads), and their number is odd, it is what stays beyond half: of
    3 heads 2 stay, half a head more than half of them.
    """
    units = {axis: (group.channels, group.free) for group in analysis.groups for axis in group.axes if group.free}
    odd = _odd_wholes(analysis)
    more = 0.0
    for name, parameter in net.named_parameters():
        half = rounded = 1.0
        for dim in range(parameter.dim()):
            channels, free = units.get(f"{name}:{dim}", (0, 0))
            if channels:
                half *= 1 - free / channels / 2
                over = max(1 / channels, odd.get(f"{name}:{dim}", 0.0) * free / channels)
                rounded *= min(1.0, 1 - free / channels / 2 + over)
        more += parameter.numel() * (rounded - half)
    return more / max(1, sum(parameter.numel() for parameter in net.parameters()))


def _odd_wholes(analysis: surgery.Analysis) -> dict[str, float]:
    """By axis, where its free channels go as an odd number of wholes: what half a whole is of them."""
    assert analysis.study is not None, "nets of the zoo have weights"
    coupling = analysis.study.coupling
    whole, found = picked_together(coupling), {}
    for axis in coupling.axes.values():
        channels = np.unique(coupling.channel_of[axis.ids])
        free = channels[coupling.pin_of[channels] < 0]
        wholes = np.unique(whole[free]).size
        if 1 < wholes < free.size and wholes % 2:
            found[str(axis)] = 0.5 / wholes
    return found


def prepared(architecture: Architecture) -> Iterator[dict[str, Any]]:
    """The other preparations of a convolutional family."""
    net = net_of(architecture)
    found: dict[str, Any] = {}
    for name in OTHERS:
        case = shrunk(architecture, PREPARATIONS[name](copy.deepcopy(net), architecture))
        found[name] = case.facts() | ({"failed": case.fault} if case.fault else {})
        yield {"preparations": dict(found)}


def beside(architecture: Architecture) -> Iterator[dict[str, Any]]:
    """What torch-pruning does with the same net; where it never ends its memory grows, too, so that it has a limit."""
    resource.setrlimit(resource.RLIMIT_AS, (PEER_BYTES, PEER_BYTES))
    yield peer_facts(architecture, net_of(architecture))


def by_reason(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """How many channels are pinned for each reason, in all places together; the most frequent first."""
    total: Counter[str] = Counter()
    for reason, channels in counts:
        total[reason] += channels
    return dict(total.most_common())


PARTS: dict[str, Callable[[Architecture], Iterator[dict[str, Any]]]] = {
    "ours": examined,
    "quick": partial(examined, exports=False),
    "preparations": prepared,
    "peer": beside,
}


def one_part(part: str, name: str) -> Iterator[dict[str, Any]]:
    """A part of the row of an architecture by name, in a process of its own."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # what libraries say about themselves, and that TorchScript is deprecated
    with quiet():
        yield from PARTS[part](ARCHITECTURES[name])


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing that a library prints reaches the table on stdout, nor the lines on stderr."""
    sys.stdout.flush()
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        yield
