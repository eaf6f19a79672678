"""`surgery choose`."""

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
from surgery.cli.models import check_file, inputs_of, opened, streamed, write_file
from surgery.cli.options import (
    Checkpoint,
    Factory,
    Inputs,
    Json,
    KeepClass,
    Model,
    Overwrite,
    PlanOutput,
    StripPrefix,
    Traceback,
    Trust,
    Uniform,
)
from surgery.cli.outcome import Outcome


def choose(
    model: Model,
    inputs: Inputs,
    checkpoint: Checkpoint = None,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Build MODEL without weights and read those of --checkpoint (a .safetensors file, or a directory of "
            "shards) one tensor at a time: for models larger than the memory.",
        ),
    ] = False,
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
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FACTORY", help="package.module:factory, which returns a DataLoader or another list of batches."
        ),
    ] = None,
    loss: Loss = None,
    global_: Global = None,
    protect: Protect = None,
    min_keep: MinKeep = "1",
    round_to: Rounding = None,
    uniform: Uniform = False,
    keep_class: KeepClass = False,
    depth: Depth = None,
    seed: Seed = 0,
    output: PlanOutput = None,
    overwrite: Overwrite = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Choose the channels of MODEL that matter least, of such as can then be cut exactly."""
    from surgery import choosing
    from surgery.sources import data_from

    if output is not None:
        check_file(output, overwrite=overwrite)
    args, kwargs = inputs_of(inputs)
    weights = None
    if stream:
        net, weights = streamed(model, checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory)
    else:
        net = opened(model, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory).model
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
    batches = None if data is None else data_from(data)
    plan = choosing.choose(net, args, kwargs, data=batches, checkpoint=weights, **settings)
    if output is not None:
        write_file(output, plan.to_json(), overwrite=overwrite)
    told = {
        "command": "choose",
        "model": model,
        "output": None if output is None else str(output),
        "removed_channels": plan.removed_channels,
        "removed_modules": [bypass.module for bypass in plan.bypasses],
        "groups": plan.groups,
        "aim": plan.aim,
        "plan": plan if output is None else None,
    }
    return Outcome(str(plan) + (f"\nsaved as {output}" if output is not None else ""), told)
