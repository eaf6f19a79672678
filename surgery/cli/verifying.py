"""`surgery verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surgery.cli.models import inputs_of, opened
from surgery.cli.options import MODEL_HELP, Checkpoint, Factory, Inputs, Json, StripPrefix, Traceback, Trust
from surgery.cli.outcome import Outcome


def verify(
    a: Annotated[str, typer.Argument(metavar="A", help=f"The model before: {MODEL_HELP}", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="The model after, in the same forms.", show_default=False)],
    inputs: Inputs,
    checkpoint: Checkpoint = None,
    checkpoint_b: Annotated[Path | None, typer.Option("--checkpoint-b", help="Weights for B.")] = None,
    strip_prefix: StripPrefix = "",
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Judge whether B computes what A does, whoever made it. Exit code 1 if it does not."""
    from surgery.proof.prove import verify as judge

    args, kwargs = inputs_of(inputs)
    first = opened(a, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory)
    second = opened(b, checkpoint=checkpoint_b, strip_prefix=strip_prefix, trust=trust, factory=factory)
    proof = judge(first.model, second.model, args, kwargs)
    return Outcome(str(proof), {"command": "verify", "a": a, "b": b, "proof": proof}, 0 if proof.passed else 1)
