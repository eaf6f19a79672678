from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import torch

from surgery.latency import timing
from surgery.latency.runtime import Call
from surgery.latency.timing import Device, Enough, order, time_calls

BRIEF = Enough(min_pairs=5, min_seconds=0, max_seconds=0, warmup_seconds=0)


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
    samples, _ = time_calls([Call(lambda: calls.append("a")), Call(lambda: calls.append("b"))], BRIEF, Device())
    assert Counter(calls) == {"a": 15, "b": 15}
    assert "".join(calls[-10:]) == "".join("ab"[i] for turn in range(5) for i in order(2, turn))
    for each in samples:
        assert (len(each.latency_ms), len(each.cpu_ms), each.device_ms) == (5, 5, [])
        assert min(each.latency_ms) > 0


def test_warming_up_lasts_as_long_as_asked_for_each_model() -> None:
    began = time.perf_counter()
    calls: list[int] = []
    time_calls([Call(lambda: calls.append(1))] * 2, Enough(2, 0, 0, 0.02), Device())
    assert time.perf_counter() - began > 0.04
    assert len(calls) > 24


def test_a_slow_call_is_seen_to_be_slow() -> None:
    numbers = list(range(20_000))
    slow, fast = Call(lambda: sum(numbers)), Call(lambda: None)
    (long, short), _ = time_calls([slow, fast], BRIEF, Device())
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
    (samples,), _ = time_calls([Call(lambda: log.append("run"))], Enough(2, 0, 0, 0), device)
    assert log == ["run", "wait"] * 10 + ["wait", "record", "run", "record", "wait"] * 2
    assert samples.device_ms == [7.0, 7.0]


def test_inputs_are_put_back_before_every_run() -> None:
    log: list[str] = []
    call = Call(lambda: log.append("run"), lambda: log.append("reset"))
    time_calls([call], BRIEF, Device())
    assert log == ["reset", "run"] * 15


def test_no_garbage_collection_and_no_gradients_while_timing() -> None:
    seen: list[tuple[bool, bool]] = []
    call = Call(lambda: seen.append((gc.isenabled(), torch.is_inference_mode_enabled())))
    time_calls([call], BRIEF, Device())
    assert set(seen[-5:]) == {(False, True)}
    assert gc.isenabled()


def test_it_goes_on_until_the_ratios_have_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Iterator[bool] = iter([False, False, True])
    monkeypatch.setattr(timing, "settled", lambda a, b: next(answers))
    (samples, _), settled = time_calls([Call(lambda: None)] * 2, Enough(5, 0, 1000, 0), Device())
    assert settled
    assert len(samples.latency_ms) == 25  # asked after 5, 15 and 25 rounds


def test_every_model_must_settle_against_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "settled", lambda a, b: len(a) >= 15)
    three, settled = time_calls([Call(lambda: None)] * 3, Enough(5, 0, 1000, 0), Device())
    assert settled
    assert [len(s.latency_ms) for s in three] == [15] * 3


def test_time_runs_out_but_never_before_the_least_number_of_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "settled", lambda a, b: False)
    (samples, _), settled = time_calls([Call(lambda: None)] * 2, Enough(30, 0, 0, 0), Device())
    assert not settled
    assert len(samples.latency_ms) == 30


def test_a_least_time_is_kept_though_the_ratio_has_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "settled", lambda a, b: True)
    (samples, _), _ = time_calls([Call(lambda: None)] * 2, Enough(2, 0.02, 1000, 0), Device())
    assert len(samples.latency_ms) > 2
