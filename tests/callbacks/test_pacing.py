"""A schedule by the count of a loop of nobody's: steps, rounds, going on, and the places in an optimizer."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

import surgery
from surgery.callbacks.order import arrange_, names_in
from surgery.callbacks.pacing import Pace, figures
from surgery.errors import InputError
from surgery.schedules import keep_masks

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(3))
Y = torch.arange(16) % 3
CUTS = surgery.Iterative(0.5, how=surgery.Structured(), prunings=2)
MASKS = surgery.Gradual(0.8, updates=3)


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16, bias=False), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


def pace(schedule: Any, **given: Any) -> Pace:
    return Pace(schedule, given.get("x"), given.get("kwargs"), None, None)


def train(net: nn.Module, optimizer: torch.optim.Optimizer, own: Pace, counts: range) -> None:
    for count in counts:
        own.before(count, optimizer)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X), Y).backward()
        optimizer.step()


def begun(schedule: Any, total: int, first: int = 0, net: nn.Module | None = None) -> tuple[Any, Any, Pace]:
    net = net or make()
    own = pace(schedule)
    own.begin_(net, total=total, first=first, item=lambda: (X, Y))
    return net, torch.optim.Adam(net.parameters(), 1e-2), own


def test_rounds_share_the_steps_and_the_last_has_what_is_left_over() -> None:
    schedule = surgery.Iterative(0.5, prunings=3)
    net, optimizer, own = begun(schedule, 11)
    train(net, optimizer, own, range(11))
    assert [(change.round, change.step) for change in own.changes] == [(0, 0), (1, 0), (2, 0)]
    assert own.pruner is not None
    assert own.pruner.steps == 3


def test_steps_are_counted_from_where_the_loop_is() -> None:
    net, optimizer, own = begun(surgery.Gradual(0.8, updates=3), 110, first=100)
    train(net, optimizer, own, range(100, 110))
    assert [change.step for change in own.changes] == [0, 3, 7]


def test_a_step_that_comes_again_changes_nothing() -> None:
    _, optimizer, own = begun(MASKS, 8)
    assert len(own.before(0, optimizer)) == 1
    assert own.before(0, optimizer) == ()
    assert [change.step for change in own.before(7, optimizer)] == [3, 6]  # a loop that counts in larger steps
    assert own.before(8, optimizer) == ()  # or goes on beyond its end
    assert len(own.changes) == 3


@pytest.mark.parametrize("schedule", [CUTS, MASKS, surgery.LotteryTicket(0.6, prunings=2)])
def test_a_run_goes_on_from_its_state_with_the_optimizer_in_its_places(schedule: Any) -> None:
    net, optimizer, own = begun(schedule, 10)
    train(net, optimizer, own, range(7))
    file = io.BytesIO()
    state = {"own": own.state([optimizer], net), "net": net.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, file)
    train(net, optimizer, own, range(7, 10))

    file.seek(0)
    kept = torch.load(file, weights_only=True)
    again, other = make(), pace(schedule)
    other.resume_(again, kept["own"])
    again.load_state_dict(kept["net"])
    restored = torch.optim.Adam(again.parameters(), 1e-2)
    restored.load_state_dict(kept["optimizer"])
    for names in other.names:
        arrange_(restored, again, names)
    other.begin_(again, total=10, first=7, item=lambda: (X, Y))
    train(again, restored, other, range(7, 10))
    torch.testing.assert_close(again.state_dict(), net.state_dict(), rtol=0, atol=0)
    assert [sorted(names) for names in names_in(optimizer, net)] == [
        sorted(names) for names in names_in(restored, again)
    ]


def test_the_state_of_a_masked_weight_finds_its_place() -> None:
    """A mask puts its parameter behind the bias: an optimizer that is made then has another order."""
    net, own = make(), [nn.Parameter(torch.tensor(1.0 * n)) for n in (1, 2)]  # a criterion's
    early = torch.optim.Adam([own[0], *net.parameters(), own[1]])
    surgery.sparsify_(net, 0.5)
    late = torch.optim.Adam([*net.parameters(), *own])
    assert names_in(early, net) != names_in(late, net)
    (net(X).sum() + own[0] * own[1]).backward()
    early.step()
    late.load_state_dict(early.state_dict())
    arrange_(late, net, names_in(early, net))
    for name, parameter in net.named_parameters():
        assert torch.equal(late.state[parameter]["exp_avg"], early.state[parameter]["exp_avg"]), name
    assert [float(late.state[p]["exp_avg"]) for p in own] == [float(early.state[p]["exp_avg"]) for p in own]
    with pytest.raises(InputError, match="groups hold other parameters"):
        arrange_(late, net, [["0.weight"]])


def test_the_example_is_two_samples_of_the_first_batch_without_labels() -> None:
    net = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).train()
    before, random = net[0].running_mean.clone(), torch.get_rng_state()
    _, _, own = begun(CUTS, 8, net=net)
    assert own.pruner is not None
    assert own.pruner.inputs is not None
    assert [tuple(tensor.shape) for tensor in own.pruner.inputs.tensors()] == [(2, 8)]
    assert net.training
    assert torch.equal(net[0].running_mean, before)
    assert torch.equal(torch.get_rng_state(), random)


def test_masks_need_no_example_and_cuts_ask_for_one() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside = make()

        def forward(self, x: torch.Tensor, scale: float) -> torch.Tensor:
            return self.inside(x) * scale

    net, optimizer, own = begun(MASKS, 8, net=Picky())
    own.before(0, optimizer)
    assert keep_masks(net)
    assert figures(own.changes[0]).keys() == {"pruning/amount", "pruning/sparsity", "pruning/params"}
    with pytest.raises(
        InputError, match=r"Picky cannot be called with what the first batch holds: .*\n.*example_inputs"
    ):
        begun(CUTS, 8, net=Picky())
    own = pace(CUTS, x=X[:3], kwargs={"scale": 2.0})
    own.begin_(Picky(), total=8, first=0, item=lambda: (X, Y))
    assert own.pruner is not None
    assert own.pruner.dense["params"] == sum(p.numel() for p in make().parameters())


def test_refusals() -> None:
    with pytest.raises(InputError, match="does not know how many steps"):
        begun(MASKS, float("inf"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has 1 steps left, the schedule 2 rounds"):
        begun(CUTS, 5, first=4)
    net, optimizer, own = begun(MASKS, 8)
    state = own.state([optimizer], net)
    with pytest.raises(InputError, match=r"was written under Gradual\(.*the callback has Iterative\("):
        pace(CUTS).resume_(make(), state)
    with pytest.raises(InputError, match="another version"):
        pace(MASKS).resume_(make(), {"format": "surgery.callbacks/0"})
    other = pace(MASKS)
    other.resume_(make(), state)
    with pytest.raises(InputError, match="begun for 8 steps, and now has 9"):
        other.begin_(make(), total=9, first=0, item=lambda: (X, Y))
    with pytest.raises(InputError, match="the schedule is a int"):
        pace(3)


def test_whether_all_comes_at_the_very_start() -> None:
    assert pace(surgery.OneShot(0.5)).one_change
    assert not pace(surgery.Iterative(0.5, prunings=2)).one_change
    assert not pace(MASKS).one_change
    assert not pace(surgery.LotteryTicket(0.5, prunings=1)).one_change
