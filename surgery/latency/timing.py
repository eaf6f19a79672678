"""The clock: calls of several models interleaved in balanced order, until the samples are enough."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from surgery.latency.runtime import Call
from surgery.latency.statistics import settled

WARMUP_CALLS = 10
WARMUP_SECONDS = 0.5


class Event(Protocol):
    """What is used of a `torch.cuda.Event`."""

    def record(self) -> Any:
        """Mark this point of the device's queue."""

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds on the device between two recorded events."""


@dataclass(frozen=True)
class Device:
    """What the clock must do beside reading the time. On a CPU: nothing."""

    synchronize: Callable[[], None] = lambda: None
    event: Callable[[], Event] | None = None


def device_of(name: str) -> Device:
    """The `Device` of "cpu", "cuda" or "cuda:1"."""
    if torch.device(name).type == "cpu":
        return Device()
    torch.cuda.set_device(torch.device(name).index or 0)
    return Device(torch.cuda.synchronize, lambda: torch.cuda.Event(enable_timing=True))


@dataclass(frozen=True)
class Enough:
    """When to stop: at least `min_pairs` rounds and `min_seconds`, then as soon as every ratio with the first model
    is settled, at the latest after `max_seconds`. Before that, each model runs 10 times and `warmup_seconds` long.
    """

    min_pairs: int
    min_seconds: float
    max_seconds: float
    warmup_seconds: float = WARMUP_SECONDS


@dataclass(frozen=True)
class Samples:
    """One model's calls: wall time, processor time of the process, and time on the device where there is one."""

    latency_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    device_ms: list[float] = field(default_factory=list)


def order(count: int, turn: int) -> list[int]:
    """Which model runs when in round `turn`: rotated every second round, every second round backwards.

    Over 2 · count rounds each model runs equally often in each place, and as often before as after each other one.
    """
    turned = [(place + turn // 2) % count for place in range(count)]
    return turned[::-1] if turn % 2 else turned


def time_calls(calls: Sequence[Call], enough: Enough, device: Device) -> tuple[list[Samples], bool]:
    """Warm up, then time the calls round by round; whether the ratios settled before `max_seconds` comes with them."""
    with torch.inference_mode():
        _warm_up(calls, enough.warmup_seconds, device)
        with _no_garbage_collection():
            return _rounds(calls, enough, device)


def _warm_up(calls: Sequence[Call], seconds: float, device: Device) -> None:
    """At least 10 calls of each, and `seconds` for each."""
    end, done = time.perf_counter() + seconds * len(calls), 0
    while done < WARMUP_CALLS or time.perf_counter() < end:
        for index in order(len(calls), done):
            if (reset := calls[index].reset) is not None:
                reset()
            calls[index].run()
            device.synchronize()
        done += 1


def _rounds(calls: Sequence[Call], enough: Enough, device: Device) -> tuple[list[Samples], bool]:
    samples = [Samples() for _ in calls]
    began, turn, ask = time.perf_counter(), 0, enough.min_pairs
    while True:
        for index in order(len(calls), turn):
            _time(calls[index], samples[index], device)
        turn += 1
        seconds = time.perf_counter() - began
        if turn < enough.min_pairs or seconds < enough.min_seconds:
            continue
        if turn >= ask:
            if all(settled(samples[0].latency_ms, other.latency_ms) for other in samples[1:]):
                return samples, True
            ask = turn + max(10, turn // 10)
        if seconds >= enough.max_seconds:
            return samples, False


def _time(call: Call, samples: Samples, device: Device) -> None:
    if call.reset is not None:
        call.reset()
    start, end = (device.event(), device.event()) if device.event else (None, None)
    device.synchronize()
    cpu_began = time.process_time_ns()
    began = time.perf_counter_ns()
    if start is not None:
        start.record()
    output = call.run()
    if end is not None:
        end.record()
    device.synchronize()
    ended = time.perf_counter_ns()
    cpu_ended = time.process_time_ns()
    del output  # kept until here: giving its memory back is not part of the call
    samples.latency_ms.append((ended - began) / 1e6)
    samples.cpu_ms.append((cpu_ended - cpu_began) / 1e6)
    if start is not None:
        samples.device_ms.append(start.elapsed_time(end))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
