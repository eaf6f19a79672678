"""The article's list of things to try, as one comparison: accuracy, measured latency, size."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import surgery
from benchmarks.article_curves import tuned_
from benchmarks.article_tasks import Task
from surgery.inputs import Inputs
from surgery.masks import bake
from surgery.proof.cost import count_params, macs

RUNTIMES = ("eager", "torchscript", "onnxruntime")
MASKED = 8 / 9
"""The share of the weights that the masked nets have lost."""

SAMPLES = 512


@dataclass(frozen=True)
class Line:
    """One thing to try.

    Attributes:
        way: What it is.
        model: What it is called in the benchmark.
        runtime: Where it runs.
        accuracy: On what was held back.
        share: Of the dense net's multiply-accumulates that was asked for; None where none was.
        size_bytes: Of the file that is deployed, or of the tensors.
    """

    way: str
    model: str
    runtime: str
    accuracy: float
    share: float | None
    size_bytes: int

    def __str__(self) -> str:
        return self.way if self.share is None else f"{self.way} {self.share:.0%}"


@dataclass(frozen=True)
class Tried:
    """Everything of one seed.

    Attributes:
        seed: The seed.
        example: The call that is timed.
        lines: What was tried.
        subjects: Nets and files by name.
    """

    seed: int
    example: Tensor
    lines: tuple[Line, ...]
    subjects: Mapping[str, nn.Module | Path]


def things(task: Task, dense: nn.Module, seed: int, shares: Sequence[float], folder: Path) -> Tried:
    """Everything made and judged; nothing is timed yet."""
    made = _Made(task, dense, seed, folder)
    lines = [*made.masked(), *made.runtimes()]
    for share in shares:
        lines += [*made.smaller(share), *made.slim(share)]
    for line in lines:
        print(f"  {line}: {line.accuracy:.2%}", flush=True)
    return Tried(seed, task.example, tuple(lines), {**made.models, **made.files})


def timed(tried: Tried, **settings: Any) -> tuple[list[dict[str, Any]], surgery.Benchmark]:
    """The lines for JSON, each with its latency as a share of the dense net's in eager mode; and the benchmark."""
    benchmark = surgery.benchmark(tried.subjects, tried.example, runtimes=RUNTIMES, **settings)
    whole = benchmark.cell("eager").row("dense").summary().p50_ms
    found = []
    for line in tried.lines:
        told = {"seed": tried.seed, **vars(line)}
        told["latency"] = benchmark.cell(line.runtime).row(line.model).summary().p50_ms / whole
        if isinstance(own := tried.subjects[line.model], nn.Module):
            told |= {"params": count_params(own), "macs": macs(own, Inputs.of(tried.example))}
        print(f"  {line}: {line.accuracy:.2%} at {told['latency']:.3f}", flush=True)
        found.append(told)
    return found, benchmark


class _Made:
    """The nets and files of one seed (mutable: they are made one after the other)."""

    def __init__(self, task: Task, dense: nn.Module, seed: int, folder: Path) -> None:
        self.task, self.dense, self.seed, self.folder = task, dense.eval(), seed, folder
        self.models: dict[str, nn.Module] = {"dense": self.dense}
        self.files: dict[str, Path] = {}

    def masked(self) -> list[Line]:
        """Single weights under masks, with their hooks and baked; whole channels under masks."""
        net = copy.deepcopy(self.dense)
        tuned_(net, self.task, self.seed, self.task.tuning, schedule=surgery.OneShot(MASKED))
        self.models |= {"hooks": net.eval(), "baked": bake(net)}
        right = self.task.accuracy(net)
        size = surgery.sparsity(net).compressed_bytes or 0
        return [
            Line("masked, with hooks", "hooks", "eager", right, None, size),
            Line("masked, baked", "baked", "eager", right, None, size),
        ]

    def runtimes(self) -> list[Line]:
        """The dense net as it is, in other runtimes, and in int8."""
        right, size = self.task.accuracy(self.dense), _size(self.dense)
        return [
            Line("nothing", "dense", "eager", right, None, size),
            Line("TorchScript only", "dense", "torchscript", right, None, size),
            Line("ONNX only", "dense", "onnxruntime", right, None, size),
            self._int8("int8 only", "dense", None),
        ]

    def smaller(self, share: float) -> list[Line]:
        """The other architecture of as many multiply-accumulates: from scratch, and distilled."""
        found = []
        for way, teacher in (("smaller architecture", None), ("distil", self.dense)):
            torch.manual_seed(self.seed)
            net = self.task.smaller(self._width(share))
            tuned_(net, self.task, self.seed, self.task.epochs + self.task.tuning, teacher=teacher)
            found.append(self._kept(way, f"{way} {share}", net, share))
        return [*found, self._int8("distil + int8", f"distil {share}", share)]

    def slim(self, share: float) -> list[Line]:
        """Channels cut out in two rounds while the dense net trains on, without and with itself as the teacher."""
        found = []
        how = surgery.Structured("macs", importance="taylor", global_=True, round_to=4)
        for way, teacher in (("prune + cut", None), ("prune + distil", self.dense)):
            net = copy.deepcopy(self.dense)
            schedule = surgery.Iterative(1 - share, 2, how=how)
            done = tuned_(net, self.task, self.seed, self.task.tuning, schedule=schedule, teacher=teacher)
            for change in done.changes:
                before, after = (float("nan") if one is None else one for one in (change.loss_masked, change.loss_slim))
                assert abs(before - after) <= 1e-5, f"the loss was {before} before a cut and is {after}"
            found.append(self._kept(way, f"{way} {share}", done.model, share))
        plan = surgery.choose(self.dense, self.task.example, macs=share, global_=True, round_to=4)
        self.models[f"masked channels {share}"] = plan.mask(self.dense).eval()
        self.models[f"their cut {share}"] = plan.apply(self.dense, self.task.example).eval()
        return [*found, self._int8("prune + distil + int8", f"prune + distil {share}", share)]

    def _kept(self, way: str, name: str, net: nn.Module, share: float) -> Line:
        self.models[name] = net.eval()
        return Line(way, name, "onnxruntime", self.task.accuracy(net), share, _size(net))

    def _int8(self, way: str, model: str, share: float | None) -> Line:
        path = self.folder / f"{way.replace(' ', '')}-{share}-{self.seed}.onnx"
        done = surgery.quantize(
            self.models[model], path, self.task.example, data=self.task.batches(SAMPLES), evaluate=self.task.accuracy
        )
        assert done.evaluated is not None, "there is a measure"
        name = f"{model} int8"
        self.files[name] = path
        return Line(way, name, "onnxruntime", done.evaluated[1], share, done.size_bytes)

    def _width(self, share: float) -> float:
        """The width at which the other architecture has this share of the dense net's multiply-accumulates."""
        inputs = Inputs.of(self.task.example)
        most = share * macs(self.dense, inputs)
        widths = [0.02 * n for n in range(1, 200)]
        fitting = [width for width in widths if macs(self.task.smaller(width), inputs) <= most]
        return max(fitting, default=widths[0])


def _size(net: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())
