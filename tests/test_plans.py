from __future__ import annotations

import copy
import logging

import pytest
import torch
from torch import nn

import surgery
from surgery.errors import PlanError


def net() -> nn.Sequential:
    torch.manual_seed(0)
    first, second, third = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
    made = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.ReLU(), third)
    with torch.no_grad():
        made[1].bias.normal_()
        made[1].running_mean.normal_()
    return made.eval()


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_apply_is_shrink_of_mask() -> None:
    model = net()
    plan = surgery.choose(model, X)
    slim, shrunk = plan.apply(model, X), surgery.shrink(plan.mask(model), X).model
    assert plan.removed_channels == 6 - len(plan.carries) + 1  # half of 8 and of 6, less the carriers
    for (name, a), (other, b) in zip(slim.state_dict().items(), shrunk.state_dict().items(), strict=True):
        assert name == other
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_model_given_is_not_touched() -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    plan = surgery.choose(model, X)
    plan.mask(model)
    plan.apply(model, X)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_in_place_changes_the_model_itself() -> None:
    model, twin = net(), net()
    plan = surgery.choose(model, X)
    weight = model[0].weight
    assert plan.apply_(model, X) is model
    assert model[0].weight is weight  # the optimizer that holds it does not keep a stale one
    torch.testing.assert_close(model(X), plan.apply(twin, X)(X))


def test_constants_of_other_weights_are_refused_and_nothing_is_changed() -> None:
    model = net()
    plan = surgery.choose(model, X)
    assert plan.folds or plan.carries
    tuned = copy.deepcopy(model)
    with torch.no_grad():
        tuned[1].bias.add_(0.1)
    before = copy.deepcopy(tuned.state_dict())
    with pytest.raises(PlanError, match=r"the plan folds constants of other weights: 1\.bias"):
        plan.apply(tuned, X)
    with pytest.raises(PlanError, match="the plan folds constants of other weights"):
        plan.apply_(tuned, X)
    for name, tensor in tuned.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_the_way_out_works_shrink_of_the_mask_after_tuning() -> None:
    model = net()
    plan = surgery.choose(model, X)
    tuned = plan.mask(model)
    with torch.no_grad():
        tuned[1].bias.add_(0.1)
    result = surgery.shrink(tuned, X)
    assert result.proof is not None
    assert result.proof.passed
    assert result.params_after < result.params_before


def test_without_inputs_it_says_that_nothing_was_proven(caplog: pytest.LogCaptureFixture) -> None:
    model = net()
    plan = surgery.choose(model, X)
    with caplog.at_level(logging.WARNING, logger="surgery"):
        plan.apply(model)
    assert "was not proven" in caplog.text


def test_a_plan_cannot_be_applied_twice() -> None:
    model = net()
    plan = surgery.choose(model, X)
    with pytest.raises(PlanError, match="not to one already cut"):
        plan.apply(plan.apply(model, X), X)
