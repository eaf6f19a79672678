"""The clock: how long models take beside the dense one, in the runtime and on the device that they are meant for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn

from surgery.analysis.capture import Program
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.latency import benchmark
from surgery.latency.machine import this_machine
from surgery.latency.results import Benchmark, Row
from surgery.latency.runtimes import runtime_named
from surgery.proof.cost import size_bytes
from surgery.targeting.store import Reading, Store

DENSE, SLIM = "dense", "slim"

AT_ONCE = 8
"""So many models are timed beside the dense one in one process, at most."""

BYTES_AT_ONCE = 2 << 30
"""And so many bytes of them, at most, where that is more than one."""

PAIRS_OF_TABLE = 12
SECONDS_OF_TABLE = 0.25
"""For each model of a table, at least; twice that at most."""

PAIRS, SECONDS = 30, (2.0, 8.0)
"""How long a model is measured that may be the answer: rounds at least, seconds at least and at most."""


class RefusedError(InputError):
    """A slim model that a runtime does not take, beside a dense one that it takes."""


@dataclass(frozen=True)
class Place:
    """Where a latency is meant: a runtime of `surgery.benchmark`, its threads, and a device."""

    runtime: str = "eager"
    threads: int = 1
    device: str = "cpu"

    @staticmethod
    def of(model: nn.Module, runtime: str, threads: int) -> Place:
        """The place on the model's own device.

        Raises:
            InputError: There is no such runtime, it does not run there, or the number is none.
        """
        device = str(next(model.parameters(), torch.empty(0)).device)
        known = runtime_named(runtime)
        if torch.device(device).type not in known.devices:
            fact = f"the model is on {device}, and {runtime} is measured on {' and '.join(known.devices)} only"
            raise InputError(fact, "move the model, or choose another runtime")
        if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
            raise InputError(f"threads is {threads!r}", "give a whole number from 1 on")
        return Place(runtime, threads, device)


@dataclass(frozen=True)
class Clock:
    """Times models beside the dense one; what it knows from before it does not measure again."""

    dense: nn.Module
    inputs: Inputs
    place: Place
    store: Store

    @staticmethod
    def of(program: Program, dense: nn.Module, inputs: Inputs, place: Place) -> Clock:
        """A clock for a dense model, with what was measured of such a one before."""
        machine = this_machine()
        shapes = [(str(t.dtype), tuple(t.shape)) for t in inputs.tensors()]
        return Clock(dense, inputs, place, Store.of("1", machine, place, shapes, *_structure(program)))

    def table(self, models: Mapping[str, Callable[[], nn.Module]], told: Callable[[int], None]) -> dict[str, Reading]:
        """A reading of each model that can be timed, by the keys; from the store where it knows them.

        Args:
            models: By a key that says all that its latency depends on, what makes the model.
            told: Is called with how many more there are, as they come.

        Raises:
            InputError: The dense model cannot be timed there.
        """
        missing = iter([(key, make) for key, make in models.items() if key not in self.store.readings])
        told(len(models) - sum(key not in self.store.readings for key in models))
        limit = max(1, min(AT_ONCE, BYTES_AT_ONCE // max(1, size_bytes(self.dense))))
        for some in iter(lambda: dict(islice(missing, limit)), {}):
            count = 1 + len(some)
            seconds = (SECONDS_OF_TABLE * count, 2 * SECONDS_OF_TABLE * count)
            made = {key: make() for key, make in some.items()}
            found = time_beside(self.dense, made, self.inputs, self.place, PAIRS_OF_TABLE, seconds)
            self.store.keep(found)
            told(len(some))
        return {key: self.store.readings[key] for key in models if key in self.store.readings}

    def time(self, model: nn.Module) -> Reading:
        """A fresh reading of one model.

        Raises:
            RefusedError: It cannot be timed there.
            InputError: The dense one cannot.
        """
        return time_beside(self.dense, {SLIM: model}, self.inputs, self.place, PAIRS, SECONDS, needed=(SLIM,))[SLIM]


def time_beside(
    dense: nn.Module,
    models: Mapping[str, nn.Module],
    inputs: Inputs,
    place: Place,
    pairs: int,
    seconds: tuple[float, float],
    needed: Sequence[str] = (),
) -> dict[str, Reading]:
    """Fresh readings of models that are timed beside the dense one, of those that can be.

    Args:
        dense, models: What is timed.
        inputs: The call.
        place: Where.
        pairs: How many rounds at least.
        seconds: How long at least, and at most.
        needed: Models without which there is no point.

    Raises:
        RefusedError: One that is needed cannot be timed there.
        InputError: The dense model cannot.
    """
    done = benchmark(
        {DENSE: dense, **models},
        inputs.args,
        inputs.kwargs,
        runtimes=place.runtime,
        threads=place.threads,
        devices=place.device,
        min_pairs=pairs,
        min_seconds=seconds[0],
        max_seconds=seconds[1],
    )
    return dict(_readings(done, [DENSE, *needed]))


def _readings(done: Benchmark, needed: Sequence[str]) -> Iterator[tuple[str, Reading]]:
    """What a benchmark of one cell found of every model but the dense one."""
    (cell,) = done.cells
    rows: dict[str, Row] = {row.model: row for row in cell.rows}
    for name in needed:
        if rows[name].failure:
            fact = f"the {name} model cannot be timed in {cell}: {rows[name].failure}"
            refusal = InputError if name == DENSE else RefusedError
            raise refusal(fact, "choose another runtime, or a budget of MACs instead of a latency")
    dense_ms = rows[DENSE].summary().p50_ms
    for name, row in rows.items():
        if name == DENSE or row.failure:
            continue
        ratio = done.ratio_in(cell, name, DENSE)
        doubt = ratio.why if ratio.verdict == "too noisy to say" else ""
        yield name, Reading(ratio.median, ratio.low, ratio.high, row.summary().p50_ms, dense_ms, doubt)


def _structure(program: Program) -> Iterator[object]:
    """All that a model's latency depends on: its ops, what they are given, and the shapes of its tensors."""
    for node in program.nodes:
        yield node.op, str(node.target), node.args, node.kwargs
        value = node.meta.get("val")
        yield getattr(value, "shape", None), getattr(value, "dtype", None)
