"""The measuring process: `python -m surgery.latency.worker REQUEST REPLY`, started by `surgery.latency.protocol`."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import torch

from surgery.errors import CheckError
from surgery.inputs import Inputs
from surgery.latency.cells import checked, time_cell
from surgery.latency.protocol import FOLDER_PREFIX, Form, Job, Reply, Request
from surgery.latency.results import Cell, Row
from surgery.latency.runtime import Call
from surgery.latency.runtimes import runtime_named
from surgery.latency.sending import receive


def main(question: Path, answer: Path) -> None:
    """Do the work of the request, and write the reply in one piece."""
    request = msgspec.json.decode(question.read_bytes(), type=Request)
    torch.set_num_threads(request.threads)
    torch.set_num_interop_threads(1)
    try:
        reply = Reply(tuple(_measure(request, job) for job in request.jobs))
    except CheckError as error:
        reply = Reply(mismatch=(error.fact, error.way_out))
    except _LoadError as error:
        reply = Reply(unloaded={error.model: str(error)})
    unfinished = answer.with_suffix(".part")
    unfinished.write_bytes(msgspec.json.encode(reply))
    unfinished.replace(answer)


class _LoadError(Exception):
    """A model that this process cannot load, though the parent could write it."""

    def __init__(self, model: str, reason: Exception) -> None:
        super().__init__(f"{type(reason).__name__}: {reason}")
        self.model = model


def _measure(request: Request, job: Job) -> Cell:
    """Load, compare and time the models of one job; one that cannot be loaded or run fails alone."""
    inputs: Inputs = receive(Path(job.inputs)).to(request.device)
    calls: dict[str, Call] = {}
    failures: dict[str, str] = {}
    for form in job.forms:
        try:
            calls[form.model] = _checked(request, form, inputs)
        except CheckError:
            raise
        except _LoadError as error:
            if request.all_or_none:
                raise
            failures[form.model] = str(error)
        except Exception as error:
            failures[form.model] = f"{type(error).__name__}: {error}"
    cell = Cell(request.runtime, request.threads, request.device, job.batch, ())
    cell = time_cell(cell, calls, request.enough)
    rows = {row.model: row for row in cell.rows} | {m: Row(m, failure=why) for m, why in failures.items()}
    return replace(cell, rows=tuple(rows[form.model] for form in job.forms))


def _checked(request: Request, form: Form, inputs: Inputs) -> Call:
    """The model's call, after its outputs were compared with eager mode."""
    try:
        bind = runtime_named(request.runtime).load(Path(form.file), request.threads, request.device)
    except Exception as error:
        raise _LoadError(form.model, error) from error
    return checked(bind, inputs, receive(Path(form.reference)), form.model, request.runtime)


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
