"""Training goes on as that of the masked model would, and where it cannot."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import benchmarks.torchvision_cpu  # noqa: F401  (before timm)
import surgery
from tests.training_nets import NETS, batch_norm, mlp, step_, zeros_of

Make = Callable[[Any], Optimizer]

MAIN: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True),
}
OTHERS: dict[str, Make] = {
    "plain sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "dampened sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.3, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2, initial_accumulator_value=0.1),
    "adadelta": torch.optim.Adadelta,
    "adamax": torch.optim.Adamax,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "asgd": lambda p: torch.optim.ASGD(p, t0=2),
    "rprop": torch.optim.Rprop,
    "fused adamw": lambda p: torch.optim.AdamW(p, fused=True),
}


def both(
    made: tuple[nn.Module, Tensor], make: Make, *, train: bool = True, clip: float | None = None, steps: int = 4
) -> tuple[list[float], list[float], nn.Module, nn.Module, surgery.Plan]:
    """Losses and models, masked and slim, after some steps before the cut and some after it."""
    masked, x = made
    masked.train(train)
    held = zeros_of(masked)
    optimizer = make(masked.parameters())
    for _ in range(3):
        step_(masked, x, optimizer, held)
    slim = copy.deepcopy(masked)
    other = make(slim.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    result = surgery.shrink(slim, x, inplace=True)
    assert result.plan.removed_channels > 0
    surgery.cut_optimizer_(other, result.plan, result.model)
    for each, net in ((optimizer, masked), (other, result.model)):
        if clip is not None:
            each.register_step_pre_hook(
                lambda *_, net=net: torch.nn.utils.clip_grad_norm_(net.parameters(), clip) and None
            )
    left = [step_(masked, x, optimizer, held) for _ in range(steps)]
    right = [step_(result.model, x, other) for _ in range(steps)]
    return left, right, masked, result.model, result.plan


def apart(masked: nn.Module, slim: nn.Module, plan: surgery.Plan) -> float:
    """The largest difference of any surviving element."""
    cut = plan.apply(masked)
    return max(float((a - b).detach().abs().max()) for a, b in zip(cut.parameters(), slim.parameters(), strict=True))


@pytest.mark.parametrize("make", MAIN.values(), ids=MAIN)
@pytest.mark.parametrize("net", NETS)
def test_steps_are_those_of_the_masked_model(net: Callable[[], tuple[nn.Module, Tensor]], make: Make) -> None:
    left, right, masked, slim, plan = both(net(), make)
    assert left[0] > left[-1]
    torch.testing.assert_close(torch.tensor(left), torch.tensor(right), rtol=1e-10, atol=1e-10)
    assert apart(masked, slim, plan) < 1e-10


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_so_are_those_of_every_optimizer_that_treats_each_element_by_itself(make: Make) -> None:
    left, right, masked, slim, plan = both(mlp(), make)
    torch.testing.assert_close(torch.tensor(left), torch.tensor(right), rtol=1e-10, atol=1e-10)
    assert apart(masked, slim, plan) < 1e-10


def test_norms_over_whole_tensors_and_clipping_by_the_global_norm_see_nothing_of_zeros() -> None:
    from timm.optim import Lamb, Lars

    for make in (lambda p: Lamb(p, lr=1e-2), lambda p: Lars(p, lr=0.1, momentum=0.9, weight_decay=1e-2)):
        left, _, masked, slim, plan = both(mlp(), make)
        assert apart(masked, slim, plan) < 1e-10
        assert left[0] != left[-1]
    left, _right, masked, slim, plan = both(mlp(), MAIN["sgd"], clip=0.05)
    assert apart(masked, slim, plan) < 1e-10
    assert left != both(mlp(), MAIN["sgd"])[0]  # it did clip


def rows_only() -> tuple[nn.Module, Tensor]:
    """Dead channels that something reads: what they got there was zero, what comes back to them is not."""
    net, x = mlp()
    with torch.no_grad():
        net[4].weight[:, 1::3] = 0.3
    return net, x


def test_clipping_sees_gradients_of_rows_that_are_only_held_at_zero() -> None:
    """Without clipping the steps agree; with it the masked model's gradients are longer, and cut shorter."""
    _, _, masked, slim, plan = both(rows_only(), MAIN["sgd"])
    assert apart(masked, slim, plan) < 1e-10
    _, _, masked, slim, plan = both(rows_only(), MAIN["sgd"], clip=0.05)
    assert apart(masked, slim, plan) > 1e-6


def shifted() -> tuple[nn.Module, Tensor]:
    """A BatchNorm whose dead channels still send a constant on."""
    net, x = batch_norm()
    with torch.no_grad():
        net[1].bias[1::2], net[3].weight[:, 1::2] = 0.5, 0.1
    return net, x


def test_a_folded_constant_does_not_move_any_more() -> None:
    """In eval mode the outputs agree, the next training step does not: BatchNorm or not."""
    for train in (True, False):
        masked, x = shifted()
        result = surgery.shrink(masked, x)
        assert result.plan.folds
        torch.testing.assert_close(result.model.eval()(x), masked.eval()(x), rtol=1e-10, atol=1e-10)
        left, right, masked, _slim, _ = both(shifted(), MAIN["sgd"], train=train)
        assert abs(left[-1] - right[-1]) > 1e-6 * abs(left[-1])


def test_a_step_that_depends_on_how_many_elements_there_are_is_another() -> None:
    for make in (
        lambda p: torch.optim.Adafactor(p, lr=0.1),
        lambda p: torch.optim.Muon([q for q in p if q.dim() == 2]),
    ):
        _, _, masked, slim, plan = both(mlp(), make)
        assert apart(masked, slim, plan) > 1e-6


def test_what_the_plan_multiplies_takes_other_steps() -> None:
    """The loss agrees, the step of SGD after it does not: the gain's is half of what it was."""

    def narrowed() -> tuple[nn.Module, Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 8), nn.RMSNorm(8, eps=1e-6), nn.Linear(8, 3)).double()
        with torch.no_grad():
            net[0].weight[::2], net[0].bias[::2], net[1].weight[::2], net[2].weight[:, ::2] = 0, 0, 0, 0
        return net, torch.randn(4, 5, dtype=torch.float64)

    left, right, masked, slim, plan = both(narrowed(), OTHERS["plain sgd"], steps=1)
    (scale,) = plan.scales
    assert left == pytest.approx(right, rel=1e-10)
    before = surgery.cut_ema_state(both(narrowed(), OTHERS["plain sgd"], steps=0)[2].state_dict(), plan)
    after = surgery.cut_ema_state(masked.state_dict(), plan)
    step, own = after["1.weight"] - before["1.weight"], slim[1].weight.detach() - before["1.weight"]
    torch.testing.assert_close(own, step / scale.factor**2, rtol=1e-8, atol=1e-14)
    assert scale.factor**2 == pytest.approx(2)
