"""Random nets with random zeros: what comes out computes the same, and everything dead is gone.

`SURGERY_FUZZ=2000 pytest tests/test_random_nets.py` draws as many, new ones each time; without it the draw is fixed.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import surgery
from surgery.cutting.cut import cut_
from surgery.masks import bake
from tests.exactness import BOUND_FLOAT32, BOUND_FLOAT64, assert_plain, fingerprint, outputs, redrawn
from tests.random_nets import RandomNet, Recipe, recipes

FUZZ = int(os.environ.get("SURGERY_FUZZ", "0"))
INSENSITIVE = 1e-3
"""Outputs that vary by less than this share of their largest value are judged by their size: they say less."""

quick = settings(
    max_examples=FUZZ or 50,
    deadline=None,
    print_blob=True,
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
    """`(batch, growth)` that the masked net accepts: batch 1 and 3, and another resolution where it can."""
    taken = [(1, 0), (3, 0)]
    for grow in (4, 8, 3):
        try:
            outputs(masked, redrawn(example, 0, batch=2, grow=grow), torch.float32)
        except (RuntimeError, ValueError, IndexError):
            continue
        return [*taken, (2, grow)]
    return taken


def judge(masked: nn.Module, slim: nn.Module, slim64: nn.Module, example: Inputs) -> Verdict:
    """The worst distance over several shapes, two fresh inputs each."""
    masked64 = copy.deepcopy(masked).double()
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
    verdict = judge(masked, slim, cut_(copy.deepcopy(masked).double(), plan), example)
    assert verdict.float64 <= BOUND_FLOAT64, verdict
    assert verdict.float32 <= max(BOUND_FLOAT32, 4 * verdict.noise), verdict
    return verdict


def same_tensors(a: nn.Module, b: nn.Module) -> None:
    """Two nets hold the same tensors, bit by bit."""
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, tensor in a.state_dict().items():
        torch.testing.assert_close(b.state_dict()[name], tensor, rtol=0, atol=0, msg=name)


def has_parameters(net: RandomNet) -> bool:
    return any(True for _ in net.parameters())


def check_shrink(recipe: Recipe) -> None:
    net, example = recipe.net()
    if not has_parameters(net):
        return
    note(net.program(len(example)))
    before = fingerprint(net)
    result = surgery.shrink(net, example, prove=False)
    assert fingerprint(net) == before, "the given net was changed"
    assert_plain(net, result.model)
    masked = bake(net)
    verdict = assert_exact(masked, result.plan, result.model, example)
    event("sensitive" if verdict.sensitivity >= INSENSITIVE else "insensitive")
    event("something removed" if result.plan.removed_channels else "nothing removed")

    again = surgery.shrink(result.model, example, prove=False)
    assert again.plan.removed_channels == 0, f"a second shrink removes more: {again.plan}"

    restored = surgery.Plan.from_json(result.plan.to_json())
    assert restored == result.plan
    same_tensors(result.model, restored.apply(net))


def check_choose(recipe: Recipe, keep_ratio: float, round_to: int) -> None:
    net, example = recipe.net(zeros=False)
    if not has_parameters(net):
        return
    note(net.program(len(example)))
    plan = surgery.choose(net, example, keep_ratio=keep_ratio, round_to=round_to)
    for group in plan.groups:
        assert group.channels - group.removed >= 1
        assert group.removed <= group.channels - int(group.channels * keep_ratio), "a ratio to keep is a minimum"
    masked = plan.mask(net)
    result = surgery.shrink(masked, example, round_to=round_to, prove=False)
    assert_exact(masked, result.plan, result.model, example)
    applied = plan.apply(net)
    assert_exact(masked, plan, applied, example)
    if surgery.shrink(net, example, prove=False).plan.empty:  # no part of the net is dead by itself
        for planned, found in zip(plan.axes, result.plan.axes, strict=True):
            assert len(found.keep) <= len(planned.keep), f"shrink(mask(m)) keeps more of {planned.name} than was chosen"
    event("something chosen" if plan.removed_channels else "nothing chosen")


@quick
@given(recipes())
def test_a_random_net_is_shrunk_exactly(recipe: Recipe) -> None:
    check_shrink(recipe)


@settings(quick, max_examples=FUZZ or 25)
@given(recipes(), st.sampled_from((0.5, 0.25, 0.75)), st.sampled_from((1, 1, 2, 4)))
def test_what_is_chosen_is_cut_exactly(recipe: Recipe, keep_ratio: float, round_to: int) -> None:
    check_choose(recipe, keep_ratio, round_to)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@many
@given(recipes())
def test_many_random_nets_are_shrunk_exactly(recipe: Recipe) -> None:
    check_shrink(recipe)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@many
@given(recipes(), st.sampled_from((0.5, 0.25, 0.75)), st.sampled_from((1, 1, 2, 4)))
def test_much_that_is_chosen_is_cut_exactly(recipe: Recipe, keep_ratio: float, round_to: int) -> None:
    check_choose(recipe, keep_ratio, round_to)
