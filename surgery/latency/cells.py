"""One cell in the process at hand: outputs compared, then timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from surgery.inputs import Inputs
from surgery.latency.clocks import read_clocks
from surgery.latency.machine import load_average
from surgery.latency.parity import Reference, check_parity, tensors_of, top1
from surgery.latency.results import Cell, Row
from surgery.latency.runtime import Bind, Call
from surgery.latency.timing import Enough, Samples, device_of, time_calls


def checked(
    bind: Bind, inputs: Inputs, wanted: Reference, first: Sequence[Tensor], row: Row, cell: Cell
) -> tuple[Call, Row]:
    """The call to be timed, after one run of it gave the wanted outputs; and its row, with what that run told.

    Each model has its own copy of the inputs. One that writes into them gets them back before each run.

    Args:
        bind: The opened model.
        inputs: As the runtime takes them.
        wanted: Its own outputs in eager mode.
        first: Those of the first model.
        row: Of this model, without times.
        cell: Where it is to be timed.

    Raises:
        CheckError: The outputs differ.
    """
    own = inputs.map(lambda tensor: tensor.clone(memory_format=torch.preserve_format))
    device = device_of(cell.device)
    # TF32 rounds convolutions on a GPU to 10 bits: allowed for timing, but not what is compared here.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        began = time.perf_counter()
        run = bind(own)
        output = run()
        device.synchronize()
        first_ms = (time.perf_counter() - began) * 1000
        got = tensors_of(output)
        error = check_parity(got, wanted, model=row.model, runtime=cell.runtime)
    row = replace(row, first_ms=first_ms, error=error, top1=top1(got, first))
    kept = list(zip(own.tensors(), inputs.tensors(), strict=True))
    if all(torch.equal(mine, given) for mine, given in kept):
        return Call(run), row

    def reset() -> None:
        for mine, given in kept:
            mine.copy_(given)

    return Call(run, reset), row


def time_cell(
    cell: Cell,
    opened: Callable[[int], Mapping[str, Call]],
    told: Callable[[str], Row],
    enough: Enough,
    *,
    again: bool,
) -> Cell:
    """`cell` with a timed row for each of the models.

    Args:
        cell: Where they are timed.
        opened: Their calls in sitting 0, 1, 2, ..., in the same order each time.
        told: What is known of a model when it is over.
        enough: When to stop.
        again: Whether there is more than one sitting.
    """
    load_start, clocks_start = load_average(), read_clocks(cell.device)
    names: list[str] = []

    def calls(sitting: int) -> list[Call]:
        found = opened(sitting)
        names[:] = list(found)
        return list(found.values())

    timed = time_calls(calls, enough, device_of(cell.device), again=again)
    clocks = tuple(one for one in (clocks_start, read_clocks(cell.device)) if one is not None)
    return replace(
        cell,
        rows=tuple(_row(told(model), samples) for model, samples in zip(names, timed.samples, strict=True)),
        sittings=timed.sittings,
        settled=timed.settled,
        load_start=load_start,
        load_end=load_average(),
        clocks=clocks,
    )


def _row(row: Row, samples: Samples) -> Row:
    return replace(
        row,
        latency_ms=tuple(samples.latency_ms),
        cpu_ms=tuple(samples.cpu_ms),
        device_ms=tuple(samples.device_ms),
        host_ms=tuple(samples.host_ms),
    )
