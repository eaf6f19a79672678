"""`surgery demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from surgery.cli.options import Json, Report, Traceback


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="Train for seconds only, and time nothing.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--directory", "--output", "-o", help="Keep all files here; new or empty."),
    ] = None,
    report: Report = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the report that is there.")] = False,
    json: Json = False,
    traceback: Traceback = False,
) -> int:
    """Train, mask, shrink, prove, save, export and time a small net on real handwritten digits."""
    from surgery.demo import main

    return main(quick=quick, directory=output, report=report, overwrite=overwrite, as_json=json)
