"""`surgery explain`."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated

import typer

from surgery.cli.models import inputs_of, opened
from surgery.cli.options import Checkpoint, Factory, Inputs, Json, Model, StripPrefix, Traceback, Trust
from surgery.cli.outcome import Outcome
from surgery.errors import InputError


def explain(
    model: Model,
    inputs: Inputs,
    parameter: Annotated[
        str | None, typer.Argument(metavar="PARAMETER", help="A tensor's name, as layer1.0.conv1.weight.")
    ] = None,
    index: Annotated[int | None, typer.Argument(metavar="INDEX", help="A position on it, from 0 on.")] = None,
    dim: Annotated[int, typer.Option(help="The dim that INDEX counts on.")] = 0,
    checkpoint: Checkpoint = None,
    strip_prefix: StripPrefix = "",
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Say what is coupled in MODEL, what is dead, what is pinned and why; or why one channel stays or goes."""
    from surgery import analyses

    if parameter is not None and index is None:
        raise InputError(f"{parameter} stands without a position", "give PARAMETER and INDEX, or neither")
    args, kwargs = inputs_of(inputs)
    loaded = opened(model, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory)
    analysis = analyses.analyze(loaded.model, args, kwargs)
    if parameter is None or index is None:
        told = {f.name: getattr(analysis, f.name) for f in fields(analysis) if f.name not in {"plan", "study"}}
        return Outcome(str(analysis), {"command": "explain", "model": model, **told, "aligning": analysis.aligning})
    if analysis.plan is None:
        raise InputError("the model has no weights: it is on the meta device", "explain a model that holds its weights")
    text = analysis.plan.explain(parameter, index, dim)
    data = {"command": "explain", "model": model, "parameter": parameter, "index": index, "dim": dim}
    return Outcome(text, {**data, "explanation": text})
