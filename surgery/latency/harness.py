"""The benchmark as a whole: prepare, one process per runtime, thread count and device, collect."""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgery.errors import CheckError, InputError
from surgery.inputs import Example, Inputs
from surgery.latency import timing
from surgery.latency.cells import checked, time_cell
from surgery.latency.eager import bind
from surgery.latency.forms import evaluating
from surgery.latency.machine import load_average, this_machine
from surgery.latency.protocol import FOLDER_PREFIX, Form, Job, Request, ask
from surgery.latency.results import Benchmark, Cell, Row, Settings
from surgery.latency.runtime import Call
from surgery.latency.runtimes import runtime_named
from surgery.latency.sending import receive
from surgery.latency.settings import check_models, checked_settings
from surgery.latency.subjects import Batch, Preparation
from surgery.latency.timing import Enough
from surgery.progress import stage


def benchmark(
    models: Mapping[str, nn.Module],
    example_inputs: Example,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    runtimes: Sequence[str] | str = ("eager", "torchscript", "onnxruntime"),
    threads: Sequence[int] | int = (1,),
    batch_sizes: Sequence[int] | int | None = None,
    devices: Sequence[str] | str = ("cpu",),
    min_pairs: int = 50,
    min_seconds: float = 3.0,
    max_seconds: float = 30.0,
    seed: int = 0,
) -> Benchmark:
    """Time several models against each other: in eval mode, interleaved, in processes of their own.

    In each (runtime, threads, device, batch) all models run in turn in one process, in balanced order, after at least
    10 calls and half a second of warm-up each. The models are left as they are: copies are exported and timed.

    Args:
        models: Name to module. The first is the one that the others are compared with in the table.
        example_inputs: A tensor, or a tuple of the positional inputs.
        example_kwargs: The keyword inputs.
        runtimes: "eager", "torchscript" (traced and frozen) and "onnxruntime" (on the CPU only).
        threads: Thread counts; each has a process of its own.
        batch_sizes: Sizes of dim 0, with random inputs like the example's; None times the example itself.
        devices: "cpu", "cuda", "cuda:1".
        min_pairs: The least number of rounds in a cell.
        min_seconds: The least time spent on the rounds of a cell.
        max_seconds: When to stop although a ratio is still uncertain by more than 2 %; `min_pairs` is kept anyway.
        seed: Of the made-up inputs and of the bootstrap.

    Returns:
        Every raw sample, with `ratio`, `table` and `to_json`. A model that a runtime cannot take is listed there as
        failed, with the reason.

    Raises:
        InputError: No models, unknown runtimes or devices, numbers out of range, inputs that a model refuses.
        CheckError: A runtime does not compute what the model computes in eager mode.
        SurgeryError: A benchmark process died.
    """
    check_models(models)
    settings = checked_settings(
        runtimes=runtimes,
        threads=threads,
        batch_sizes=batch_sizes,
        devices=devices,
        min_pairs=min_pairs,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        seed=seed,
    )
    batches = _batches(Inputs.of(example_inputs, example_kwargs).to("cpu"), settings)
    load_start = load_average()
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX) as folder:
        with stage("benchmark: eager outputs"):
            preparation = Preparation(models, batches, Path(folder))
        plan = list(itertools.product(settings.runtimes, settings.threads, settings.devices))
        cells: list[Cell] = []
        for number, (runtime, count, device) in enumerate(plan, 1):
            empty = [Cell(runtime, count, device, batch.size, ()) for batch in batches]
            cells += _measured(preparation, empty, settings, f"{number} of {len(plan)}")
        notes = preparation.notes()
    return Benchmark(this_machine(), settings, tuple(cells), load_start, load_average(), notes)


def _batches(inputs: Inputs, settings: Settings) -> tuple[Batch, ...]:
    """The calls to be timed."""
    if settings.batch_sizes is None:
        return (Batch(inputs.batch, inputs, inputs.fresh(settings.seed), 0),)
    batches = []
    for number, size in enumerate(settings.batch_sizes):
        resized, fresh = inputs.with_batch(size, settings.seed), inputs.with_batch(size, settings.seed + 1)
        if resized is None or fresh is None:
            shapes = ", ".join(str(tuple(t.shape)) for t in inputs.tensors())
            raise InputError(
                f"the inputs {shapes} share no batch dim", "leave batch_sizes out to time the inputs as given"
            )
        batches.append(Batch(size, resized, fresh, number))
    return tuple(batches)


def _measured(preparation: Preparation, empty: list[Cell], settings: Settings, place: str) -> list[Cell]:
    """The cells of one runtime, thread count and device, filled: a cell per batch, a row per model."""
    runtime = runtime_named(empty[0].runtime)
    names = [subject.name for subject in preparation.subjects]
    enough = Enough(settings.min_pairs, settings.min_seconds, settings.max_seconds, timing.WARMUP_SECONDS)
    if torch.device(empty[0].device).type not in runtime.devices:
        why = f"{runtime.name} is measured on {' and '.join(runtime.devices)} only"
        return [replace(cell, rows=tuple(Row(name, failure=why) for name in names)) for cell in empty]
    what = f"benchmark {place}: timing {str(empty[0]).removesuffix(f', batch {empty[0].batch}')}"
    stays = {subject.name: subject.unsent for subject in preparation.subjects if subject.unsent}
    here = runtime.name == "eager" and empty[0].device == "cpu"
    if here and stays:
        return _measured_here(preparation, empty, enough, stays, what)
    jobs, failures = [], []
    for batch in preparation.batches:
        forms: list[Form] = []
        failed: dict[str, str] = {}
        for subject in preparation.subjects:
            try:
                forms.append(preparation.form(subject, batch, runtime))
            except InputError as error:
                failed[subject.name] = error.fact
        jobs.append(Job(batch.size, str(preparation.inputs(batch)), tuple(forms)))
        failures.append(failed)
    if not any(job.forms for job in jobs):
        timed = tuple(empty)
    else:
        request = Request(runtime.name, empty[0].threads, empty[0].device, tuple(jobs), enough, all_or_none=here)
        with stage(what):
            reply = ask(request, preparation.folder)
        if reply.unloaded:
            return _measured_here(preparation, empty, enough, reply.unloaded, what)
        if reply.mismatch:
            raise CheckError(*reply.mismatch)
        timed = reply.cells
    return [_completed(cell, failed, names) for cell, failed in zip(timed, failures, strict=True)]


def _completed(cell: Cell, failures: Mapping[str, str], names: Sequence[str]) -> Cell:
    """`cell` with a row for every model, those that could not be exported included."""
    rows = {row.model: row for row in cell.rows} | {m: Row(m, failure=why) for m, why in failures.items()}
    return replace(cell, rows=tuple(rows[name] for name in names))


def _measured_here(
    preparation: Preparation, empty: Sequence[Cell], enough: Enough, stays: Mapping[str, str], what: str
) -> list[Cell]:
    """Eager cells in the calling process, since the models in `stays` cannot leave it, for the reason given."""
    why = "; ".join(f"{name} cannot be sent to another process ({reason})" for name, reason in stays.items())
    note = f"{why}; all models of this cell were timed in the calling process, whose environment is not controlled"
    with stage(f"{what}, in this process"):
        cells = [_cell_here(preparation, c, b, enough) for c, b in zip(empty, preparation.batches, strict=True)]
    return [replace(cell, notes=(note,)) for cell in cells]


def _cell_here(preparation: Preparation, empty: Cell, batch: Batch, enough: Enough) -> Cell:
    """One of them."""
    calls: dict[str, Call] = {}
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        stack.enter_context(_torch_threads(empty.threads))
        for subject in preparation.subjects:
            stack.enter_context(evaluating(subject.model))
            wanted = receive(preparation.reference(subject, batch))
            try:
                own = functools.partial(bind, subject.model)
                calls[subject.name] = checked(own, batch.inputs, wanted, subject.name, empty.runtime)
            except CheckError:
                raise
            except Exception as error:
                failures[subject.name] = f"{type(error).__name__}: {error}"
        cell = time_cell(empty, calls, enough)
    return _completed(cell, failures, [subject.name for subject in preparation.subjects])


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
