"""`surgery quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgery.cli.data import data_of
from surgery.cli.models import check_file, inputs_of, opened
from surgery.cli.options import (
    MODEL_HELP,
    Checkpoint,
    Factory,
    Json,
    Overwrite,
    StripPrefix,
    Traceback,
    Trust,
)
from surgery.cli.outcome import Outcome
from surgery.errors import InputError

if TYPE_CHECKING:
    from torch import nn


def quantize(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help=f"A float .onnx file, or {MODEL_HELP}", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="The file to write: .onnx, or .aoti.pt2 (torchao).", show_default=False),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="[NAME=]SHAPE",
            help="An example input, as for export; for a file it may be left out where there is data.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FACTORY or @FILE",
            help="Samples to learn ranges from: package.module:factory, which returns a DataLoader or a list of "
            "batches, or @samples.npy, samples along dim 0.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="static or dynamic; by default static where convolutions carry most of the work."),
    ] = None,
    samples: Annotated[int, typer.Option(help="The most samples that are taken of the data.")] = 400,
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="FUNCTION",
            help="package.module:function, called with float and with int8 as a module; returns a number.",
        ),
    ] = None,
    min_cosine: Annotated[
        float | None, typer.Option(help="The lowest cosine between float and int8 on any sample that you accept.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Time float and int8 in ONNX Runtime.")] = False,
    checkpoint: Checkpoint = None,
    strip_prefix: StripPrefix = "",
    overwrite: Overwrite = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Write MODEL in int8, and tell how far it is from float. Exit code 1 where that is too far."""
    from surgery import quantizing
    from surgery.sources import function_from

    check_file(output, overwrite=overwrite)
    args, kwargs = inputs_of(inputs or [])
    measured_by = None if evaluate is None else function_from(evaluate)
    found = data_of(data)
    source: str | nn.Module = model
    if Path(model).suffix.lower() != ".onnx":
        if not inputs:
            raise InputError("a model is exported first, which needs an example", "pass --input, as to surgery export")
        source = opened(model, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory).model
    elif checkpoint is not None:
        raise InputError("--checkpoint is for models: a file has its weights", "leave it out")
    done = quantizing.quantize(
        source,
        output,
        args or None,
        kwargs,
        data=found,
        method=method,
        samples=samples,
        evaluate=measured_by,
        min_cosine=min_cosine,
        measure=measure,
        overwrite=overwrite,
    )
    return Outcome(str(done), {"command": "quantize", "model": model, **done.as_dict()})
