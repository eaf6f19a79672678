"""How random nets are judged: by what they compute, with nothing of the package's own proof.

`SURGERY_FUZZ=2000 pytest tests/test_random_nets.py` draws as many, new ones each time; without it the draw is fixed.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from hypothesis import HealthCheck, Phase, settings
from torch import Tensor, nn

import surgery
from surgery.analysis.graph_modules import GraphModel, rebound
from surgery.analysis.graph_specs import graph_again
from surgery.cutting.cut import cut_
from surgery.cutting.twins import float64_copy
from surgery.proof.float64 import float64_run
from tests.exactness import BOUND_FLOAT32, BOUND_FLOAT64, outputs, redrawn

FUZZ = int(os.environ.get("SURGERY_FUZZ", "0"))
INSENSITIVE = 1e-3
"""Outputs that vary by less than this share of their largest value are judged by their size: they say less."""

quick = settings(
    max_examples=FUZZ or 50,
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # explaining takes longer than shrinking
    derandomize=not FUZZ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
many = settings(quick, max_examples=FUZZ or 500)

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Verdict:
    """How far apart two nets are, over the spread; and the least spread over the largest value, of any output."""

    float64: float
    float32: float
    noise: float
    sensitivity: float


def shapes_taken(masked: nn.Module, example: Inputs) -> list[tuple[int, int]]:
    """`(batch, growth)` that the masked net accepts: batch 1 and 3, and the first other resolution that it takes."""

    def taken(batch: int, grow: int) -> bool:
        try:
            outputs(masked, redrawn(example, 0, batch=batch, grow=grow), torch.float32)
        except (RuntimeError, ValueError, IndexError):
            return False
        return True

    larger = [(2, grow) for grow in (4, 8, 3) if taken(2, grow)]
    return [(3, 0), *([(1, 0)] if taken(1, 0) else []), *larger[:1]]


def judge(masked: nn.Module, slim: nn.Module, slim64: nn.Module, example: Inputs) -> Verdict:
    """The worst distance over several shapes, two fresh inputs each."""
    masked64 = float64_copy(masked)
    worst64 = worst32 = noise = 0.0
    sensitivity = float("inf")
    for batch, grow in shapes_taken(masked, example):
        inputs = [redrawn(example, 10 * batch + grow + seed, batch=batch, grow=grow) for seed in (1, 2)]
        truths = [outputs(masked64, args, torch.float64) for args in inputs]
        spreads, scales = [], []
        for a, b in zip(*truths, strict=True):
            largest = max(float(a.abs().max()), float(b.abs().max()), 1e-30)
            spreads.append(float((a - b).abs().max()) / largest)
            scales.append(largest * (spreads[-1] if spreads[-1] >= INSENSITIVE else 1.0))
        sensitivity = min(sensitivity, *spreads)
        for args, truth in zip(inputs, truths, strict=True):
            with float64_run() if isinstance(slim64, GraphModel) else nullcontext():
                wide = outputs(slim64, args, torch.float64)
            narrow, own = outputs(slim, args, torch.float32), outputs(masked, args, torch.float32)
            assert [o.shape for o in wide] == [o.shape for o in truth] == [o.shape for o in narrow]
            for index, scale in enumerate(scales):
                worst64 = max(worst64, float((wide[index] - truth[index]).abs().max()) / scale)
                worst32 = max(worst32, float((narrow[index] - own[index]).abs().max()) / scale)
                noise = max(noise, float((own[index] - truth[index]).abs().max()) / scale)
    return Verdict(worst64, worst32, noise, sensitivity)


def assert_exact(masked: nn.Module, plan: surgery.Plan, slim: nn.Module, example: Inputs) -> Verdict:
    """The plan on a float64 copy is the masked net to 1e-9 of the spread; the slim net is it to rounding."""
    wide = float64_copy(masked)
    if plan.graph is not None:
        wide = rebound(graph_again(masked, plan.graph), wide).to(torch.float64)
    verdict = judge(masked, slim, cut_(wide, plan), example)
    assert verdict.float64 <= BOUND_FLOAT64, verdict
    assert verdict.float32 <= max(BOUND_FLOAT32, 4 * verdict.noise), verdict
    return verdict
