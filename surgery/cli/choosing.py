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
from surgery.errors import InputError

AMOUNTS = "0.5, 50%, 3500000 or 3.5M."


def choose(
    model: Model,
    inputs: Inputs,
    checkpoint: Checkpoint = None,
    strip_prefix: StripPrefix = "",
    keep_ratio: Annotated[
        float | None,
        typer.Option(help="The share of channels that stays, of each group (of all, with --global); 0.5 by default."),
    ] = None,
    params: Annotated[str | None, typer.Option(metavar="AMOUNT", help=f"The most parameters: {AMOUNTS}")] = None,
    macs: Annotated[str | None, typer.Option(metavar="AMOUNT", help=f"The most MACs of a call: {AMOUNTS}")] = None,
    size: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="The most bytes of weights: 0.5, 50%, 20MB or 20MiB.")
    ] = None,
    importance: Annotated[
        str,
        typer.Option(
            help="By weights l1, l2, bn_scale, fpgm, lamp, random; over --data taylor, hessian, obdc, wanda, variance; "
            "or package.module:name, a function of the model or a criterion of torch-pruning."
        ),
    ] = "l2",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FACTORY", help="package.module:factory, which returns a DataLoader or another list of batches."
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="FUNCTION",
            help="A function of (outputs, targets): torch.nn.functional:cross_entropy, or your own. Not needed where "
            "the model's output has a loss.",
        ),
    ] = None,
    global_: Annotated[
        bool, typer.Option("--global", help="One ranking over all groups, not the same share of each.")
    ] = False,
    protect: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A module or tensor whose shapes stay; * for any text. Once per name."),
    ] = None,
    min_keep: Annotated[
        str, typer.Option(metavar="N", help="At least so many channels of each group stay, or (0.1) such a share.")
    ] = "1",
    round_to: RoundTo = 1,
    uniform: Uniform = False,
    keep_class: KeepClass = False,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
    output: PlanOutput = None,
    overwrite: Overwrite = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Choose the channels of MODEL that matter least, of such as can then be cut exactly."""
    from surgery import choosing
    from surgery.sources import data_from, function_from

    if output is not None:
        check_file(output, overwrite=overwrite)
    args, kwargs = inputs_of(inputs)
    loaded = opened(model, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory)
    settings: dict[str, Any] = {
        "keep_ratio": keep_ratio,
        "params": params,
        "macs": macs,
        "size_bytes": size,
        "importance": function_from(importance) if ":" in importance else importance,
        "data": None if data is None else data_from(data),
        "loss": None if loss is None else function_from(loss),
        "global_": global_,
        "protect": protect or (),
        "min_keep": _number(min_keep),
        "round_to": round_to,
        "uniform": uniform,
        "keep_class": keep_class,
        "seed": seed,
    }
    plan = choosing.choose(loaded.model, args, kwargs, **settings)
    if output is not None:
        write_file(output, plan.to_json(), overwrite=overwrite)
    told = {
        "command": "choose",
        "model": model,
        "output": None if output is None else str(output),
        "removed_channels": plan.removed_channels,
        "groups": plan.groups,
        "plan": plan if output is None else None,
    }
    return Outcome(str(plan) + (f"\nsaved as {output}" if output is not None else ""), told)


def _number(text: str) -> int | float:
    """A count where it is written as one, else a share."""
    try:
        return int(text) if text.strip().isdigit() else float(text)
    except ValueError as error:
        raise InputError(
            f"--min-keep is {text!r}", "give a whole number of channels, or a share such as 0.1"
        ) from error
