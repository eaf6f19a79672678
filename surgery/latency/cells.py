"""One cell in the process at hand: outputs compared, then timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from surgery.inputs import Inputs
from surgery.latency.forms import output_tensors
from surgery.latency.machine import load_average
from surgery.latency.parity import Reference, check_parity
from surgery.latency.results import Cell, Row
from surgery.latency.runtime import Call, Run
from surgery.latency.timing import Enough, Samples, device_of, time_calls


def checked(bind: Callable[[Inputs], Run], inputs: Inputs, reference: Reference, model: str, runtime: str) -> Call:
    """The call to be timed, after one run of it gave the reference's outputs.

    Each model has its own copy of the inputs. One that writes into them gets them back before each run.

    Raises:
        CheckError: The outputs differ.
    """
    own = inputs.map(torch.clone)
    run = bind(own)
    # TF32 rounds convolutions on a GPU to 10 bits: allowed for timing, but not what is compared here.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        check_parity(output_tensors(run()), reference, model=model, runtime=runtime)
    kept = list(zip(own.tensors(), inputs.tensors(), strict=True))
    if all(torch.equal(mine, given) for mine, given in kept):
        return Call(run)

    def reset() -> None:
        for mine, given in kept:
            mine.copy_(given)

    return Call(run, reset)


def time_cell(cell: Cell, calls: dict[str, Call], enough: Enough) -> Cell:
    """`cell` with a timed row for each of the calls."""
    if not calls:
        return cell
    load_start = load_average()
    samples, settled = time_calls(list(calls.values()), enough, device_of(cell.device))
    rows = tuple(_row(model, s) for model, s in zip(calls, samples, strict=True))
    return replace(cell, rows=rows, settled=settled, load_start=load_start, load_end=load_average())


def _row(model: str, samples: Samples) -> Row:
    return Row(model, tuple(samples.latency_ms), tuple(samples.cpu_ms), tuple(samples.device_ms))
