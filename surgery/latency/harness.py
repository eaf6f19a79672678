"""The benchmark as a whole: prepare, one process per runtime, precision, thread count and device, collect."""

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

from surgery.errors import CheckError, InputError, SurgeryError
from surgery.inputs import Example, Inputs
from surgery.latency import timing
from surgery.latency.cells import checked, time_cell
from surgery.latency.eager import bind
from surgery.latency.forms import Batch, Forms
from surgery.latency.machine import load_average, this_machine
from surgery.latency.precisions import OWN
from surgery.latency.protocol import FOLDER_PREFIX, DiedError, Form, Job, Request, ask
from surgery.latency.remaining import Remaining
from surgery.latency.results import Benchmark, Cell, Row, Settings
from surgery.latency.runtime import Call
from surgery.latency.runtimes import OF_FORMAT, USUAL, runtime_named
from surgery.latency.sending import receive
from surgery.latency.settings import check_models, checked_settings
from surgery.latency.subjects import FileSubject, ModuleSubject, Subject, Timed, subjects_of
from surgery.latency.timing import Enough
from surgery.progress import stage
from surgery.proof.resting import resting


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a benchmark; `benchmark` holds what was measured until then."""

    def __init__(self, benchmark: Benchmark) -> None:
        super().__init__()
        self.benchmark = benchmark


def benchmark(
    models: Mapping[str, Timed],
    example_inputs: Example,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    runtimes: Sequence[str] | str | None = None,
    precisions: Sequence[str] | str | None = None,
    threads: Sequence[int] | int = (1,),
    batch_sizes: Sequence[int] | int | None = None,
    devices: Sequence[str] | str = ("cpu",),
    min_pairs: int = 50,
    min_seconds: float = 3.0,
    max_seconds: float = 30.0,
    flush_subnormals: bool = True,
    trust: bool = False,
    seed: int = 0,
) -> Benchmark:
    """Time several models against each other: in eval mode, interleaved, in processes of their own.

    In each (runtime, precision, threads, device, batch) all models run in turn in one process, in balanced order,
    after at least 10 calls and half a second of warm-up each. Before that each is held against what it computes in
    eager mode. The models are left as they are: copies are exported and timed.

    Args:
        models: Name to module, or to the path of an exported file (.onnx, .pt, .pt2, .aoti.pt2) or of a directory that
            `surgery.save` wrote. The first is the one that the others are compared with in the table.
        example_inputs: A tensor, or a tuple of the positional inputs.
        example_kwargs: The keyword inputs.
        runtimes: "eager", "torchscript" (traced and frozen) and "onnxruntime"; "channels_last" (eager), "compile"
            (`torch.compile`), "pt2" (`torch.export`), "aoti" (AOTInductor), "openvino" (CPU; an extra), "cudagraphs"
            (eager, recorded) and "tensorrt" (through onnxruntime-gpu) on CUDA. None: the first three; with files, what
            their formats run in. A file is timed only there, in its own precision.
        precisions: "float32", "bf16", "fp16", "float64", or "int8" (onnxruntime, openvino and aoti: quantised in ranges
            learnt from the inputs, for its time and not for its accuracy). None, or "own": each model keeps its own.
        threads: Thread counts; each has a process of its own.
        batch_sizes: Sizes of dim 0, with random inputs like the example's; None times the example itself.
        devices: "cpu", "cuda", "cuda:1".
        min_pairs: The least number of rounds in a cell.
        min_seconds: The least time spent on the rounds of a cell.
        max_seconds: When to stop although a ratio is still uncertain by more than 2 %; `min_pairs` is kept anyway.
        flush_subnormals: Time subnormal weights as exact zeros. Processors are many times slower on them, so that any
            model without them would look fast.
        trust: Allow the code inside a TorchScript file, .pt2 or AOTInductor package to run.
        seed: Of the made-up inputs and of the bootstrap.

    Returns:
        Every raw sample, with `ratio`, `table`, `markdown` and `to_json`. A model that a runtime cannot take, or that
        computes something else there, is listed as failed, with the reason.

    Raises:
        InputError: No models, unknown runtimes or devices, numbers out of range, inputs that a model refuses, files
            that cannot be opened.
        CheckError: Nothing was timed, and some runtime does not compute what the model computes in eager mode.
        SurgeryError: Nothing was timed, for the benchmark processes died.
        Interrupted: Ctrl-C; it holds what was measured.
    """
    check_models(models)
    inputs = Inputs.of(example_inputs, example_kwargs).to("cpu")
    load_start = load_average()
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX) as name:
        folder = Path(name)
        asked = functools.partial(
            checked_settings,
            threads=threads,
            batch_sizes=batch_sizes,
            devices=devices,
            min_pairs=min_pairs,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            seed=seed,
        )
        # before anything is done, then with what the models themselves say
        asked(runtimes=_or(runtimes, USUAL[0].name), precisions=_or(precisions, "float32"))
        subjects = subjects_of(models, inputs, folder, trust=trust, flush=flush_subnormals)
        settings = asked(runtimes=_or(runtimes, _usual(subjects)), precisions=_or(precisions, _precision(subjects)))
        batches = _batches(inputs, settings)
        with stage("benchmark: eager outputs"):
            forms = Forms(subjects, batches, folder)
            described = tuple(subject.described(batches[0].inputs) for subject in subjects)
        machine, notes = this_machine(), tuple(_notes(subjects, flush=flush_subnormals))
        done = Benchmark(machine, settings, (), load_start, None, notes, models=described)
        return _finished(replace(_carried_out(done, forms), load_end=load_average()))


def _carried_out(done: Benchmark, forms: Forms) -> Benchmark:
    """All cells, one after the other.

    Raises:
        Interrupted: Ctrl-C.
    """
    settings = done.settings
    plan = list(itertools.product(settings.precisions, settings.runtimes, settings.threads, settings.devices))
    remaining = Remaining(len(plan), len(forms.batches), len(forms.subjects), settings)
    for precision, runtime, count, device in plan:
        empty = [Cell(runtime, count, device, batch.size, (), precision=precision) for batch in forms.batches]
        try:
            measured = _measured(forms, empty, settings, remaining.told())
        except KeyboardInterrupt as error:
            kept = (*done.cells, *getattr(error, "cells", ()))
            stopped = replace(done, cells=kept, load_end=load_average(), interrupted=True)
            raise Interrupted(stopped) from None
        done = replace(done, cells=(*done.cells, *measured))
        remaining.one_done()
    return done


def _finished(done: Benchmark) -> Benchmark:
    """The benchmark, if anything was timed.

    Raises:
        CheckError: Nothing was, for runtimes compute something else.
        SurgeryError: Nothing was, for every process died.
    """
    rows = [row for cell in done.cells for row in cell.rows]
    if any(not row.failure for row in rows):
        return done
    for row in rows:
        if row.disagrees:
            raise CheckError(row.failure, "do not trust times of this model there; look into its export")
    died = next((note for cell in done.cells for note in cell.notes if note.startswith(DIED)), None)
    if died is not None:
        raise SurgeryError(died, "leave that runtime out, or use fewer threads or a smaller batch")
    return done


DIED = "the benchmark process"
"""How the note of a process that ended early begins."""


def _or(given: Sequence[str] | str | None, usual: Sequence[str] | str) -> Sequence[str] | str:
    return usual if given is None else given


def _usual(subjects: Sequence[Subject]) -> tuple[str, ...]:
    """The runtimes of a benchmark that names none."""
    found = [OF_FORMAT[s.opened.target.name].name for s in subjects if isinstance(s, FileSubject)]
    return tuple(dict.fromkeys(found)) or tuple(runtime.name for runtime in USUAL)


def _precision(subjects: Sequence[Subject]) -> str:
    """The precision of a benchmark that names none: the modules' own."""
    found = {s.precision for s in subjects if isinstance(s, ModuleSubject)}
    return OWN if len(found) > 1 else next(iter(found), "float32")


def _notes(subjects: Sequence[Subject], *, flush: bool) -> Iterator[str]:
    """What is suspicious about the models themselves."""
    for subject in subjects:
        if isinstance(subject, ModuleSubject) and subject.subnormals:
            fact = f"{subject.name} holds {subject.subnormals} subnormal weights (below 1.2e-38 in float32, but not 0)"
            slow = "processors are many times slower on them, so that any model without them looks fast"
            if flush and subject.copy is not None:
                yield f"{fact}: timed as exact zeros, for {slow}"
            else:
                yield f"{fact}, and was timed with them: {slow}. Set them to exactly 0 and measure again"


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


def _measured(forms: Forms, empty: list[Cell], settings: Settings, told: str) -> list[Cell]:
    """The cells of one runtime, precision, thread count and device, filled: a cell per batch, a row per model."""
    place = empty[0]
    runtime = runtime_named(place.runtime)
    names = [subject.name for subject in forms.subjects]
    enough = Enough(settings.min_pairs, settings.min_seconds, settings.max_seconds, timing.WARMUP_SECONDS)
    if torch.device(place.device).type not in runtime.devices:
        return _unmeasured(empty, names, f"{runtime.name} is measured on {' and '.join(runtime.devices)} only")
    if place.precision not in runtime.precisions:
        return _unmeasured(empty, names, f"{runtime.name} is measured in {', '.join(runtime.precisions)} only")
    what = f"benchmark{told}: timing {str(place).removesuffix(f', batch {place.batch}')}"
    stays = {subject.name: subject.unsent for subject in forms.subjects if subject.unsent}
    here = runtime.name == "eager" and place.device == "cpu"
    if here and stays:
        return _measured_here(forms, empty, enough, stays, what)
    jobs, failures = [], []
    for batch in forms.batches:
        ready: list[Form] = []
        failed: dict[str, str] = {}
        for subject in forms.subjects:
            try:
                ready.append(forms.form(subject, batch, runtime, place.precision, place.device))
            except InputError as error:
                failed[subject.name] = error.fact
        jobs.append(Job(batch.size, tuple(ready)))
        failures.append(failed)
    timed = empty
    if any(job.forms for job in jobs):
        request = Request(
            runtime.name, place.precision, place.threads, place.device, tuple(jobs), enough, all_or_none=here
        )
        try:
            with stage(what):
                reply = ask(request, forms.folder)
        except DiedError as error:
            left = [replace(cell, notes=(error.fact,)) for cell in empty[len(error.cells) :]]
            timed = [*error.cells, *_unmeasured(left, names, error.fact)]
        else:
            if reply.unloaded:
                return _measured_here(forms, empty, enough, reply.unloaded, what)
            timed = list(reply.cells)
    return [_completed(cell, failed, names) for cell, failed in zip(timed, failures, strict=True)]


def _unmeasured(cells: Sequence[Cell], names: Sequence[str], why: str) -> list[Cell]:
    """The cells with a row for every model that says why there are no times."""
    return [replace(cell, rows=tuple(Row(name, failure=why) for name in names)) for cell in cells]


def _completed(cell: Cell, failures: Mapping[str, str], names: Sequence[str]) -> Cell:
    """`cell` with a row for every model, those that could not be exported included."""
    rows = {row.model: row for row in cell.rows} | {m: Row(m, failure=why) for m, why in failures.items()}
    return replace(cell, rows=tuple(rows[name] for name in names))


def _measured_here(
    forms: Forms, empty: Sequence[Cell], enough: Enough, stays: Mapping[str, str], what: str
) -> list[Cell]:
    """The cells in eager mode, timed in this process, because a model cannot leave it."""
    why = "; ".join(f"{name} cannot be sent to another process ({reason})" for name, reason in stays.items())
    note = f"{why}; all models of this cell were timed in the calling process, whose environment is not controlled"
    with stage(f"{what}, in this process"):
        cells = [_cell_here(forms, c, b, enough) for c, b in zip(empty, forms.batches, strict=True)]
    return [replace(cell, notes=(note,)) for cell in cells]


def _cell_here(forms: Forms, empty: Cell, batch: Batch, enough: Enough) -> Cell:
    """One of them."""
    calls: dict[str, Call] = {}
    rows: dict[str, Row] = {}
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        stack.enter_context(_torch_threads(empty.threads))
        for subject in forms.subjects:
            name, row = subject.name, Row(subject.name)
            if not isinstance(subject, ModuleSubject) or empty.precision not in (subject.precision, OWN):
                failures[name] = f"it is not timed in {empty.precision} beside a model that cannot be copied"
                continue
            stack.enter_context(resting(subject.model))
            wanted, first = (receive(path) for path in forms.reference_files(subject, batch))
            try:
                own = functools.partial(bind, subject.model)
                calls[name], rows[name] = checked(own, batch.inputs, wanted, first.outputs, row, empty)
            except Exception as error:
                failures[name] = error.fact if isinstance(error, CheckError) else f"{type(error).__name__}: {error}"
        # a model that cannot be copied cannot be opened anew
        cell = time_cell(empty, lambda _: calls, rows.__getitem__, enough, again=False) if calls else empty
    return _completed(cell, failures, [subject.name for subject in forms.subjects])


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
