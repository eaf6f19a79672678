"""The clock: calls of several models interleaved in balanced order, in several sittings, until the samples are enough.

Between two sittings the models are opened anew, in the other order. Where the weights of a model lie in memory makes it
some percent faster or slower than its own copy, for as long as it stays open: within one sitting no number of calls
averages that out.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from surgery.latency.runtime import Call
from surgery.latency.statistics import settled, settled_between

WARMUP_CALLS = 10
WARMUP_SECONDS = 0.5

AGAIN_CALLS = 3
AGAIN_SHARE = 0.2
"""The warm-up of models that were opened anew: the processor and the libraries are warm already."""

SITTINGS = 5
"""The least number of sittings, where the models can be opened anew, and that does not take twice the time given."""

LEAST_ROUNDS = 0.1
"""Of the least number of rounds, so much at least in each sitting."""


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
    """One model's calls: wall time and processor time of the process; where there is a device, its time by its own
    events, and the time until the call returned.
    """

    latency_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    device_ms: list[float] = field(default_factory=list)
    host_ms: list[float] = field(default_factory=list)


def order(count: int, turn: int) -> list[int]:
    """Which model runs when in round `turn`: rotated every second round, every second round backwards.

    Over 2 · count rounds each model runs equally often in each place, and as often before as after each other one.
    """
    turned = [(place + turn // 2) % count for place in range(count)]
    return turned[::-1] if turn % 2 else turned


@dataclass(frozen=True)
class Timed:
    """What was timed.

    Attributes:
        samples: Of each model, one per round.
        sittings: The number of rounds in each sitting.
        settled: Whether every ratio with the first model was certain enough before time ran out.
    """

    samples: list[Samples]
    sittings: tuple[int, ...]
    settled: bool


def time_calls(opened: Callable[[int], Sequence[Call]], enough: Enough, device: Device, *, again: bool) -> Timed:
    """Warm up, then time the calls round by round.

    Args:
        opened: The calls of sitting 0, 1, 2, ...; the last ones are forgotten before it is asked for the next.
        enough: When to stop.
        device: What the calls run on.
        again: Whether there is more than one sitting.
    """
    samples: list[Samples] = []
    sittings: list[int] = []
    began = time.perf_counter()
    while True:
        opening = time.perf_counter()
        calls = opened(len(sittings))
        samples = samples or [Samples() for _ in calls]
        with torch.inference_mode():
            _warm_up(calls, enough.warmup_seconds, device, first=not sittings)
            if not again:
                with _no_garbage_collection():
                    count, sure = _rounds(calls, samples, enough, device)
                return Timed(samples, (count,), sure)
            least = max(enough.min_seconds / (SITTINGS + 1), time.perf_counter() - opening if sittings else 0.0)
            with _no_garbage_collection():
                sittings.append(_sitting(calls, samples, math.ceil(LEAST_ROUNDS * enough.min_pairs), least, device))
        del calls
        seconds = time.perf_counter() - began
        if sum(sittings) < enough.min_pairs or seconds < enough.min_seconds:
            continue
        first, *others = (one.latency_ms for one in samples)
        if len(sittings) >= SITTINGS and all(settled_between(first, other, sittings) for other in others):
            return Timed(samples, tuple(sittings), True)
        over = seconds >= enough.max_seconds if len(sittings) >= SITTINGS else seconds >= 2 * enough.max_seconds
        if over:
            return Timed(samples, tuple(sittings), False)


def _warm_up(calls: Sequence[Call], seconds: float, device: Device, *, first: bool) -> None:
    """At least 10 calls of each, and `seconds` for each; less where they are opened anew."""
    least, share = (WARMUP_CALLS, 1.0) if first else (AGAIN_CALLS, AGAIN_SHARE)
    end, done = time.perf_counter() + share * seconds * len(calls), 0
    while done < least or time.perf_counter() < end:
        for index in order(len(calls), done):
            if (reset := calls[index].reset) is not None:
                reset()
            calls[index].run()
            device.synchronize()
        done += 1


def _sitting(calls: Sequence[Call], samples: Sequence[Samples], least: int, seconds: float, device: Device) -> int:
    """At least so many rounds and seconds, an even number; returns how many rounds."""
    began, turn = time.perf_counter(), 0
    while turn < least or turn % 2 or time.perf_counter() - began < seconds:
        for index in order(len(calls), turn):
            _time(calls[index], samples[index], device)
        turn += 1
    return turn


def _rounds(calls: Sequence[Call], samples: Sequence[Samples], enough: Enough, device: Device) -> tuple[int, bool]:
    """One sitting for all: `(how many rounds, whether the ratios settled)`."""
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
                return turn, True
            ask = turn + max(10, turn // 10)
        if seconds >= enough.max_seconds:
            return turn, False


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
    returned = time.perf_counter_ns()
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
        samples.host_ms.append((returned - began) / 1e6)


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
