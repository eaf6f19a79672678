from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import surgery
from surgery.errors import InputError
from surgery.schedules import Change
from surgery.schedules.pruner import measures
from surgery.schedules.wearing import early_values

STEPS = 4


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


X = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def data():
    generator = torch.Generator().manual_seed(2)
    pictures, labels = torch.randn(32, 1, 8, 8, generator=generator), torch.arange(32) % 5
    return list(zip(pictures.split(8), labels.split(8), strict=True))


def trained(schedule, model, *, make=torch.optim.AdamW, stop=None, pruner=None, rounds=None):
    """The net after a schedule, what changed, the optimizer, and the pruner."""
    pruner = pruner or surgery.Pruner(schedule, model, steps=STEPS, example_inputs=X, data=data(), loss=F.cross_entropy)
    optimizer, changes = make(pruner.model.parameters(), lr=1e-2), []
    for turn in range(pruner.rounds) if rounds is None else rounds:
        for step, (x, y) in enumerate(data()):
            change = pruner.before_step(turn, step, optimizer)
            changes += [change] if change else []
            optimizer.zero_grad()
            F.cross_entropy(pruner.model(x), y).backward()
            optimizer.step()
    return pruner.model, changes, optimizer, pruner


def test_cuts_happen_in_place_and_the_optimizer_goes_on_with_the_smaller_net():
    model = net()
    same, changes, optimizer, _ = trained(surgery.Iterative(0.75, 3, how=surgery.Structured()), model)
    assert same is model
    dense = sum(p.numel() for p in net().parameters())
    for change, share in zip(changes, (0.25 ** (1 / 3), 0.25 ** (2 / 3), 0.25), strict=True):
        assert 0.75 * share * dense < change.params <= share * dense
        assert change.loss_slim == pytest.approx(change.loss_masked, abs=1e-5)
        assert change.max_rel_error < 1e-5
        assert change.resized
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    for parameter in model.parameters():
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape
    assert changes[-1].params == sum(p.numel() for p in model.parameters())


def test_a_bias_that_was_made_to_win_back_is_trained():
    model = net()
    _, changes, optimizer, _ = trained(surgery.OneShot(0.5, how=surgery.Structured()), model)
    assert changes[0].plan.made == ("3.bias",)
    assert any(model[3].bias is p for group in optimizer.param_groups for p in group["params"])
    assert optimizer.state[model[3].bias]["step"] == STEPS


@pytest.mark.parametrize("budget", ["macs", "keep_ratio", "size_bytes"])
def test_the_amount_is_of_the_net_as_it_was_at_first(budget):
    model = net()
    _, _, _, pruner = trained(surgery.Iterative(0.6, 2, how=surgery.Structured(budget, rungs=())), model)
    if budget == "keep_ratio":
        assert model[0].out_channels in (5, 6)
        assert model[3].out_channels in (6, 7)
        return
    left = measures(model, pruner.inputs)[budget] / pruner.dense[budget]
    assert 0.3 < left <= 0.4


def test_a_cut_leaves_the_train_mode_loss_where_nothing_was_folded():
    model = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, bias=False))
    model = nn.Sequential(*model, nn.Flatten(), nn.Linear(64, 5, bias=False)).double()
    with torch.no_grad():
        for channels in (model[1].weight, model[1].bias, model[0].weight):
            channels[::2] = 0
    x, y = data()[0]
    before = F.cross_entropy(copy.deepcopy(model).train()(x.double()), y)
    plan = surgery.shrink(model, X.double()).plan
    slim = plan.apply_(model).train()
    assert slim[0].out_channels == 4
    torch.testing.assert_close(F.cross_entropy(slim(x.double()), y), before, rtol=0, atol=1e-12)


def test_masks_hold_channels_where_asked_and_shrink_cuts_them_later():
    model, changes, _, _ = trained(surgery.OneShot(0.6, how=surgery.Structured(cut=False)), net())
    assert model[3].weight.shape == (16, 12, 3, 3)
    assert changes[0].plan is None
    assert changes[0].zeros > 0.3
    result = surgery.shrink(model, X)
    assert result.proof.passed
    assert result.params_after <= 0.45 * result.params_before


def test_a_ticket_is_the_early_net_under_the_mask_of_the_trained_one():
    early = early_values(net())
    schedule = surgery.LotteryTicket(0.8, 2)
    pruner = surgery.Pruner(schedule, net(), steps=STEPS)
    optimizer = torch.optim.AdamW(pruner.model.parameters(), lr=1e-2)
    for turn in range(pruner.rounds):
        for step, (x, y) in enumerate(data()):
            change = pruner.before_step(turn, step, optimizer)
            if change:
                assert change.rewound
                assert not optimizer.state
                torch.testing.assert_close(early_values(pruner.model), early)
            optimizer.zero_grad()
            F.cross_entropy(pruner.model(x), y).backward()
            optimizer.step()
    assert change is None
    masks = surgery.keep_masks(pruner.model)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == pytest.approx(0.2 * total, abs=1)


def test_a_ticket_goes_back_to_the_step_that_it_was_told():
    reference, _, _, _ = trained(surgery.OneShot(0.01), net(), rounds=())
    pruner = surgery.Pruner(surgery.LotteryTicket(0.5, 1, rewind_to=2), reference, steps=STEPS)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    for step, (x, y) in enumerate(data()):
        pruner.before_step(0, step, optimizer)
        if step == 2:
            early = early_values(reference)
        optimizer.zero_grad()
        F.cross_entropy(reference(x), y).backward()
        optimizer.step()
    pruner.before_step(1, 0, optimizer)
    torch.testing.assert_close(early_values(reference), early)


def test_a_ticket_of_channels_is_cut_before_its_last_round():
    model, changes, _, _ = trained(surgery.LotteryTicket(0.6, 2, how=surgery.Structured()), net())
    assert [change.plan is None for change in changes] == [True, False]
    assert changes[-1].loss_slim == pytest.approx(changes[-1].loss_masked, abs=1e-5)
    assert model[3].weight.shape[0] < 16
    assert surgery.keep_masks(model) == {}


def test_early_values_given_are_gone_back_to():
    early, model = net().state_dict(), net()
    with torch.no_grad():
        model[7].weight += torch.randn(5, 16)
    pruner = surgery.Pruner(surgery.LotteryTicket(0.5, 1, early=early), model, steps=STEPS)
    assert pruner.before_step(0, 0).rewound
    masks = surgery.keep_masks(model)
    torch.testing.assert_close(model[7].weight, early["7.weight"] * masks["7.weight"])


@pytest.mark.parametrize(
    "schedule",
    [
        surgery.Iterative(0.7, 2, how=surgery.Structured()),
        surgery.Iterative(0.7, 2, how=surgery.Structured(cut=False)),
        surgery.Iterative(0.7, 2),
        surgery.LotteryTicket(0.7, 1),
    ],
)
def test_a_run_goes_on_from_its_state(schedule, tmp_path):
    whole, _, _, _ = trained(schedule, net(), make=torch.optim.SGD)
    model, _, _, pruner = trained(schedule, net(), make=torch.optim.SGD, rounds=(0,))
    torch.save({"pruner": pruner.state_dict(), "model": model.state_dict()}, tmp_path / "state.pt")

    state = torch.load(tmp_path / "state.pt", weights_only=True)
    again = surgery.Pruner(schedule, net(), steps=STEPS, example_inputs=X, data=data(), loss=F.cross_entropy)
    again.load_state_dict(state["pruner"])
    again.model.load_state_dict(state["model"])
    resumed, _, _, _ = trained(schedule, None, make=torch.optim.SGD, pruner=again, rounds=range(1, again.rounds))
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "schedule",
    [
        surgery.Iterative(0.7, 3, how=surgery.Structured()),
        surgery.LotteryTicket(0.6, 2, how=surgery.Structured()),
    ],
)
def test_a_net_that_was_cut_several_times_is_saved_and_loads_again(schedule, tmp_path):
    model, changes, _, pruner = trained(schedule, net())
    result = pruner.result()
    assert len(result.earlier) == sum(change.plan is not None for change in changes) - 1
    assert (result.params_before, result.params_after) == (
        sum(p.numel() for p in net().parameters()),
        sum(p.numel() for p in model.parameters()),
    )
    assert result.proof.passed
    assert (f"cut {len(result.plans)} times while it trained" in str(result)) == (len(result.plans) > 1)
    surgery.save(result, tmp_path / "slim")
    again = surgery.load(tmp_path / "slim", net)
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(again.eval()(X), model.eval()(X), rtol=0, atol=0)
    with pytest.raises(InputError, match="does not fit the model"):
        surgery.load(tmp_path / "slim", again)


def test_before_a_cut_there_is_no_result():
    _, _, _, pruner = trained(surgery.OneShot(0.5), net())
    assert pruner.result() is None


def test_a_change_goes_through_plain_data():
    _, changes, _, _ = trained(surgery.OneShot(0.5, how=surgery.Structured()), net())
    plain = json.loads(json.dumps(changes[0].as_dict()))
    assert Change.from_dict(plain, changes[0].plan) == changes[0]


def test_random_numbers_go_on_as_if_nothing_had_been_cut():
    pruner = surgery.Pruner(
        surgery.OneShot(0.5, how=surgery.Structured(importance="random")), net(), steps=1, example_inputs=X, data=data()
    )
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    pruner.before_step(0, 0)
    torch.testing.assert_close(torch.randn(4), expected)


def test_several_processes_do_what_the_first_one_decides():
    told = []

    def first(make):
        told.append(make())
        return told[-1]

    schedule = surgery.OneShot(0.6, how=surgery.Structured())
    models = [net(), net()]
    for model, share in zip(models, (first, lambda make: told[0]), strict=True):
        pruner = surgery.Pruner(
            schedule, model, steps=1, example_inputs=X, data=data(), loss=F.cross_entropy, share=share
        )
        pruner.before_step(0, 0)
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in models]
    assert shapes[0] == shapes[1]
    assert len(told) == 1


def test_what_it_cannot_work_with_is_refused():
    with pytest.raises(InputError, match="the schedule is a float"):
        surgery.Pruner(0.5, net(), steps=1)
    with pytest.raises(InputError, match="there is no example"):
        surgery.Pruner(surgery.OneShot(0.5, how=surgery.Structured()), net(), steps=1)
    with pytest.raises(InputError, match="a round has 0 steps"):
        surgery.Pruner(surgery.OneShot(0.5), net(), steps=0)
    with pytest.raises(InputError, match="no state of a Pruner"):
        surgery.Pruner(surgery.OneShot(0.5), net(), steps=1).load_state_dict({"cuts": []})
    pruner = surgery.Pruner(surgery.LotteryTicket(0.5, 1), net(), steps=4)
    with pytest.raises(InputError, match="there are no early values"):
        pruner.before_step(1, 0)
