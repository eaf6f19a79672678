"""`surgery shrink`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surgery.cli.models import inputs_of, opened
from surgery.cli.options import (
    Checkpoint,
    Export,
    Factory,
    Inputs,
    Json,
    KeepClass,
    Model,
    NoProve,
    Overwrite,
    Report,
    RoundTo,
    SlimOutput,
    StripPrefix,
    Traceback,
    Trust,
    Uniform,
)
from surgery.cli.outcome import Outcome
from surgery.cli.results import Destination, plain


def shrink(
    model: Model,
    inputs: Inputs,
    checkpoint: Checkpoint = None,
    strip_prefix: StripPrefix = "",
    keep_masks: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Masks by parameter or module name; what is not 0 stays.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan of `surgery choose`: mask what it names first.")] = None,
    tolerance: Annotated[
        float, typer.Option(help="Set weights up to this magnitude to zero first; that changes the function.")
    ] = 0.0,
    flush_subnormals: Annotated[
        bool, typer.Option("--flush-subnormals", help="Set subnormal weights to zero first.")
    ] = False,
    round_to: RoundTo = 1,
    uniform: Uniform = False,
    keep_class: KeepClass = False,
    depth: Annotated[
        bool, typer.Option("--depth", help="Remove whole modules, too, where nothing would miss them.")
    ] = False,
    no_prove: NoProve = False,
    output: SlimOutput = None,
    export: Export = None,
    report: Report = None,
    overwrite: Overwrite = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Remove every channel that is dead in MODEL, and prove that the function is the same."""
    from surgery import shrinking
    from surgery.plans import Plan
    from surgery.sources import read_weights

    place = Destination.of(output, export, report, overwrite=overwrite, source=model)
    masks = None if keep_masks is None else {n: t.bool() for n, t in read_weights(keep_masks).tensors.items()}
    args, kwargs = inputs_of(inputs)
    chosen = None if plan is None else Plan.read(plan)
    loaded = opened(model, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory)
    result = shrinking.shrink(
        loaded.model if chosen is None else chosen.mask(loaded.model),
        args,
        kwargs,
        keep_masks=masks,
        tolerance=tolerance,
        flush_subnormals=flush_subnormals,
        round_to=round_to,
        uniform=uniform,
        prove=not no_prove,
        keep_class=keep_class,
        depth=depth or (chosen is not None and bool(chosen.bypasses)),
    )
    told, kept = place.written(result, args, kwargs)
    return Outcome(told, {"command": "shrink", "model": model, **kept, **plain(result)})
