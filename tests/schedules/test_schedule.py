from __future__ import annotations

import itertools

import pytest
import torch

from surgery.errors import InputError
from surgery.schedules import Gradual, Iterative, LotteryTicket, OneShot, Structured, Unstructured


def test_all_at_once_is_one_event_before_the_first_step():
    (event,) = OneShot(0.7).events(0, 100)
    assert (event.step, event.amount, event.rewind, event.last) == (0, 0.7, False, True)
    assert OneShot(0.7).rounds == 1


def test_every_round_takes_the_same_share_of_what_is_left():
    schedule = Iterative(0.9, prunings=3)
    events = [event for turn in range(schedule.rounds) for event in schedule.events(turn, 10)]
    left = [1.0, *(1 - event.amount for event in events)]
    ratios = [after / before for before, after in itertools.pairwise(left)]
    torch.testing.assert_close(torch.tensor(ratios), torch.full((3,), 0.1 ** (1 / 3)))
    assert events[-1].amount == pytest.approx(0.9)
    assert [event.last for event in events] == [False, False, True]


def test_a_lottery_ticket_trains_once_more_than_it_prunes():
    schedule = LotteryTicket(0.8, prunings=2)
    assert schedule.rounds == 3
    assert schedule.events(0, 10) == ()
    assert [schedule.events(turn, 10)[0].rewind for turn in (1, 2)] == [True, True]
    assert schedule.events(2, 10)[0].amount == pytest.approx(0.8)
    assert schedule.events(2, 10)[0].last
    assert not schedule.events(1, 10)[0].last
    assert [schedule.snapshot_at(10), LotteryTicket(0.8, rewind_to=3).snapshot_at(10)] == [0, 3]
    assert LotteryTicket(0.8, rewind_to=0.25).snapshot_at(10) == 2


def test_a_trained_net_with_its_early_values_needs_no_round_of_its_own():
    schedule = LotteryTicket(0.8, prunings=2, early={"weight": torch.zeros(1)})
    assert schedule.rounds == 2
    assert schedule.snapshot_at(10) is None
    assert schedule.events(0, 10)[0].amount == pytest.approx(1 - 0.2**0.5)
    assert "early" not in repr(schedule)


def test_the_cubic_of_zhu_and_gupta():
    events = Gradual(0.8, begin=0.1, end=0.5, updates=5).events(0, 100)
    assert [event.step for event in events] == [10, 20, 30, 40, 50]
    for k, event in enumerate(events, 1):
        assert event.amount == pytest.approx(0.8 * (1 - (1 - k / 5) ** 3))
    assert [event.last for event in events] == [False] * 4 + [True]


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_a_short_round_has_no_more_updates_than_steps_and_ends_at_the_amount(steps):
    events = Gradual(0.5, end=1.0, updates=20).events(0, steps)
    assert len({event.step for event in events}) == len(events) <= steps
    assert max(event.step for event in events) < steps
    assert events[-1].amount == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneShot(1.0), "amount is 1.0"),
        (lambda: OneShot(0), "amount is 0"),
        (lambda: OneShot(float("nan")), "amount is nan"),
        (lambda: OneShot(0.5, how="l1"), "how is 'l1'"),
        (lambda: Iterative(0.5, prunings=0), "prunings is 0"),
        (lambda: Iterative(0.5, prunings=True), "prunings is True"),
        (lambda: LotteryTicket(0.5, rewind_to=-1), "rewind_to is -1"),
        (lambda: LotteryTicket(0.5, rewind_to=1.5), "rewind_to is 1.5"),
        (lambda: LotteryTicket(0.5, rewind_to=3, early={}), "rewind_to and early were both given"),
        (lambda: LotteryTicket(0.5, rewind_to=10).snapshot_at(10), "rewind_to is step 10, a round has 10"),
        (lambda: Gradual(0.5, begin=0.5, end=0.5), "begin is 0.5 and end 0.5"),
        (lambda: Gradual(0.5, updates=0), "updates is 0"),
        (lambda: Unstructured("taylor"), "importance is 'taylor'"),
        (lambda: Structured("flops"), "budget is 'flops'"),
    ],
)
def test_what_is_no_schedule_is_refused_with_its_value(make, message):
    with pytest.raises(InputError, match=message):
        make()
