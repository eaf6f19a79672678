"""An optimizer's state and groups after the cut."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim import SGD, Adam, AdamW, Optimizer

import surgery
from surgery.errors import InputError, PlanError
from tests.training_nets import NETS, conv, insisting, mlp, step_, zeros_of


def trained(make: Callable[[Any], Optimizer], made: tuple[nn.Module, Tensor] | None = None) -> tuple[Any, ...]:
    net, x = made or mlp()
    optimizer = make(net.named_parameters())
    for _ in range(2):
        step_(net, x, optimizer, zeros_of(net))
    return net, x, optimizer


def moments(optimizer: Optimizer) -> dict[str, dict[str, Tensor]]:
    """States by the names that the optimizer knows."""
    return {
        name: optimizer.state[p]
        for group in optimizer.param_groups
        for name, p in zip(group["param_names"], group["params"], strict=True)
    }


def test_states_are_gathered_as_parameters_are() -> None:
    """A parameter that is its own momentum says where each element went; the grouped convolution's, too."""
    net, x, optimizer = trained(Adam, conv())
    for p in net.parameters():
        optimizer.state[p]["exp_avg"].copy_(p.detach())
    result = surgery.shrink(net, x)
    assert result.model[2].weight.shape == (4, 3, 3, 3)
    assert surgery.cut_optimizer_(optimizer, result.plan, result.model, of=net) is optimizer
    for name, state in moments(optimizer).items():
        p = result.model.get_parameter(name)
        torch.testing.assert_close(state["exp_avg"], p.detach(), rtol=0, atol=0)
        assert state["exp_avg_sq"].shape == p.shape
        assert state["step"] == 2
    assert [p for group in optimizer.param_groups for p in group["params"]] == list(result.model.parameters())


@pytest.mark.parametrize("net", NETS)
def test_in_place_and_over_a_copy_are_the_same(net: Callable[[], tuple[nn.Module, Tensor]]) -> None:
    net_, x, optimizer = trained(lambda p: AdamW(p, lr=1e-2), net())
    twin = copy.deepcopy((net_, optimizer))
    twin[1].param_groups[0]["params"][:] = list(twin[0].parameters())
    result = surgery.shrink(net_, x)
    surgery.cut_optimizer_(optimizer, result.plan, result.model, of=net_)
    scheduler = torch.optim.lr_scheduler.StepLR(twin[1], 1)
    result.plan.apply_(twin[0], x)
    surgery.cut_optimizer_(twin[1], result.plan, twin[0])
    for (name, a), (other, b) in zip(moments(optimizer).items(), moments(twin[1]).items(), strict=True):
        assert name == other
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    twin[1].step()
    scheduler.step()  # it holds on to the optimizer
    assert twin[1].param_groups[0]["lr"] == pytest.approx(1e-3)


def test_groups_settings_and_what_is_not_the_models_stay() -> None:
    net, x = mlp()
    net[4].weight.requires_grad_(False)
    temperature = nn.Parameter(torch.ones(3, dtype=torch.float64))
    groups = [
        {"params": [net[2].weight, net[0].weight], "lr": 0.1, "name": "decay"},
        {"params": [net[0].bias, net[2].bias, temperature], "weight_decay": 0.0},
    ]
    optimizer = SGD(groups, lr=0.2, momentum=0.9, nesterov=True, foreach=True, weight_decay=0.3)
    (net(x).sum() * temperature.sum()).backward()
    optimizer.step()
    result = surgery.shrink(net, x, inplace=True)
    with pytest.raises(InputError, match=r"1 parameters that the model does not have .*, and not the model's 4\.bias"):
        surgery.cut_optimizer_(optimizer, result.plan, net)
    surgery.cut_optimizer_(optimizer, result.plan, net, of=net)
    first, second = optimizer.param_groups
    assert first["params"] == [net[2].weight, net[0].weight]
    assert second["params"] == [net[0].bias, net[2].bias, temperature]
    assert (first["lr"], first["name"], second["weight_decay"], first["foreach"]) == (0.1, "decay", 0.0, True)
    assert optimizer.state[temperature]["momentum_buffer"].shape == (3,)
    assert all(
        optimizer.state[p]["momentum_buffer"].shape == p.shape
        for group in optimizer.param_groups
        for p in group["params"]
    )
    assert len(optimizer.state) == 5


def test_a_tied_parameter_is_one() -> None:
    torch.manual_seed(0)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.mid, self.down = nn.Linear(4, 10), nn.Linear(10, 10), nn.Linear(4, 10)
            self.down.weight = self.up.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.mid(torch.relu(self.up(x)) * torch.relu(self.down(x)))

    net = Tied().double()
    with torch.no_grad():
        net.up.weight[:5], net.mid.weight[:, :5] = 0, 0
    x = torch.randn(4, 4, dtype=torch.float64)
    net, x, optimizer = trained(Adam, (net, x))
    result = surgery.shrink(net, x)
    surgery.cut_optimizer_(optimizer, result.plan, result.model, of=net)
    assert result.model.up.weight.shape == (5, 4)
    assert optimizer.param_groups[0]["params"] == list(result.model.parameters())
    assert optimizer.state[result.model.down.weight]["exp_avg"].shape == (5, 4)


def biasless() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3, bias=False), nn.Linear(3, 2)).double()
    with torch.no_grad():
        net[0].weight[::2], net[0].bias[::2] = 0, 1
    return net, torch.randn(4, 6, dtype=torch.float64)


def test_a_bias_that_a_fold_made_joins_the_other_biases_or_its_weight() -> None:
    net, x = biasless()
    weights, biases = [[p for p in net.parameters() if p.dim() == d] for d in (2, 1)]
    apart = SGD([{"params": weights}, {"params": biases, "weight_decay": 0.0}], lr=0.1, weight_decay=0.1)
    one, half = SGD(net.parameters(), lr=0.1), SGD([net[0].weight, net[0].bias], lr=0.1)
    result = surgery.shrink(net, x, inplace=True)
    assert net[2].bias is not None
    for optimizer in (apart, one, half):
        surgery.cut_optimizer_(optimizer, result.plan, net)
    assert apart.param_groups[1]["params"] == [net[0].bias, net[2].bias, net[3].bias]
    assert one.param_groups[0]["params"] == list(net.parameters())
    assert len(half.param_groups[0]["params"]) == 2  # its weight is not trained here


def test_masks_in_their_coats_go_on_and_norms_start_afresh() -> None:
    net, x = mlp()
    prune.custom_from_mask(net[0], "weight", (net[0].weight != 0))
    parametrizations.weight_norm(net[4])
    net, x, optimizer = trained(Adam, (net, x))
    before = {name: optimizer.state[p]["exp_avg"] for name, p in net.named_parameters()}
    result = surgery.shrink(net, x)
    surgery.cut_optimizer_(optimizer, result.plan, result.model, of=net)
    slim = result.model
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in slim.parameters()}
    torch.testing.assert_close(optimizer.state[slim[0].weight]["exp_avg"], before["0.weight_orig"][1::2])
    assert slim[4].weight not in optimizer.state
    assert "4.weight" in optimizer.param_groups[0]["param_names"]
    assert "0.weight" in optimizer.param_groups[0]["param_names"]
    assert "parametrizations" not in str(optimizer.param_groups[0]["param_names"])


def test_a_pruned_model_that_is_cut_in_place() -> None:
    """`weight_orig` stays the same object; norms leave parameters that nobody has any more, which is refused."""
    net, x = mlp()
    prune.custom_from_mask(net[0], "weight", (net[0].weight != 0))
    net, x, optimizer = trained(lambda p: SGD(p, lr=0.1, momentum=0.9), (net, x))
    result = surgery.shrink(net, x, inplace=True)
    surgery.cut_optimizer_(optimizer, result.plan, net)
    assert optimizer.param_groups[0]["params"] == list(net.parameters())
    assert optimizer.state[net[0].weight]["momentum_buffer"].shape == (6, 6)
    net, x = mlp()
    parametrizations.weight_norm(net[4])
    net, x, optimizer = trained(Adam, (net, x))
    result = surgery.shrink(net, x, inplace=True)
    with pytest.raises(
        InputError, match=r"2 parameters that the model does not have .*, and not the model's 4\.weight"
    ):
        surgery.cut_optimizer_(optimizer, result.plan, net)


def test_weights_that_part_with_their_masks_each_get_the_state() -> None:
    torch.manual_seed(0)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.a(x)) + torch.tanh(self.b(x)))

    net = Twice().double()
    for layer, row in ((net.a, 0), (net.b, 1)):
        mask = torch.ones(6, 4)
        mask[row], mask[5] = 0, 0
        prune.custom_from_mask(layer, "weight", mask)
        with torch.no_grad():
            layer.bias[5] = 0
    net, x, optimizer = trained(Adam, (net, torch.randn(4, 4, dtype=torch.float64)))
    result = surgery.shrink(net, x)
    surgery.cut_optimizer_(optimizer, result.plan, result.model, of=net)
    first, second = (optimizer.state[layer.weight] for layer in (result.model.a, result.model.b))
    torch.testing.assert_close(first["exp_avg"], second["exp_avg"])
    assert first["exp_avg"].shape == (5, 4)
    assert first["step"] is not second["step"]


def test_a_state_dict_is_cut_as_the_optimizer_is() -> None:
    net, x = biasless()
    names = ["0.weight", "2.weight", "3.weight", "3.bias", "0.bias"]
    groups = [{"params": [net.get_parameter(n) for n in part]} for part in (names[:3], names[3:])]
    optimizer = Adam(groups)
    step_(net, x, optimizer)
    with torch.no_grad():
        net[0].weight[::2] = 0
    saved = copy.deepcopy(optimizer.state_dict())
    result = surgery.shrink(net, x)
    cut = surgery.cut_optimizer_state(saved, result.plan, result.model, names)
    assert saved["state"][0]["exp_avg"].shape == (8, 6)
    surgery.cut_optimizer_(optimizer, result.plan, result.model, of=net)
    expected = optimizer.state_dict()
    assert cut["param_groups"] == expected["param_groups"]
    assert [len(group["params"]) for group in cut["param_groups"]] == [3, 3]
    torch.testing.assert_close(cut["state"], expected["state"], rtol=0, atol=0)
    again = Adam([{"params": group["params"]} for group in optimizer.param_groups])
    again.load_state_dict(cut)
    with pytest.raises(InputError, match="5 parameters in 2 groups without names"):
        surgery.cut_optimizer_state(saved, result.plan, result.model)
    with pytest.raises(InputError, match=r"parameter 0 has moments of \[8, 6\], 0\.bias was \[8\]"):
        surgery.cut_optimizer_state(saved, result.plan, result.model, names[::-1])
    with pytest.raises(InputError, match="3 names for 5 parameters"):
        surgery.cut_optimizer_state(saved, result.plan, result.model, names[:3])
    with pytest.raises(InputError, match=r"no parameter '5\.weight'"):
        surgery.cut_optimizer_state(saved, result.plan, result.model, [*names[:4], "5.weight"])
    with pytest.raises(InputError, match="it has 'model'"):
        surgery.cut_optimizer_state({"model": {}}, result.plan, result.model)


@pytest.mark.parametrize("named", [True, False])
def test_a_state_dict_knows_its_names_or_takes_the_models_order(named: bool) -> None:
    net, x = mlp()
    optimizer = Adam(net.named_parameters() if named else net.parameters())
    step_(net, x, optimizer, zeros_of(net))
    result = surgery.shrink(net, x)
    cut = surgery.cut_optimizer_state(optimizer.state_dict(), result.plan, result.model)
    assert cut["state"][2]["exp_avg"].shape == (6, 6)
    assert ("param_names" in cut["param_groups"][0]) is named


def test_a_state_dict_may_hold_parameters_of_something_else() -> None:
    net, x = mlp()
    temperature = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = Adam([*net.parameters(), temperature])
    temperature.grad = torch.ones_like(temperature)
    optimizer.step()
    step_(net, x, optimizer, zeros_of(net))
    result = surgery.shrink(net, x)
    names = [*(name for name, _ in net.named_parameters()), None]
    cut = surgery.cut_optimizer_state(optimizer.state_dict(), result.plan, result.model, names)
    assert cut["state"][6]["exp_avg"].shape == (3,)
    assert cut["param_groups"][0]["params"] == list(range(7))


def test_adafactors_factors_are_means_over_what_is_left() -> None:
    """Row times column over their mean is what it was, where nothing was removed."""
    net, x, optimizer = trained(torch.optim.Adafactor, conv())
    result = surgery.shrink(net, x)
    full = {n: estimate(optimizer.state[p]) for n, p in net.named_parameters() if p.dim() > 1}
    flat = result.plan.axis("2.weight", 1)
    surgery.cut_optimizer_(optimizer, result.plan, result.model, of=net)
    for name, p in result.model.named_parameters():
        if p.dim() == 1:
            assert optimizer.state[p]["variance"].shape == p.shape
            continue
        left = estimate(optimizer.state[p])
        assert left.shape == p.shape
        rows = full[name][list(result.plan.axis(name, 0).keep)]
        if name == "2.weight":  # rows 1, 2 are of conv group 0, rows 6, 7 of group 1
            assert flat.keep == (0, 2, 3, 4, 5, 7)
            rows = torch.cat([rows[:2, [0, 2, 3]], rows[2:, [0, 1, 3]]])
        elif name == "4.weight":
            rows = full[name][:, list(result.plan.axis(name, 1).keep)]
        torch.testing.assert_close(left, rows)


def estimate(state: dict[str, Tensor]) -> Tensor:
    row, column = state["row_var"], state["col_var"]
    return row @ column / row.mean(-2, keepdim=True).clamp(min=1e-30)


def test_a_factored_matrix_keeps_its_estimate() -> None:
    net, x = mlp()
    net[4] = nn.Linear(9, 1).double()  # the factor of its only row is a number
    with torch.no_grad():
        net[4].weight[:, 1::3] = 0
    optimizer = torch.optim.Adafactor(net.parameters())
    step_(net, x, optimizer, zeros_of(net))
    last = estimate(optimizer.state[net[4].weight])
    row = optimizer.state[net[4].weight]["row_var"]
    result = surgery.shrink(net, x)
    before = estimate(optimizer.state[net[2].weight])
    surgery.cut_optimizer_(optimizer, result.plan, result.model, of=net)
    rows, columns = [0, 2, 3, 5, 6, 8], [1, 3, 5, 7, 9, 11]
    torch.testing.assert_close(estimate(optimizer.state[result.model[2].weight]), before[rows][:, columns])
    torch.testing.assert_close(estimate(optimizer.state[result.model[4].weight]), last[:, rows])
    torch.testing.assert_close(optimizer.state[result.model[4].weight]["row_var"], row * 9 / 6)


def test_what_the_optimizer_calls_its_parameters_stays() -> None:
    net, x = mlp()
    optimizer = Adam([(f"module.{name}", p) for name, p in net.named_parameters()])
    result = surgery.shrink(net, x)
    surgery.cut_optimizer_(optimizer, result.plan, result.model, of=net)
    names = [f"module.{name}" for name, _ in result.model.named_parameters()]
    assert optimizer.param_groups[0]["param_names"] == names


def test_moments_of_what_the_plan_multiplies_are_those_of_its_gradients() -> None:
    """An RMSNorm of 8 channels of which 4 are left: gains are larger by the root of 2, gradients smaller."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.RMSNorm(8, eps=1e-6), nn.Linear(8, 3)).double()
    with torch.no_grad():
        net[0].weight[::2], net[0].bias[::2] = 0, 0
    x = torch.randn(4, 5, dtype=torch.float64)
    # betas of 0: moments are this step's gradients, and a step of 0 moves nothing
    optimizer = Adam(net.parameters(), lr=0.0, betas=(0.0, 0.0))
    step_(net, x, optimizer)
    result = surgery.shrink(net, x)
    (scale,) = result.plan.scales
    slim = result.model
    surgery.cut_optimizer_(optimizer, result.plan, slim, of=net)
    fresh = Adam(slim.parameters(), lr=0.0, betas=(0.0, 0.0))
    step_(slim, x, fresh)
    assert scale.factor == pytest.approx(2**0.5)
    for p in slim.parameters():
        for key in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(optimizer.state[p][key], fresh.state[p][key], rtol=1e-9, atol=1e-12)
    optimizer = SGD(net.parameters(), lr=0.1)
    optimizer.state[net[1].weight]["velocity"] = torch.zeros(8)
    with pytest.raises(InputError, match=r"'velocity' of 1\.weight cannot be cut: the plan multiplies"):
        surgery.cut_optimizer_(optimizer, result.plan, slim, of=net)


def test_what_cannot_be_cut_is_refused_by_name_and_nothing_is_changed() -> None:
    net, x, optimizer = trained(lambda p: SGD(p, lr=0.1, momentum=0.9))
    optimizer.state[net[2].weight]["absmax"] = torch.zeros(3)
    result = surgery.shrink(net, x)
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(
        InputError, match=r"'absmax' of 2\.weight cannot be cut: it is \[3\], the parameter was \[9, 12\]"
    ):
        surgery.cut_optimizer_(optimizer, result.plan, result.model, of=net)
    torch.testing.assert_close(optimizer.state_dict()["state"], before["state"])
    assert optimizer.param_groups[0]["params"] == list(net.parameters())
    with pytest.raises(InputError, match="holds 6 parameters that the model does not have"):
        surgery.cut_optimizer_(optimizer, result.plan, result.model)
    with pytest.raises(PlanError, match=r"0\.weight is \[12, 6\], the plan leaves \[6, 6\]"):
        surgery.cut_optimizer_(optimizer, result.plan, net)
    with pytest.raises(PlanError, match=r"the slim model has no 6\.weight"):
        surgery.cut_optimizer_(optimizer, result.plan, result.model, of=nn.Sequential(*net, nn.ReLU(), nn.Linear(3, 1)))
    with pytest.raises(InputError, match=r"list is no torch\.optim\.Optimizer"):
        surgery.cut_optimizer_([], result.plan, result.model)  # type: ignore[type-var]
    lbfgs = torch.optim.LBFGS(net.parameters())
    lbfgs.step(lambda: (lbfgs.zero_grad(), net(x).square().mean(), net(x).square().mean().backward())[1])
    with pytest.raises(InputError, match="as LBFGS keeps it"):
        surgery.cut_optimizer_(lbfgs, result.plan, result.model, of=net)


def test_an_optimizer_is_cut_once() -> None:
    net, x, optimizer = trained(Adam)
    result = surgery.shrink(net, x, inplace=True)
    surgery.cut_optimizer_(optimizer, result.plan, net)
    with pytest.raises(
        InputError, match=r"'exp_avg' of 0\.weight cannot be cut: it is \[6, 6\], the parameter was \[12, 6\]"
    ):
        surgery.cut_optimizer_(optimizer, result.plan, net)


def test_a_captured_graph_has_the_same_names() -> None:
    net, x, optimizer = trained(Adam, insisting())
    result = surgery.shrink(net, x)
    assert result.kind == "graph"
    other = copy.deepcopy((net, optimizer.state_dict()))
    surgery.cut_optimizer_(optimizer, result.plan, result.model, of=net)
    masked, state = other
    reference = Adam(masked.parameters())
    reference.load_state_dict(state)
    for _ in range(3):
        held = zeros_of(masked)
        assert step_(result.model.train(), x, optimizer) == pytest.approx(step_(masked, x, reference, held), rel=1e-10)
