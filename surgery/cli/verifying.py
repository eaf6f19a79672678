"""`surgery verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from surgery.cli.models import inputs_of, opened
from surgery.cli.options import MODEL_HELP, Checkpoint, Factory, Inputs, Json, StripPrefix, Traceback, Trust
from surgery.cli.outcome import Outcome
from surgery.errors import InputError

if TYPE_CHECKING:
    from torch import nn

FILES = (".onnx", ".pt", ".pt2")
"""How the name of an exported file ends."""

VERIFIED_HELP = MODEL_HELP.removesuffix(".") + ", or an exported file: .onnx, .pt, .pt2, .aoti.pt2."


def verify(
    a: Annotated[str, typer.Argument(metavar="A", help=f"The model before: {VERIFIED_HELP}", show_default=False)],
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
    from surgery.verifying import verify as judge

    args, kwargs = inputs_of(inputs)

    def side(word: str, weights: Path | None) -> nn.Module | Path:
        if word.lower().endswith(FILES) and not Path(word).is_dir():
            if weights is not None:
                raise InputError(f"{word!r} is an exported file, which has its own weights", "leave the checkpoint out")
            return Path(word)
        return opened(word, checkpoint=weights, strip_prefix=strip_prefix, trust=trust, factory=factory).model

    proof = judge(side(a, checkpoint), side(b, checkpoint_b), args, kwargs, trust=trust)
    return Outcome(str(proof), {"command": "verify", "a": a, "b": b, "proof": proof}, 0 if proof.passed else 1)
