"""The measuring process: `python -m surgery.latency.worker REQUEST REPLY`, started by `surgery.latency.protocol`."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import msgspec
import torch

from surgery.errors import CheckError
from surgery.inputs import Inputs
from surgery.latency.cells import checked, time_cell
from surgery.latency.memory import peak
from surgery.latency.parity import Reference
from surgery.latency.protocol import FOLDER_PREFIX, Form, Job, Reply, Request
from surgery.latency.results import Cell, Row
from surgery.latency.runtime import Call, Setting
from surgery.latency.runtimes import runtime_named
from surgery.latency.sending import receive
from surgery.latency.timing import device_of


def main(question: Path, answer: Path) -> None:
    """Do the work of the request; the reply is written anew, in one piece, after each of its cells."""
    request = msgspec.json.decode(question.read_bytes(), type=Request)
    torch.set_num_threads(request.threads)
    torch.set_num_interop_threads(1)
    device_of(request.device)  # makes it the current one
    reply = Reply()
    for job in request.jobs:
        try:
            reply = replace(reply, cells=(*reply.cells, _measure(request, job)))
        except _LoadError as error:
            reply = Reply(unloaded={error.model: str(error)})
        unfinished = answer.with_suffix(".part")
        unfinished.write_bytes(msgspec.json.encode(reply))
        unfinished.replace(answer)
        if reply.unloaded:
            return


class _LoadError(Exception):
    """A model that this process cannot load, though the parent could write it."""

    def __init__(self, model: str, reason: Exception) -> None:
        super().__init__(f"{type(reason).__name__}: {reason}")
        self.model = model


def _measure(request: Request, job: Job) -> Cell:
    """Load, compare and time the models of one job; one that cannot be loaded or run fails alone."""
    cell = Cell(request.runtime, request.threads, request.device, job.batch, (), precision=request.precision)
    openings: dict[str, list[Row]] = {form.model: [] for form in job.forms}
    failures: dict[str, Row] = {}
    first = _open(cell, job.forms, openings, failures, request)
    if not first:
        return replace(cell, rows=tuple(failures[form.model] for form in job.forms))
    ready = [form for form in job.forms if form.model in first]

    def opened(sitting: int) -> Mapping[str, Call]:
        if not sitting:
            calls = dict(first)
            first.clear()  # so that nothing holds these models when they are to be forgotten
            return calls
        gc.collect()
        turned = ready if sitting % 2 == 0 else ready[::-1]
        refused: dict[str, Row] = {}
        calls = _open(cell, turned, openings, refused, request)
        for model, row in refused.items():
            raise RuntimeError(f"{model} could be opened, but not a second time: {row.failure}")
        return {form.model: calls[form.model] for form in ready}

    once = runtime_named(request.runtime).compiles
    cell = time_cell(cell, opened, lambda model: _told(openings[model]), request.enough, again=not once)
    timed = {row.model: row for row in cell.rows} | failures
    return replace(cell, rows=tuple(timed[form.model] for form in job.forms))


def _told(openings: Sequence[Row]) -> Row:
    """What opening a model took: the median.

    The first opening is left out where there are others: it loads and starts what the rest find in place (libraries,
    the code of the model, threads).
    """
    later = openings[1:] or openings

    def middle(name: str) -> float | None:
        values = [value for row in later if (value := getattr(row, name)) is not None]
        return median(values) if values else None

    peak_bytes = middle("peak_bytes")
    whole = None if peak_bytes is None else int(peak_bytes)
    return replace(openings[0], load_ms=middle("load_ms"), first_ms=middle("first_ms"), peak_bytes=whole)


def _open(
    cell: Cell, forms: Sequence[Form], openings: dict[str, list[Row]], failures: dict[str, Row], request: Request
) -> dict[str, Call]:
    """The calls of the models that can be opened, what that took in `openings`; why others cannot in `failures`."""
    calls: dict[str, Call] = {}
    for form in forms:
        row = Row(form.model, file_bytes=form.size_bytes)
        try:
            calls[form.model], told = _opened(cell, form, row)
            openings[form.model].append(told)
        except CheckError as error:
            failures[form.model] = replace(row, failure=error.fact, disagrees=True)
        except _LoadError as error:
            if request.all_or_none:
                raise
            failures[form.model] = replace(row, failure=str(error))
        except Exception as error:
            failures[form.model] = replace(row, failure=f"{type(error).__name__}: {error}")
    return calls


def _opened(cell: Cell, form: Form, row: Row) -> tuple[Call, Row]:
    """The model's call, after its outputs were compared; and what opening it took."""
    runtime = runtime_named(cell.runtime)
    inputs: Inputs = receive(Path(form.inputs)).to(cell.device)
    if form.order is not None:
        tensors = inputs.tensors()
        inputs = Inputs(tuple(tensors[position] for position in form.order), {})
    inputs = runtime.arrange(inputs)
    wanted: Reference = receive(Path(form.reference))
    first: Reference = receive(Path(form.first))
    with peak(cell.device, in_torch=runtime.format != "onnx") as memory:
        began = time.perf_counter()
        try:
            bind = runtime.load(Path(form.file), Setting(cell.threads, cell.device, cell.precision))
        except Exception as error:
            raise _LoadError(form.model, error) from error
        row = replace(row, load_ms=(time.perf_counter() - began) * 1000)
        call, row = checked(bind, inputs, wanted, first.outputs, row, cell)
    return call, replace(row, peak_bytes=memory.bytes_above)


def _die_with_parent(folder: Path) -> None:
    """Wait for the end of stdin, which the parent holds open; then leave nothing behind."""
    while os.read(0, 1):
        pass
    if folder.name.startswith(FOLDER_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _run(arguments: Sequence[str]) -> None:
    question, answer = (Path(argument) for argument in arguments)
    threading.Thread(target=_die_with_parent, args=(question.parent,), daemon=True).start()
    main(question, answer)


if __name__ == "__main__":
    _run(sys.argv[1:])
