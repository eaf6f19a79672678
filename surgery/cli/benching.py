"""`surgery bench`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surgery.cli.models import check_file, check_report, inputs_of, opened, write_file
from surgery.cli.options import MODEL_HELP, Factory, Inputs, Json, Overwrite, Report, StripPrefix, Traceback, Trust
from surgery.cli.outcome import Outcome
from surgery.errors import InputError

if TYPE_CHECKING:
    from surgery.latency import Benchmark

RUNTIMES = ["eager", "torchscript", "onnxruntime"]
THREADS = [1]
DEVICES = ["cpu"]


def bench(
    models: Annotated[
        list[str],
        typer.Argument(metavar="NAME=MODEL...", help=f"The first is what others are compared with. {MODEL_HELP}"),
    ],
    inputs: Inputs,
    runtime: Annotated[list[str], typer.Option(help="eager, torchscript or onnxruntime. Once per runtime.")] = RUNTIMES,
    threads: Annotated[list[int], typer.Option(help="Threads. Once per count.")] = THREADS,
    batch: Annotated[list[int] | None, typer.Option(help="Batch sizes; the example's own by default.")] = None,
    device: Annotated[list[str], typer.Option(help="cpu, cuda, cuda:1.")] = DEVICES,
    min_seconds: Annotated[float, typer.Option(help="The least time spent on each cell of the table.")] = 3.0,
    max_seconds: Annotated[float, typer.Option(help="The most, where a ratio stays uncertain.")] = 30.0,
    checkpoint: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Weights for the model of that name.")
    ] = None,
    strip_prefix: StripPrefix = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The JSON file for every raw sample.")] = None,
    report: Report = None,
    overwrite: Overwrite = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Time models against each other: interleaved, in processes of their own, checked for equal outputs."""
    from surgery.latency import benchmark
    from surgery.reporting import report as write_report

    if output is not None:
        check_file(output, overwrite=overwrite)
    check_report(report, overwrite=overwrite)
    specs = _named(models, "NAME=MODEL")
    weights = _named(checkpoint or (), "NAME=FILE")
    if unknown := sorted(weights.keys() - specs.keys()):
        raise InputError(f"there is a checkpoint for {unknown[0]!r}", f"name one of {', '.join(specs)}")
    args, kwargs = inputs_of(inputs)
    loaded = {}
    for name, spec in specs.items():
        file = Path(weights[name]) if name in weights else None
        prefix = strip_prefix if file is not None else ""
        loaded[name] = opened(spec, checkpoint=file, strip_prefix=prefix, trust=trust, factory=factory).model
    measured = benchmark(
        loaded,
        args,
        kwargs,
        runtimes=runtime,
        threads=threads,
        batch_sizes=batch or None,
        devices=device,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
    )
    lines = [measured.table()]
    if output is not None:
        write_file(output, measured.to_json(), overwrite=overwrite)
        lines.append(f"saved as {output}")
    if report is not None:
        write_report(report, benchmark=measured, overwrite=overwrite)
        lines.append(f"report in {report}")
    data = {"command": "bench", "models": specs, "ratios": _ratios(measured), "benchmark": measured}
    return Outcome("\n".join(lines), data)


def _named(words: Sequence[str], form: str) -> dict[str, str]:
    """`NAME=VALUE` words as a dict.

    Raises:
        InputError: A word has no name, or a name comes twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise InputError(f"{word!r} has no name", f"write {form}, as in masked=package.module:factory")
        if name in found:
            raise InputError(f"two are named {name!r}", "give each a name of its own")
        found[name] = value
    return found


def _ratios(measured: Benchmark) -> list[dict[str, Any]]:
    """The first model over each other one, in every cell where both have times."""
    found = []
    for cell in measured.cells:
        first, *others = cell.rows
        for row in others:
            if not (first.failure or row.failure):
                place = {"runtime": cell.runtime, "threads": cell.threads, "device": cell.device, "batch": cell.batch}
                ratio = measured.ratio_in(cell, first.model, row.model)
                found.append({**place, "first": first.model, "second": row.model, "ratio": ratio})
    return found
