"""Contracts that users of other tools ask for: what survives a cut, what is never cut, what is said aloud."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import surgery
from surgery.errors import PlanError
from tests import nets, pattern_nets
from tests.exactness import assert_exact, assert_plain, fingerprint, parameters, shrunk

X = nets.image(3, 8)
DEAD = [1, 3, 4, 6]


def zeroed() -> nets.PaddedPair:
    """973 parameters, of which 573 are left, without a carrier."""
    net = nets.zero_rows_(nets.lively(nets.PaddedPair()), conv1=DEAD)
    with torch.no_grad():
        net.conv1.bias[DEAD] = -net.conv1.bias[DEAD].abs() - 0.1
    return net


# what survives


@pytest.mark.parametrize("inplace", [False, True], ids=["copy", "in place"])
def test_every_module_keeps_its_own_training_flag(inplace: bool) -> None:
    net = nets.zero_rows_(nets.lively(nets.NormPair()), conv1=DEAD).train()
    net.norm1.eval()  # frozen statistics in a net that trains
    flags = {name: module.training for name, module in net.named_modules()}
    result = surgery.shrink(net, X, inplace=inplace)
    assert result.plan.removed_channels
    assert {name: module.training for name, module in result.model.named_modules()} == flags
    assert {name: module.training for name, module in net.named_modules()} == flags


@pytest.mark.parametrize("inplace", [False, True], ids=["copy", "in place"])
def test_frozen_parameters_stay_frozen(inplace: bool) -> None:
    net = zeroed()
    net.conv1.weight.requires_grad_(requires_grad=False)
    net.head.bias.requires_grad_(requires_grad=False)
    frozen = {name: p.requires_grad for name, p in net.named_parameters()}
    result = surgery.shrink(net, X, inplace=inplace, prove=False)
    assert parameters(result.model) == 573
    assert {name: p.requires_grad for name, p in result.model.named_parameters()} == frozen


@pytest.mark.parametrize("trains", [False, True])
def test_a_bias_that_was_made_trains_where_its_weight_does(trains: bool) -> None:
    net = nets.zero_rows_(nets.lively(nets.Depthwise()), expand=DEAD, depthwise=DEAD)
    net.project.weight.requires_grad_(trains)
    slim = shrunk(net, X).model
    assert slim.project.bias.requires_grad is trains


def test_dtype_survives() -> None:
    net = zeroed().bfloat16()
    result = surgery.shrink(net, X.bfloat16())
    assert result.proof is not None
    assert result.proof.passed
    assert {p.dtype for p in result.model.parameters()} == {torch.bfloat16}
    assert parameters(result.model) == 573


def backward(net: nn.Module) -> None:
    net(X).sum().backward()


@pytest.mark.parametrize("early", [False, True], ids=["fresh", "after a backward"])
@pytest.mark.parametrize("inplace", [False, True], ids=["copy", "in place"])
def test_parameter_hooks_survive_and_backward_works(inplace: bool, early: bool) -> None:
    """A parameter's gradient accumulator remembers the shape that it was made for: hooks keep it alive."""
    net = zeroed()
    seen: list[str] = []
    shapes: list[tuple[int, ...]] = []

    def on_grad(grad: Tensor) -> None:
        seen.append("hook")
        shapes.append(tuple(grad.shape))

    def on_accumulated(parameter: Tensor) -> None:
        seen.append("post")
        shapes.append(tuple(parameter.shape))

    net.conv1.weight.register_hook(on_grad)
    net.conv2.weight.register_post_accumulate_grad_hook(on_accumulated)
    if early:
        backward(net)
        seen.clear()
        shapes.clear()
    slim = surgery.shrink(net, X, inplace=inplace, prove=False).model
    assert parameters(slim) == 573
    slim.zero_grad()
    backward(slim)
    assert sorted(seen) == ["hook", "post"]
    assert sorted(shapes) == [(4, 3, 3, 3), (8, 4, 3, 3)]
    assert all(p.grad is not None and p.grad.shape == p.shape for p in slim.parameters())
    if not inplace:  # the plan by itself does the same
        seen.clear()
        backward(surgery.choose(net, X).apply(net))
        assert sorted(seen) == ["hook", "post"]


def test_a_hook_on_a_masked_parameter_survives() -> None:
    net = zeroed()
    prune.identity(net.conv2, "weight")
    seen: list[int] = []
    net.conv2.weight_orig.register_hook(lambda grad: seen.append(grad.shape[1]))
    slim = surgery.shrink(net, X, prove=False).model
    backward(slim)
    assert seen == [4]


@pytest.mark.parametrize("inplace", [False, True], ids=["copy", "in place"])
def test_forward_and_backward_hooks_of_modules_survive(inplace: bool) -> None:
    net = zeroed()
    seen: list[str] = []
    net.conv1.register_forward_hook(lambda m, a, out: seen.append(f"after {out.shape[1]}"))
    net.conv2.register_forward_pre_hook(lambda m, a: seen.append(f"before {a[0].shape[1]}"))
    net.conv2.register_full_backward_hook(lambda m, i, o: seen.append(f"back {i[0].shape[1]}"))
    slim = surgery.shrink(net, X, inplace=inplace, prove=False).model
    seen.clear()
    backward(slim)
    assert seen == ["after 4", "before 4", "back 4"]


def test_an_optimizer_made_before_an_in_place_cut_goes_on() -> None:
    net = zeroed()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    backward(net)
    surgery.shrink(net, X, inplace=True, prove=False)
    before = [p.detach().clone() for p in net.parameters()]
    optimizer.zero_grad()
    backward(net)
    optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert parameters(net) == 573


def test_fine_tuning_goes_on_after_a_cut() -> None:
    slim = shrunk(zeroed(), X).model.train()
    backward(slim)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in slim.parameters())


def test_the_state_dict_has_the_same_names() -> None:
    net = zeroed()
    slim = shrunk(net, X).model
    assert list(slim.state_dict()) == list(net.state_dict())
    fresh = nets.PaddedPair()
    fresh.conv1, fresh.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
    fresh.load_state_dict(slim.state_dict())
    torch.testing.assert_close(fresh(X), slim(X), rtol=0, atol=0)


# the user's own model


def test_nothing_touches_the_users_model() -> None:
    """Byte for byte, the very tensors, flags and hooks: but for `inplace=True` and what ends in `_`."""
    net = nets.lively(nets.Residual()).train()
    before = fingerprint(net)
    surgery.analyze(net, X)
    plan = surgery.choose(net, X)
    masked = plan.mask(net)
    plan.apply(net, X)
    plan.apply(net)
    assert fingerprint(net) == before
    before = fingerprint(masked)
    result = surgery.shrink(masked, X)
    surgery.shrink(masked, X, round_to=4, tolerance=1e-3, flush_subnormals=True)
    assert fingerprint(masked) == before
    assert not {p.data_ptr() for p in result.model.parameters()} & {p.data_ptr() for p in masked.parameters()}


def test_a_model_that_loses_nothing_is_still_a_copy() -> None:
    net = nets.lively(nets.PaddedPair())
    result = surgery.shrink(net, X)
    assert result.model is not net
    assert not {p.data_ptr() for p in result.model.parameters()} & {p.data_ptr() for p in net.parameters()}
    assert surgery.shrink(net, X, inplace=True).model is net


def test_in_place_is_the_same_function_as_the_copy() -> None:
    for make in (nets.Residual, nets.NormPair, nets.Depthwise):
        net = nets.lively(make())
        g = torch.Generator().manual_seed(3)
        with torch.no_grad():  # layer by layer, so that carriers stand among the living
            for p in net.parameters():
                if p.dim() == 4:
                    p[torch.randperm(len(p), generator=g)[: len(p) // 2]] = 0
        expected = surgery.shrink(net, X).model.state_dict()
        cut = surgery.shrink(net, X, inplace=True).model
        assert cut is net
        for name, tensor in expected.items():
            torch.testing.assert_close(net.state_dict()[name], tensor, rtol=0, atol=0)


# what is never cut, and what is said


def test_outputs_are_protected_without_being_asked() -> None:
    """A dead class stays a class."""
    net = nets.zero_rows_(zeroed(), head=[0, 2])
    with torch.no_grad():
        net.head.bias[[0, 2]] = 0
    result = shrunk(net, X)
    assert result.model.head.out_features == 5
    assert result.plan.explain("head.weight", 0) == (
        "head.weight[0] (dim 0) stays: pinned: it is an output of the model (head)"
    )


def test_nothing_was_removed_is_said_aloud_with_the_reason() -> None:
    text = str(surgery.shrink(nets.lively(nets.PaddedPair()), X))
    assert "nothing was removed: no channel is dead" in text
    assert "conv1.weight: alive: conv2 reads it, and it varies with the input" in text
    assert "parameters 973 -> 973" in text


def test_a_layer_with_no_live_channel_keeps_one() -> None:
    net = nets.zero_rows_(nets.lively(nets.PaddedPair()), conv1=range(8))
    with torch.no_grad():
        net.conv1.bias.copy_(-net.conv1.bias.abs())
        net.conv2.bias.abs_()  # then the output is a constant: the head's input varies by nothing
    result = shrunk(net, X, healthy=-1)
    assert result.model.conv1.out_channels == 1
    # channel 0 or another: one of them says why it is still here
    reasons = {result.plan.explain("conv1.weight", i).partition(": ")[2] for i in range(8)}
    assert any(reason.startswith("kept, for a layer needs at least one channel") for reason in reasons)


def test_which_channels_survived_is_in_the_plan() -> None:
    net = zeroed()
    result = shrunk(net, X)
    assert result.plan.axis("conv1.weight").keep == (0, 2, 5, 7)
    assert result.plan.axis("conv2.weight", 1).keep == (0, 2, 5, 7)
    for name, slim in result.model.named_parameters():
        tensor = dict(net.named_parameters())[name].detach()
        for dim in range(tensor.dim()):
            tensor = tensor.index_select(dim, torch.tensor(result.plan.axis(name, dim).keep))
        torch.testing.assert_close(slim.detach(), tensor, rtol=0, atol=0)


def test_a_plan_is_carried_to_a_fresh_model_as_text() -> None:
    net = nets.lively(nets.Residual())
    plan = surgery.choose(net, X)
    other = nets.Residual().eval()
    other.load_state_dict(net.state_dict())
    again = surgery.Plan.from_json(plan.to_json())
    assert again == plan
    for name, tensor in plan.apply(net).state_dict().items():
        torch.testing.assert_close(again.apply(other, X).state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("keep", ["[0, 0, 2]", "[0, 2, 9]", "[2, 0]", "[]", "[-1, 2]"])
def test_doubled_or_foreign_positions_are_refused(keep: str) -> None:
    text = surgery.shrink(zeroed(), X, prove=False).plan.to_json()
    assert text.count('"keep":[0,2,5,7]') > 1
    with pytest.raises(PlanError):
        surgery.Plan.from_json(text.replace('"keep":[0,2,5,7]', f'"keep":{keep}', 1))


# choosing


@pytest.mark.parametrize("keep_ratio", [0.9, 0.5, 0.3, 0.01])
@pytest.mark.parametrize(
    "make", [nets.Residual, pattern_nets.Elan, lambda: pattern_nets.Shuffled("view"), lambda: nets.Grouped(1)]
)
def test_a_maximum_is_a_maximum(make: Callable[[], nn.Module], keep_ratio: float) -> None:
    """No group loses more than was asked, and none is emptied."""
    plan = surgery.choose(nets.lively(make()), X, keep_ratio=keep_ratio)
    for group in plan.groups:
        left = group.channels - group.removed
        assert left >= max(1, group.channels * keep_ratio - 1e-9), group


@pytest.mark.parametrize("round_to", [2, 3, 4, 8])
def test_rounding_never_empties_or_silently_skips_a_group(round_to: int) -> None:
    """12, 10 and 14 channels: what is cut is cut to a multiple, what is not says why."""
    net = nets.lively(nets.Residual())
    masked = surgery.choose(net, X, keep_ratio=0.4).mask(net)
    exact = shrunk(masked, X).plan
    result = shrunk(masked, X, round_to=round_to)
    for group, before in zip(result.plan.groups, exact.groups, strict=True):
        left = group.channels - group.removed
        assert left >= 1
        if before.removed:
            assert left % round_to == 0 or left == group.channels, group
        if before.removed and not group.removed:
            assert f"so that the width is a multiple of {round_to}" in str(
                [result.plan.explain(group.name, i) for i in range(group.channels)]
            )


@pytest.mark.parametrize("round_to", [2, 4])
def test_choosing_rounds_up(round_to: int) -> None:
    net = nets.lively(nets.Residual())
    plan = surgery.choose(net, X, keep_ratio=0.4, round_to=round_to)
    widths = {group.channels: group.channels - group.removed for group in plan.groups if group.channels in (12, 10, 14)}
    ceilings = {n: -(-max(1, n * 4 // 10) // round_to) * round_to for n in widths}
    assert all(widths[n] % round_to == 0 and widths[n] >= ceilings[n] and widths[n] < n for n in widths), widths


def test_three_rounds() -> None:
    """Prune, look, prune again: each round is exact, and smaller."""
    net: nn.Module = nets.lively(nets.Residual())
    sizes = [parameters(net)]
    for _ in range(3):
        plan = surgery.choose(net, X, keep_ratio=0.7)
        masked, slim = plan.mask(net), plan.apply(net, X)
        assert_exact(masked, plan, slim, X)
        assert_plain(net, slim)
        net = slim
        sizes.append(parameters(net))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[3] < 0.3 * sizes[0]
    assert surgery.shrink(net, X, prove=False).plan.empty, "nothing dead was left behind"
