"""`surgery export`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from surgery.cli.models import check_file, inputs_of, note, opened
from surgery.cli.options import Checkpoint, Factory, Inputs, Json, Model, Overwrite, StripPrefix, Traceback, Trust
from surgery.cli.outcome import Outcome
from surgery.errors import InputError, SurgeryError


def export(
    model: Model,
    inputs: Inputs,
    to: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help="A file to write: .onnx, .pt (TorchScript), .pt2 (torch.export) or .aoti.pt2 (AOTInductor, compiled "
            "for this machine). Once per file.",
            show_default=False,
        ),
    ],
    static: Annotated[bool, typer.Option("--static", help="Promise the example's shapes only.")] = False,
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DIM:SIZE,...",
            help="Dims of any size, with a name for each: 0:batch,2:height,3:width, or input_ids=0:batch,1:tokens. "
            "Once per input; by default dim 0 of all, the batch.",
        ),
    ] = None,
    checkpoint: Checkpoint = None,
    strip_prefix: StripPrefix = "",
    overwrite: Overwrite = False,
    factory: Factory = None,
    trust: Trust = False,
    json: Json = False,
    traceback: Traceback = False,
) -> Outcome:
    """Write MODEL for other runtimes; each file is checked against it in its own runtime.

    A form that fails does not stop the others. Exit code 1 if a file disagreed (it is deleted), 2 if a form cannot be
    made.
    """
    from surgery.exporting import Export
    from surgery.exporting import export as write
    from surgery.exporting.summary import as_table
    from surgery.exporting.table import target_for

    for path, times in Counter(to).items():
        target_for(path, None)
        check_file(path, overwrite=overwrite)
        if times > 1:
            raise InputError(f"{str(path)!r} is named {times} times", "name each file once")
    shapes = _shapes(dynamic or (), static=static)
    args, kwargs = inputs_of(inputs)
    loaded = opened(model, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, factory=factory)
    written: list[Export] = []
    failed: dict[Path, SurgeryError] = {}
    for path in to:
        try:
            written.append(write(loaded.model, path, args, kwargs, dynamic_shapes=shapes, overwrite=overwrite))
        except SurgeryError as error:
            if len(to) == 1:
                raise
            failed[path] = error
            note(f"failed: {path}: {error.fact}")
    text = as_table(written, failed) if len(to) > 1 else str(written[0])
    data = {
        "command": "export",
        "model": model,
        "exports": [one.as_dict() for one in written],
        "failed": [{"path": str(path), **_as_dict(error)} for path, error in failed.items()],
    }
    return Outcome(text, data, min((error.exit_code for error in failed.values()), default=0))


def _as_dict(error: SurgeryError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "fact": error.fact,
        "way_out": error.way_out,
        "exit_code": error.exit_code,
    }


def _shapes(words: Sequence[str], *, static: bool) -> Any:
    """`dynamic_shapes` from the words of the command line: by name, or in the order of the inputs.

    Raises:
        InputError: A word is malformed, some are named and others not, or the shapes are to be static, too.
    """
    if static and words:
        raise InputError("--static and --dynamic say opposite things", "leave one of them out")
    if not words:
        return {} if static else None
    named, ordered = {}, []
    for word in words:
        name, equals, dims = word.rpartition("=")
        if equals and name in named:
            raise InputError(f"--dynamic names {name!r} twice", "write its dims once, with commas between them")
        if equals:
            named[name] = _dims(word, dims)
        else:
            ordered.append(_dims(word, dims))
    if named and ordered:
        raise InputError("--dynamic has a name for some inputs only", "write NAME= before each, or before none")
    return named or tuple(ordered)


def _dims(word: str, dims: str) -> dict[int, str]:
    """`0:batch,2:height` as `{0: "batch", 2: "height"}`."""
    found: dict[int, str] = {}
    for part in dims.split(","):
        dim, colon, name = (text.strip() for text in part.partition(":"))
        if not (colon and dim.isdecimal() and name.isidentifier()):
            raise InputError(f"--dynamic {word!r} cannot be read at {part!r}", "write it as in x=0:batch,2:height")
        found[int(dim)] = name
    return found
