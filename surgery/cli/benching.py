"""`surgery bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surgery.cli.models import check_file, check_report, inputs_of, note, opened, write_file
from surgery.cli.options import MODEL_HELP, Factory, Json, Overwrite, Report, SomeInputs, StripPrefix, Traceback, Trust
from surgery.cli.outcome import INTERRUPTED, Outcome
from surgery.errors import InputError

if TYPE_CHECKING:
    from surgery.latency import Benchmark

THREADS = [1]
DEVICES = ["cpu"]
FILES = (".onnx", ".pt", ".pt2")
"""Endings of exported files, which are timed as they are."""

RUNTIMES_HELP = (
    "eager, channels_last, torchscript, onnxruntime, pt2, aoti, compile, openvino, cudagraphs, tensorrt. Once per "
    "runtime; by default eager, torchscript and onnxruntime, or what the named files run in."
)


def bench(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=MODEL...",
            help=f"The first is what others are compared with. {MODEL_HELP[:-1]}, or an exported file.",
        ),
    ],
    inputs: SomeInputs = None,
    runtime: Annotated[list[str] | None, typer.Option(help=RUNTIMES_HELP, show_default=False)] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="float32, bf16, fp16, float64 or int8. Once per precision; by default the model's own."),
    ] = None,
    threads: Annotated[list[int], typer.Option(help="Threads. Once per count.")] = THREADS,
    batch: Annotated[list[int] | None, typer.Option(help="Batch sizes; the example's own by default.")] = None,
    device: Annotated[list[str], typer.Option(help="cpu, cuda, cuda:1.")] = DEVICES,
    baked: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Time this model with its masks baked in, too, beside the one with hooks."),
    ] = None,
    min_seconds: Annotated[float, typer.Option(help="The least time spent on each cell of the table.")] = 3.0,
    max_seconds: Annotated[float, typer.Option(help="The most, where a ratio stays uncertain.")] = 30.0,
    keep_subnormals: Annotated[
        bool, typer.Option("--keep-subnormals", help="Time subnormal weights as they are, not as exact zeros.")
    ] = False,
    checkpoint: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Weights for the model of that name.")
    ] = None,
    strip_prefix: StripPrefix = "",
    compare: Annotated[
        bool, typer.Option("--compare", help="Time nothing: compare two saved benchmarks, OLD.json NEW.json.")
    ] = False,
    any_machine: Annotated[
        bool, typer.Option("--any-machine", help="Compare benchmarks of different machines all the same.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The JSON file for every raw sample.")] = None,
    report: Report = None,
    overwrite: Overwrite = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Time models against each other: interleaved, in processes of their own, checked for equal outputs."""
    if compare:
        return _compared(models, any_machine=any_machine, markdown=markdown, files=(output, report))
    from surgery.latency import Interrupted, benchmark

    if output is not None:
        check_file(output, overwrite=overwrite)
    check_report(report, overwrite=overwrite)
    specs = _named(models, "NAME=MODEL")
    weights = _named(checkpoint or (), "NAME=FILE")
    for what, names in (("--checkpoint", weights), ("--baked", baked or ())):
        if unknown := sorted(set(names) - specs.keys()):
            raise InputError(f"{what} names {unknown[0]!r}, which is no model", f"name one of {', '.join(specs)}")
    if not inputs:
        raise InputError("there is no input to run the models on", "pass --input, as in --input 1x3x224x224")
    args, kwargs = inputs_of(inputs)
    loaded: dict[str, Any] = {}
    for name, spec in specs.items():
        if spec.lower().endswith(FILES) and name not in weights:
            loaded[name] = Path(spec)
            continue
        file = Path(weights[name]) if name in weights else None
        prefix = strip_prefix if file is not None else ""
        loaded[name] = opened(spec, checkpoint=file, strip_prefix=prefix, trust=trust, factory=factory).model
    try:
        measured = benchmark(
            _with_baked(loaded, baked or ()),
            args,
            kwargs,
            runtimes=runtime or None,
            precisions=precision or None,
            threads=threads,
            batch_sizes=batch or None,
            devices=device,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            flush_subnormals=not keep_subnormals,
            trust=trust,
        )
    except Interrupted as error:
        if not error.benchmark.cells:
            raise
        note("interrupted: here is what was measured until now")
        measured = error.benchmark
    lines = [measured.markdown() if markdown else measured.table()]
    if output is not None:
        write_file(output, measured.to_json(), overwrite=overwrite)
        lines.append(f"saved as {output}")
    if report is not None:
        from surgery.reporting import report as write_report

        write_report(report, benchmark=measured, overwrite=overwrite)
        lines.append(f"report in {report}")
    data = {"command": "bench", "models": specs, "ratios": _ratios(measured), "benchmark": measured}
    return Outcome("\n".join(lines), data, _exit_code(measured))


def _exit_code(measured: Benchmark) -> int:
    """1 where a runtime computes something else, 130 after Ctrl-C."""
    if measured.interrupted:
        return INTERRUPTED
    return int(any(row.disagrees for cell in measured.cells for row in cell.rows))


def _compared(saved: Sequence[str], *, any_machine: bool, markdown: bool, files: Sequence[Path | None]) -> Outcome:
    """Two saved benchmarks side by side.

    Raises:
        InputError: These are not two benchmarks, or not of one machine; or a file was asked for.
    """
    from surgery.latency import Benchmark, compare

    if any(file is not None for file in files):
        raise InputError("--compare writes no file", "leave --output and --report out; --json prints all of it")
    if len(saved) != 2:
        usage = "surgery bench --compare old.json new.json"
        raise InputError(f"--compare takes two files, and got {len(saved)}", usage)
    read = []
    for name in saved:
        try:
            read.append(Benchmark.from_json(Path(name).read_bytes()))
        except OSError as error:
            raise InputError(f"{name!r} cannot be read: {error.strerror}", "name a file that --output wrote") from error
        except InputError as error:
            raise InputError(f"{name!r}: {error.fact}", "name a file that --output wrote") from error
    found = compare(*read, any_machine=any_machine)
    data = {"command": "bench --compare", "first": found.first, "changes": found.changes, "notes": found.notes}
    return Outcome(found.markdown() if markdown else found.table(), data)


def _with_baked(models: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The models, and after each of `names` the same with plain zeros in the place of its masks.

    Raises:
        InputError: One of them is a file, or wears no mask.
    """
    from surgery.masks import bake, find_coats

    found: dict[str, Any] = {}
    for name, model in models.items():
        found[name] = model
        if name in names:
            if isinstance(model, Path) or not find_coats(model).by_kind:
                raise InputError(f"{name!r} wears no mask that could be baked in", "leave --baked out for it")
            found[f"{name}, baked"] = bake(model)
    return found


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
                place = {"runtime": cell.runtime, "precision": cell.precision, "threads": cell.threads}
                place |= {"device": cell.device, "batch": cell.batch}
                ratio = measured.ratio_in(cell, first.model, row.model)
                found.append({**place, "first": first.model, "second": row.model, "ratio": ratio})
    return found
