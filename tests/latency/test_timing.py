from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import torch

from surgery.latency import timing
from surgery.latency.runtime import Call
from surgery.latency.timing import Device, Enough, Samples, order, time_calls

BRIEF = Enough(min_pairs=5, min_seconds=0, max_seconds=0, warmup_seconds=0)


CPU = Device()


def once(calls: Sequence[Call], enough: Enough, device: Device = CPU) -> tuple[list[Samples], bool]:
    """Opened once."""
    timed = time_calls(lambda _: calls, enough, device, again=False)
    assert timed.sittings == (len(timed.samples[0].latency_ms),)
    return timed.samples, timed.settled


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_order_is_balanced(count: int) -> None:
    rounds = [order(count, turn) for turn in range(2 * count)]
    assert all(sorted(models) == list(range(count)) for models in rounds)
    assert set(Counter((place, m) for models in rounds for place, m in enumerate(models)).values()) == {2}
    before = Counter((a, b) for models in rounds for i, a in enumerate(models) for b in models[i + 1 :])
    assert all(n == count for n in before.values())
    assert len(before) == count * (count - 1)


def test_two_models_alternate_who_is_first() -> None:
    assert [order(2, turn) for turn in range(4)] == [[0, 1], [1, 0], [1, 0], [0, 1]]


def test_every_model_gets_a_sample_per_round_after_ten_warm_up_calls() -> None:
    calls: list[str] = []
    samples, _ = once([Call(lambda: calls.append("a")), Call(lambda: calls.append("b"))], BRIEF)
    assert Counter(calls) == {"a": 15, "b": 15}
    assert "".join(calls[-10:]) == "".join("ab"[i] for turn in range(5) for i in order(2, turn))
    for each in samples:
        assert (len(each.latency_ms), len(each.cpu_ms), each.device_ms) == (5, 5, [])
        assert min(each.latency_ms) > 0


def test_warming_up_lasts_as_long_as_asked_for_each_model() -> None:
    began = time.perf_counter()
    calls: list[int] = []
    once([Call(lambda: calls.append(1))] * 2, Enough(2, 0, 0, 0.02))
    assert time.perf_counter() - began > 0.04
    assert len(calls) > 24


def test_a_slow_call_is_seen_to_be_slow() -> None:
    numbers = list(range(20_000))
    slow, fast = Call(lambda: sum(numbers)), Call(lambda: None)
    (long, short), _ = once([slow, fast], BRIEF)
    assert min(long.latency_ms) > 10 * min(short.latency_ms)
    assert min(long.cpu_ms) > 0


def test_the_device_is_waited_for_before_either_clock_is_read() -> None:
    log: list[str] = []

    class FakeEvent:
        def record(self) -> None:
            log.append("record")

        def elapsed_time(self, end: object) -> float:
            assert isinstance(end, FakeEvent)
            assert end is not self
            return 7.0

    device = Device(lambda: log.append("wait"), FakeEvent)
    (samples,), _ = once([Call(lambda: log.append("run"))], Enough(2, 0, 0, 0), device)
    assert log == ["run", "wait"] * 10 + ["wait", "record", "run", "record", "wait"] * 2
    assert samples.device_ms == [7.0, 7.0]
    assert all(0 < host <= whole for host, whole in zip(samples.host_ms, samples.latency_ms, strict=True))


def test_inputs_are_put_back_before_every_run() -> None:
    log: list[str] = []
    call = Call(lambda: log.append("run"), lambda: log.append("reset"))
    once([call], BRIEF)
    assert log == ["reset", "run"] * 15


def test_no_garbage_collection_and_no_gradients_while_timing() -> None:
    seen: list[tuple[bool, bool]] = []
    call = Call(lambda: seen.append((gc.isenabled(), torch.is_inference_mode_enabled())))
    once([call], BRIEF)
    assert set(seen[-5:]) == {(False, True)}
    assert gc.isenabled()


def test_it_goes_on_until_the_ratios_have_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Iterator[bool] = iter([False, False, True])
    monkeypatch.setattr(timing, "settled", lambda a, b: next(answers))
    (samples, _), settled = once([Call(lambda: None)] * 2, Enough(5, 0, 1000, 0))
    assert settled
    assert len(samples.latency_ms) == 25  # asked after 5, 15 and 25 rounds


def test_every_model_must_settle_against_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "settled", lambda a, b: len(a) >= 15)
    three, settled = once([Call(lambda: None)] * 3, Enough(5, 0, 1000, 0))
    assert settled
    assert [len(s.latency_ms) for s in three] == [15] * 3


def test_time_runs_out_but_never_before_the_least_number_of_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "settled", lambda a, b: False)
    (samples, _), settled = once([Call(lambda: None)] * 2, Enough(30, 0, 0, 0))
    assert not settled
    assert len(samples.latency_ms) == 30


def test_a_least_time_is_kept_though_the_ratio_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "settled", lambda a, b: True)
    (samples, _), _ = once([Call(lambda: None)] * 2, Enough(2, 0.02, 1000, 0))
    assert len(samples.latency_ms) > 2


class Reopened:
    """Two models that are opened anew for each sitting; `log` says what was called, by sitting."""

    def __init__(self) -> None:
        self.log: list[list[str]] = []

    def __call__(self, sitting: int) -> list[Call]:
        assert sitting == len(self.log)
        self.log.append(calls := [])
        return [Call(lambda: calls.append("a")), Call(lambda: calls.append("b"))]


def test_models_are_opened_anew_until_their_ratio_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def settled(a: Sequence[float], b: Sequence[float], sittings: Sequence[int]) -> bool:
        assert len(a) == len(b) == sum(sittings)
        seen.append(len(sittings))
        return len(sittings) == 7

    monkeypatch.setattr(timing, "settled_between", settled)
    opened = Reopened()
    timed = time_calls(opened, Enough(10, 0, 100, 0), Device(), again=True)
    assert timed.settled
    assert seen == [5, 6, 7]  # not before there are five
    assert len(opened.log) == len(timed.sittings) == 7
    assert all(rounds >= 2 and rounds % 2 == 0 for rounds in timed.sittings)
    assert [len(one.latency_ms) for one in timed.samples] == [sum(timed.sittings)] * 2
    warm = [len(calls) // 2 - rounds for calls, rounds in zip(opened.log, timed.sittings, strict=True)]
    assert warm == [10, *[3] * 6]


def test_sittings_end_with_the_time_but_not_before_the_least_number_of_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "settled_between", lambda a, b, sittings: False)
    timed = time_calls(Reopened(), Enough(40, 0, 0, 0), Device(), again=True)
    assert not timed.settled
    assert sum(timed.sittings[:-1]) < 40 <= sum(timed.sittings)
    assert min(timed.sittings) >= 4


def test_opening_takes_no_more_of_the_time_than_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only opening (20) and calling (1) move on."""
    monkeypatch.setattr(timing, "settled_between", lambda a, b, sittings: True)
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def opened(sitting: int) -> list[Call]:
        clock[0] += 20
        return [Call(lambda: clock.__setitem__(0, clock[0] + 1))]

    timed = time_calls(opened, Enough(5, 0, 10_000, 0), Device(), again=True)
    assert timed.sittings == (2, 24, 24, 24, 24)  # 20 to open, 3 to warm up; an even number
