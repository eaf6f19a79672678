"""`surgery export`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from surgery.cli.models import check_file, inputs_of, opened
from surgery.cli.options import Checkpoint, Factory, Inputs, Json, Model, Overwrite, StripPrefix, Traceback, Trust
from surgery.cli.outcome import Outcome
from surgery.errors import InputError


def export(
    model: Model,
    inputs: Inputs,
    to: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="A file to write: .onnx, or .pt (TorchScript).", show_default=False),
    ],
    static: Annotated[bool, typer.Option("--static", help="Promise the example's shapes only.")] = False,
    checkpoint: Checkpoint = None,
    strip_prefix: StripPrefix = "",
    overwrite: Overwrite = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Write MODEL for other runtimes; each file is checked against it in its own runtime."""
    from surgery.exporting import export as write
    from surgery.exporting.table import target_for

    for path, times in Counter(to).items():
        target_for(path, None)
        check_file(path, overwrite=overwrite)
        if times > 1:
            raise InputError(f"{str(path)!r} is named {times} times", "name each file once")
    args, kwargs = inputs_of(inputs)
    loaded = opened(model, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory)
    shapes: dict[str, object] | None = {} if static else None
    written = [write(loaded.model, path, args, kwargs, dynamic_shapes=shapes, overwrite=overwrite) for path in to]
    data = {"command": "export", "model": model, "exports": [one.as_dict() for one in written]}
    return Outcome("\n".join(map(str, written)), data)
