"""`surgery prune`."""

from __future__ import annotations

from typing import Annotated

import typer

from surgery.cli.choices import (
    DEFAULT,
    Depth,
    Global,
    Importance,
    KeepRatio,
    Latency,
    Loss,
    Macs,
    MinKeep,
    Params,
    Protect,
    Rounding,
    Runtime,
    Seed,
    Sensitivity,
    Size,
    Threads,
    settings_of,
)
from surgery.cli.data import data_of
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
    SlimOutput,
    StripPrefix,
    Traceback,
    Trust,
    Uniform,
)
from surgery.cli.outcome import Outcome
from surgery.cli.results import Destination, plain


def prune(
    model: Model,
    inputs: Inputs,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FACTORY or @FILE",
            help="Batches to win back on what the removal costs: package.module:factory, which returns a DataLoader or "
            "a list of batches, or @samples.npy, samples along dim 0. Without, the exact fold is all.",
        ),
    ] = None,
    evaluate: Annotated[
        str | None,
        typer.Option(
            metavar="FUNCTION",
            help="package.module:function, called with the dense model and after each rung; returns a number.",
        ),
    ] = None,
    rung: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="bias, lstsq or batchnorm; once each. By default all."),
    ] = None,
    samples: Annotated[int, typer.Option(help="The most samples that are taken of the data.")] = 512,
    checkpoint: Checkpoint = None,
    strip_prefix: StripPrefix = "",
    keep_ratio: KeepRatio = None,
    params: Params = None,
    macs: Macs = None,
    size: Size = None,
    latency: Latency = None,
    runtime: Runtime = "eager",
    threads: Threads = 1,
    importance: Importance = DEFAULT,
    sensitivity: Sensitivity = None,
    loss: Loss = None,
    global_: Global = None,
    protect: Protect = None,
    min_keep: MinKeep = "1",
    seed: Seed = 0,
    round_to: Rounding = None,
    uniform: Uniform = False,
    keep_class: KeepClass = False,
    depth: Depth = None,
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
    """Choose what matters least in MODEL, win back on data what that costs, and cut it."""
    from surgery import pruning
    from surgery.compensating import RUNGS
    from surgery.sources import function_from

    place = Destination.of(output, export, report, overwrite=overwrite, source=model)
    args, kwargs = inputs_of(inputs)
    judge = None if evaluate is None else function_from(evaluate)
    batches = data_of(data)
    settings = settings_of(
        keep_ratio=keep_ratio,
        params=params,
        macs=macs,
        size=size,
        latency=latency,
        runtime=runtime,
        threads=threads,
        importance=importance,
        sensitivity=sensitivity,
        loss=loss,
        global_=global_,
        protect=protect,
        min_keep=min_keep,
        round_to=round_to,
        uniform=uniform,
        keep_class=keep_class,
        depth=depth,
        seed=seed,
    )
    loaded = opened(model, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory)
    result = pruning.prune(
        loaded.model,
        args,
        kwargs,
        data=batches,
        evaluate=judge,
        rungs=RUNGS if rung is None else rung,
        samples=samples,
        prove=not no_prove,
        **settings,
    )
    measured = None if sensitivity is None else settings["importance"]
    told, kept = place.written(result, args, kwargs, sensitivity=measured)
    ladder = {"compensated": result.compensated.as_dict(), "aim": result.plan.aim}
    return Outcome(told, {"command": "prune", "model": model, **kept, **plain(result), **ladder})
