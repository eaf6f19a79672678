"""ONNX files timed beside each other, by the measuring process of `surgery.latency`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from surgery.errors import CheckError
from surgery.inputs import Inputs
from surgery.latency import Benchmark
from surgery.latency.machine import load_average, this_machine
from surgery.latency.onnx_runtime import session
from surgery.latency.parity import Reference
from surgery.latency.protocol import FOLDER_PREFIX, Form, Job, Request, ask
from surgery.latency.results import Settings
from surgery.latency.sending import send
from surgery.latency.timing import Enough
from surgery.progress import stage
from surgery.quantizing.float_file import Feed


def time_files(
    files: Mapping[str, Path],
    feeds: Sequence[Feed],
    *,
    threads: int = 1,
    min_pairs: int = 50,
    min_seconds: float = 3.0,
    max_seconds: float = 30.0,
) -> Benchmark:
    """Time files that take the same inputs, interleaved, a cell for each feed; each is compared with itself only.

    Args:
        files: Name to ONNX file. The first is the one that the others are compared with in the table.
        feeds: The calls to be timed.
        threads: Threads of each file.
        min_pairs: The least number of rounds in a cell.
        min_seconds: The least time spent on the rounds of a cell.
        max_seconds: When to stop although a ratio is still uncertain by more than 2 %.
    """
    load_start = load_average()
    jobs, sizes = [], []
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX) as name, stage(f"timing {', '.join(files)}"):
        folder = Path(name)
        opened = {model: session(path, threads) for model, path in files.items()}
        order = [value.name for value in next(iter(opened.values())).get_inputs()]
        for number, feed in enumerate(feeds):
            inputs = Inputs(tuple(torch.from_numpy(feed[one].copy()) for one in order), {})
            sizes.append(inputs.batch)
            send(inputs, folder / f"inputs-{number}")
            forms = []
            for place, (model, path) in enumerate(files.items()):
                answers = tuple(torch.from_numpy(output) for output in opened[model].run(None, dict(feed)))
                reference = folder / f"reference-{place}-{number}"
                send(Reference(answers, ()), reference)
                forms.append(Form(model, str(path), str(reference)))
            jobs.append(Job(inputs.batch, str(folder / f"inputs-{number}"), tuple(forms)))
        del opened
        enough = Enough(min_pairs, min_seconds, max_seconds)
        reply = ask(Request("onnxruntime", threads, "cpu", tuple(jobs), enough), folder)
    if reply.mismatch:
        raise CheckError(*reply.mismatch)
    batches = tuple(size for size in sizes if size is not None) or None
    settings = Settings(("onnxruntime",), (threads,), batches, ("cpu",), min_pairs, min_seconds, max_seconds, 0)
    return Benchmark(this_machine(), settings, reply.cells, load_start, load_average())
