"""The list of commands."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Annotated, ParamSpec

import typer

from surgery.cli.aligning import align
from surgery.cli.benching import bench
from surgery.cli.choosing import choose
from surgery.cli.demonstrating import demo
from surgery.cli.explaining import explain
from surgery.cli.exporting import export
from surgery.cli.outcome import Outcome
from surgery.cli.pruning import prune
from surgery.cli.quantizing import quantize
from surgery.cli.recovering import recover
from surgery.cli.sensing import sensitivity
from surgery.cli.shrinking import shrink
from surgery.cli.verifying import verify
from surgery.version import __version__

P = ParamSpec("P")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Remove the dead channels of a trained PyTorch network: the same function, with a proof, in plain modules.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"surgery {__version__}")
        raise typer.Exit


@app.callback()
def surgery(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Results go to stdout, progress to stderr. Exit codes: 0 done, 1 a check failed, 2 bad usage or input."""


def _quiet(command: Callable[P, Outcome]) -> Callable[P, Outcome]:
    """The command with stdout kept for its result: what the user's model prints goes to stderr."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> Outcome:
        with redirect_stdout(sys.stderr):
            return command(*args, **kwargs)

    return run


for command in (shrink, choose, prune, recover, sensitivity, align, explain, export, quantize, bench, verify):
    app.command(no_args_is_help=True)(_quiet(command))
app.command()(demo)  # tells its story on stdout as it goes
