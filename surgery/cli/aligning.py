"""`surgery align`."""

from __future__ import annotations

from typing import Annotated

import typer

from surgery.cli.models import check_file, inputs_of, opened, write_file
from surgery.cli.options import (
    Checkpoint,
    Factory,
    Inputs,
    Json,
    Model,
    Overwrite,
    PlanOutput,
    RoundTo,
    StripPrefix,
    Traceback,
    Trust,
)
from surgery.cli.outcome import Outcome

AGREEMENT_HELP = (
    "average: as many channels go as the layers zeroed on average, the lowest norms first; "
    "any: a channel goes if any layer zeroed it."
)


def align(
    model: Model,
    inputs: Inputs,
    checkpoint: Checkpoint = None,
    strip_prefix: StripPrefix = "",
    agreement: Annotated[str, typer.Option(help=AGREEMENT_HELP)] = "average",
    round_to: RoundTo = 1,
    output: PlanOutput = None,
    overwrite: Overwrite = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Make masks that disagree about the channels of MODEL agree, so that what is zeroed can be cut exactly."""
    from surgery import aligning
    from surgery.inputs import Inputs as Examples

    if output is not None:
        check_file(output, overwrite=overwrite)
    args, kwargs = inputs_of(inputs)
    loaded = opened(model, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory)
    done = aligning.aligned(loaded.model, Examples.of(args, kwargs), agreement=agreement, round_to=round_to)
    if output is not None:
        write_file(output, done.plan.to_json(), overwrite=overwrite)
    data = {
        "command": "align",
        "model": model,
        "output": None if output is None else str(output),
        "agreement": done.agreement,
        "removed_channels": done.plan.removed_channels,
        "more_zeroed": done.more,
        "notes": done.notes,
        "groups": done.plan.groups,
        "plan": done.plan if output is None else None,
    }
    return Outcome(str(done) + (f"\nsaved as {output}" if output is not None else ""), data)
