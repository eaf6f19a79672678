"""`surgery choose`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from surgery.cli.models import check_file, inputs_of, opened, write_file
from surgery.cli.options import (
    Checkpoint,
    Factory,
    Inputs,
    Json,
    KeepClass,
    Model,
    Overwrite,
    PlanOutput,
    RoundTo,
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
    strip_prefix: StripPrefix = "",
    keep_ratio: Annotated[float, typer.Option(help="The share of each group's channels that stays.")] = 0.5,
    importance: Annotated[str, typer.Option(help="l1 or l2: the norm of what writes a channel.")] = "l2",
    round_to: RoundTo = 1,
    uniform: Uniform = False,
    keep_class: KeepClass = False,
    output: PlanOutput = None,
    overwrite: Overwrite = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Choose the channels of MODEL that matter least, of such as can then be cut exactly."""
    from surgery import choosing

    if output is not None:
        check_file(output, overwrite=overwrite)
    args, kwargs = inputs_of(inputs)
    loaded = opened(model, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory)
    settings: dict[str, Any] = {
        "keep_ratio": keep_ratio,
        "importance": importance,
        "round_to": round_to,
        "uniform": uniform,
        "keep_class": keep_class,
    }
    plan = choosing.choose(loaded.model, args, kwargs, **settings)
    if output is not None:
        write_file(output, plan.to_json(), overwrite=overwrite)
    data = {
        "command": "choose",
        "model": model,
        "output": None if output is None else str(output),
        "removed_channels": plan.removed_channels,
        "groups": plan.groups,
        "plan": plan if output is None else None,
    }
    return Outcome(str(plan) + (f"\nsaved as {output}" if output is not None else ""), data)
