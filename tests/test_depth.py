from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import surgery
from surgery.deciding.blocks import blocks_of
from surgery.deciding.criteria import Feed
from surgery.deciding.study import Study
from surgery.depth import block_scores, less_deep, without
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.plans import Plan
from tests.depth_nets import IMAGES, WORDS, Tokens, pictures, tokens

DATA = [torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4, 5)]


def faint(model: nn.Module, *layers: str, by: float = 1e-3) -> nn.Module:
    """Make what layers write small."""
    with torch.no_grad():
        for layer in layers:
            for parameter in model.get_submodule(layer).parameters():
                parameter.mul_(by)
    return model


def gone(plan: Plan) -> list[str]:
    return [bypass.module for bypass in plan.bypasses]


def test_blocks_that_hardly_matter_go() -> None:
    model = faint(tokens(), "blocks.2.mix", "blocks.2.mlp.2", "blocks.0.mix", "blocks.0.mlp.2")
    for data in (None, DATA):
        plan = surgery.choose(model, WORDS, depth=2, data=data)
        assert gone(plan) == ["blocks.0", "blocks.2"]
        assert plan.removed_channels == 0
    assert Plan.from_json(plan.to_json()) == plan
    masked = plan.mask(model)
    assert float((masked(WORDS) - model(WORDS)).detach().abs().max()) < 0.05
    assert not masked.get_submodule("blocks.2.mix").weight.any()
    slim = plan.apply(model, WORDS)
    assert torch.equal(slim(WORDS), masked(WORDS))
    result = surgery.shrink(masked, WORDS, depth=True)
    assert result.proof is not None
    assert result.proof.passed
    assert gone(result.plan) == gone(plan)
    assert torch.equal(result.model(WORDS), slim(WORDS))


def test_a_share_of_them_and_a_width() -> None:
    model = tokens()
    plan = surgery.choose(model, WORDS, depth=0.5, keep_ratio=0.5)
    assert len(plan.bypasses) == 2
    result = surgery.shrink(plan.mask(model), WORDS, depth=True)
    assert isinstance(result.model, Tokens)
    left = [block for block in result.model.blocks if not isinstance(block, nn.Identity)]
    assert [block.mlp[0].out_features for block in left] == [6, 6]  # type: ignore[index, union-attr]
    assert result.proof is not None
    assert result.proof.max_rel_error_float64 is not None
    assert result.proof.max_rel_error_float64 < 1e-9


def test_a_budget_is_of_the_whole_model() -> None:
    model = tokens()
    result = surgery.prune(model, WORDS, depth=1, macs=0.6)
    assert len(result.plan.bypasses) == 1
    assert 0.55 < result.macs_after / result.macs_before <= 0.6
    enough = surgery.choose(model, WORDS, depth=2, macs=0.6)  # two blocks are enough
    assert len(enough.bypasses) == 2
    assert enough.removed_channels == 0


def test_compensation_leaves_them_alone() -> None:
    model = pictures()
    data = [torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    result = surgery.prune(model, IMAGES, data=data, depth=1, keep_ratio=0.5)
    name = result.plan.bypasses[0].module
    assert type(result.model.get_submodule(name)) is nn.Identity
    repaired = result.compensated
    slim = repaired.plan.apply(repaired.model, IMAGES)  # no bias was made for what goes
    assert torch.equal(slim(IMAGES), result.model(IMAGES))
    errors = [rung.error for rung in repaired.ladder]
    assert errors[0] is not None
    assert min(error for error in errors if error is not None) < 0.9 * errors[0]
    assert result.proof is not None
    assert result.proof.passed


def test_a_plan_of_blocks_and_channels_is_applied() -> None:
    model = pictures()
    plan = surgery.choose(model, IMAGES, depth=1, keep_ratio=0.5)
    assert any("stages" in group.name and group.removed for group in plan.groups)
    slim = plan.apply(model, IMAGES)  # proven
    assert type(slim.get_submodule(gone(plan)[0])) is nn.Identity


def test_scores_are_how_the_outputs_change() -> None:
    model = tokens()
    study = Study.of(model, Inputs.of(WORDS))
    blocks = blocks_of(study)
    scores = block_scores(study, blocks, Feed(DATA))
    every = torch.cat(DATA)
    whole = model(every).detach().double()
    for block, score in zip(blocks, scores, strict=True):
        change = without(study, [block]).study.model(every).detach().double() - whole
        assert score == pytest.approx(float(change.norm() / whole.norm()), rel=1e-5)
    assert np.unique(scores).size == len(blocks)
    assert all(bool(tensor.any()) for tensor in model.state_dict().values())  # nothing was left zeroed


def test_an_item_of_a_knapsack() -> None:
    """What a block costs and is worth can be measured apart from the widths of groups."""
    model = tokens()
    study = Study.of(model, Inputs.of(WORDS))
    block = blocks_of(study)[1]
    less = without(study, [block])
    inside = {
        str(axis) for axis in study.coupling.axes.values() if block.channels[study.coupling.channel_of[axis.ids]].all()
    }
    left = {str(axis) for axis in less.study.coupling.axes.values()}
    assert any(name.startswith("blocks.1.mlp.0.weight") for name in inside)
    assert not inside & left
    assert [bypass.module for bypass in less.bypasses] == ["blocks.1"]


def test_data_that_can_be_looked_at_once() -> None:
    plan = surgery.choose(tokens(), WORDS, depth=1, keep_ratio=0.5, importance="wanda", data=iter(DATA))
    assert len(plan.bypasses) == 1
    assert plan.removed_channels


def test_protected_blocks_stay() -> None:
    model = faint(tokens(), "blocks.1.mix", "blocks.1.mlp.2")
    assert gone(surgery.choose(model, WORDS, depth=1)) == ["blocks.1"]
    for name in ("blocks.1", "blocks.1.mlp.0", "blocks.1.mix.weight", "*.1.norm1"):
        assert "blocks.1" not in gone(surgery.choose(model, WORDS, depth=1, protect=[name]))
    nothing = faint(tokens(), "blocks.1.mix", "blocks.1.mlp.2", by=0.0)
    study = Study.of(nothing, Inputs.of(WORDS))
    left = [bypass.module for bypass in less_deep(study, 1, Feed(), ["blocks.1.mix"]).bypasses]
    assert len(left) == 1
    assert left != ["blocks.1"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"depth": 5},
            r"depth is 5, and Tokens has 4 blocks that can go \(blocks\.0, blocks\.1, blocks\.2, blocks\.3\)",
        ),
        ({"depth": 4, "protect": ["blocks.0"]}, r"has 3 blocks that can go .*, 1 more are protected"),
        ({"depth": 1.5}, r"depth is 1\.5"),
        ({"depth": -1}, r"depth is -1"),
        ({"depth": True}, r"depth is True"),
        ({"depth": "2"}, r"depth is '2'"),
        ({"depth": 1, "protect": ["block"]}, r"protect names 'block', which Tokens has not"),
        ({"depth": 1, "data": [torch.full((2, 7, 5), torch.nan)]}, r"item 0 of the data: x holds NaN"),
        ({"depth": 1, "data": [torch.full((2, 7, 5), 3e38)]}, r"outputs of Tokens on the data are not finite"),
        ({"depth": 1, "data": []}, r"the data is empty"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        surgery.choose(tokens(), WORDS, **settings)


def test_what_was_measured_of_blocks_that_go_is_not_asked_for() -> None:
    model = tokens()
    study = surgery.sensitivity(model, WORDS, data=[WORDS])
    plan = surgery.choose(model, WORDS, depth=1, macs=0.5, importance=study, global_=True)
    (block,) = gone(plan)
    assert any(curve.axis.startswith(f"{block}.") for curve in study.curves)
    assert plan.removed_channels > 0
    assert surgery.verify(plan.mask(model), plan.apply(model, WORDS), WORDS).passed
    with pytest.raises(InputError, match=r"importance scored 'blocks\.7\.up\.weight'"):
        surgery.choose(model, WORDS, depth=1, macs=0.5, importance=lambda _: {"blocks.7.up.weight": torch.ones(3)})


def test_no_depth_is_fine() -> None:
    model = tokens()
    assert gone(surgery.choose(model, WORDS, depth=0)) == []
    assert surgery.choose(model, WORDS, depth=0.2).empty
