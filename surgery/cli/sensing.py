"""`surgery sensitivity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from surgery.cli.choices import DEFAULT, Importance, Loss, Protect, Seed, importance_of
from surgery.cli.data import data_of
from surgery.cli.models import check_file, check_report, inputs_of, note, opened, write_file
from surgery.cli.options import (
    Checkpoint,
    Factory,
    Inputs,
    Json,
    Model,
    Overwrite,
    Report,
    StripPrefix,
    Traceback,
    Trust,
)
from surgery.cli.outcome import INTERRUPTED, Outcome
from surgery.errors import InputError


def sensitivity(
    model: Model,
    inputs: Inputs,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FACTORY or @FILE",
            help="Batches to measure on: package.module:factory, which returns a DataLoader or a list of batches, or "
            "@samples.npy, samples along dim 0.",
        ),
    ] = None,
    loss: Loss = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="FUNCTION",
            help="package.module:function, called with a model; returns a number, more is better. Measured in the "
            "place of the loss.",
        ),
    ] = None,
    ratios: Annotated[
        str, typer.Option(metavar="SHARES", help="The shares of a group that go, each above 0 and below 1.")
    ] = "0.25,0.5,0.75,0.9",
    importance: Importance = DEFAULT,
    protect: Protect = None,
    samples: Annotated[int, typer.Option(help="The most samples of the data that are measured on.")] = 512,
    seed: Seed = 0,
    checkpoint: Checkpoint = None,
    strip_prefix: StripPrefix = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The JSON file to write, for choose and prune.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="The .svg to draw it in.")] = None,
    report: Report = None,
    overwrite: Overwrite = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Measure how much worse MODEL gets when one group of channels gives up a share of them."""
    from surgery import sensing
    from surgery.reporting.curves import check_picture
    from surgery.sources import function_from

    for path in (output, plot):
        if path is not None:
            check_file(path, overwrite=overwrite)
    check_picture(plot)
    check_report(report, overwrite=overwrite)
    args, kwargs = inputs_of(inputs)
    settings: dict[str, Any] = {
        "data": data_of(data),
        "loss": None if loss is None else function_from(loss),
        "evaluate": None if evaluate is None else function_from(evaluate),
        "importance": importance_of(importance),
        "ratios": _ratios(ratios),
        "protect": protect or (),
        "samples": samples,
        "seed": seed,
    }
    loaded = opened(model, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory)
    try:
        found = sensing.sensitivity(loaded.model, args, kwargs, **settings)
    except sensing.Interrupted as error:
        if not error.sensitivity.curves:
            raise
        note("interrupted: here is what was measured until now")
        found = error.sensitivity
    lines = [str(found)]
    if output is not None:
        write_file(output, found.to_json(), overwrite=overwrite)
        lines.append(f"saved as {output}")
    if plot is not None:
        lines.append(f"drawn in {found.plot(plot, overwrite=overwrite)}")
    if report is not None:
        from surgery.reporting import report as write_report

        write_report(report, sensitivity=found, title=model, overwrite=overwrite)
        lines.append(f"report in {report}")
    kept = {name: None if path is None else str(path) for name, path in (("output", output), ("report", report))}
    told = {"command": "sensitivity", "model": model, **kept, "sensitivity": found}
    return Outcome("\n".join(lines), told, INTERRUPTED if found.interrupted else 0)


def _ratios(text: str) -> list[float]:
    """Numbers between commas."""
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InputError(f"--ratios is {text!r}", "write shares between commas, such as 0.25,0.5,0.75") from error
