"""Random nets with random zeros: what comes out computes the same, and what is left over is alive.

`SURGERY_FUZZ=2000 pytest tests/test_random_nets.py` draws as many, new ones each time; without it the draw is fixed.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import pytest
from hypothesis import event, given, note, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

import surgery
import surgery.inputs
import surgery.rules  # fills the rule table
from surgery.analysis.capture import capture
from surgery.masks import bake
from surgery.registry import RULES, op_names
from tests.exactness import assert_plain, fingerprint
from tests.random_builder import Gene, RandomNet
from tests.random_judge import FUZZ, INSENSITIVE, Inputs, Verdict, assert_exact, many, quick
from tests.random_nets import Recipe, recipes
from tests.random_ops import NEVER_DRAWN, OPS, gene_of

pytestmark = pytest.mark.filterwarnings("ignore:input's size at dim=1 does not match num_features")
"""Tokens are channels for an InstanceNorm behind a transpose: at another resolution the given net itself warns."""


def same_tensors(a: nn.Module, b: nn.Module) -> None:
    """Two nets hold the same tensors, bit by bit."""
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, tensor in a.state_dict().items():
        assert_close(b.state_dict()[name], tensor, rtol=0, atol=0, msg=name)


def has_parameters(net: RandomNet) -> bool:
    return any(True for _ in net.parameters())


def greedy(plan: surgery.Plan) -> bool:
    """Whether some channels stay only to fill a rectangle, or because nobody can tell which ones the code insists on.

    The first is exact but not always the least: a shuffle of (6, 2) channels cut to (6, 1) is no shuffle any more, so
    that a second look finds fewer ties.
    """
    return any(why.startswith("kept, ") or "cannot run narrower" in why for why in plan.reasons)


def check_exact(net: RandomNet, example: Inputs) -> tuple[surgery.Result, Verdict]:
    before = fingerprint(net)
    result = surgery.shrink(net, example, prove=False)
    assert fingerprint(net) == before, "the given net was changed"
    if result.kind == "graph":  # what is left of the class is exact as well
        whole = surgery.shrink(net, example, prove=False, keep_class=True)
        assert_plain(net, whole.model)
        assert_exact(bake(net), whole.plan, whole.model, example)
    else:
        assert_plain(net, result.model)
    with warnings.catch_warnings():  # sizes that the modules only record agree, too
        warnings.simplefilter("error")
        copy.deepcopy(result.model)(*(x.clone() for x in example))
    return result, assert_exact(bake(net), result.plan, result.model, example)


def check_shrink(recipe: Recipe) -> None:
    net, example = recipe.net()
    if not has_parameters(net):
        return
    note(net.program(len(example)))
    result, verdict = check_exact(net, example)
    event("sensitive" if verdict.sensitivity >= INSENSITIVE else "insensitive")
    event(f"handed back as its {result.kind}")
    event("something removed" if result.plan.removed_channels else "nothing removed")

    again = surgery.shrink(result.model, example, prove=False)
    assert again.plan.removed_channels == 0 or greedy(result.plan), f"a second shrink removes more: {again.plan}"

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
    if not surgery.analyze(net, example).dead:  # no part of the net is dead by itself
        for planned, found in zip(plan.axes, result.plan.axes, strict=True):
            assert len(found.keep) <= len(planned.keep), f"shrink(mask(m)) keeps more of {planned.name} than was chosen"
    event("something chosen" if plan.removed_channels else "nothing chosen")


def test_every_op_that_has_a_rule_can_be_drawn() -> None:
    assert sorted(RULES) == sorted([*OPS, *NEVER_DRAWN])


@pytest.mark.parametrize("name", OPS)
def test_a_net_around_each_op_is_shrunk_exactly(name: str) -> None:
    conv = Gene("conv", zeros=1, seed=5)
    reader = Gene("conv", zeros=1, seed=4, numbers=(1, 0, 0, 0, 0, 0, 0, 0))  # 1x1: it can take over any constant
    genes = (conv, gene_of(name), reader, gene_of(name, dim=1), replace(reader, seed=6))
    net, example = Recipe(genes, stem=8, inputs=0, outputs=0, head=0).net()
    program = capture(net, surgery.inputs.Inputs.of(example))
    assert name in {shown for node in program.calls for shown in op_names(node.target)}, net.program(1)
    check_exact(net, example)


@quick
@given(recipes())
def test_a_random_net_is_shrunk_exactly(recipe: Recipe) -> None:
    check_shrink(recipe)


@settings(quick, max_examples=FUZZ or 20)
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
