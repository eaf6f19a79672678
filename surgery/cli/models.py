"""From the words of a command line to models, inputs and places to write."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from surgery.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from surgery.checkpoints import Saved
    from surgery.sources import LoadedModel


def opened(
    spec: str,
    *,
    checkpoint: Path | None = None,
    strip_prefix: str = "",
    trust: bool = False,
    factory: str | None = None,
    quiet: bool = False,
) -> LoadedModel:
    """The model that MODEL names; what is to be known about it goes to stderr.

    Args:
        spec: MODEL.
        checkpoint: Weights for it.
        strip_prefix: Taken off the names in the checkpoint.
        trust: Allow the code of a transformers directory.
        factory: What a directory written by surgery was made from.
        quiet: Say nothing.

    Raises:
        InputError: As `surgery.sources.load_model`, or a saved directory was made from code that nobody named.
    """
    from surgery.checkpoints import bring_back, describe, load
    from surgery.sources import load_model

    def open_saved(directory: Path) -> nn.Module:
        saved = describe(directory)
        if not quiet:
            note(str(saved))
        if factory == spec:
            raise InputError(f"--factory is {factory!r}, the saved directory itself", "name the model before the cut")
        with naming_factory(saved):
            return load(directory, before_cut(saved, factory=factory, trust=trust))

    bring_back(Path(spec))
    loaded = load_model(spec, checkpoint=checkpoint, strip_prefix=strip_prefix, trust=trust, open_saved=open_saved)
    for text in () if quiet else loaded.notes:
        note(text)
    return loaded


def before_cut(saved: Saved, *, factory: str | None, trust: bool) -> nn.Module | None:
    """What a saved directory was made from, to be passed to `load`; None where `load` finds it itself.

    Args:
        saved: The directory.
        factory: How the model is named; where it was cut in several rounds, before the first or before the last.
        trust: Allow the code of a transformers directory.
    """
    from surgery.checkpoints import lineage

    *earlier, _ = lineage(saved)
    if earlier and (factory is None or not Path(factory).is_dir()):
        return opened(str(earlier[-1].directory), factory=factory, trust=trust, quiet=True).model
    return None if factory is None else opened(factory, trust=trust, quiet=True).model


@contextmanager
def naming_factory(saved: Saved) -> Iterator[None]:
    """Have an error about a model that nobody named say how the command line names it."""
    from surgery.checkpoints import NAME_IT

    try:
        yield
    except InputError as error:
        if error.way_out == NAME_IT:
            named = saved.manifest.source or "package.module:factory"
            raise InputError(error.fact, f"name it: --factory {named}") from error
        raise


def streamed(
    spec: str, checkpoint: Path | None, *, strip_prefix: str, trust: bool, factory: str | None
) -> tuple[nn.Module, Path]:
    """The model that MODEL names without weights, and where those are: what goes to stderr says from where.

    Args:
        spec: MODEL.
        checkpoint: The weights; None for those in MODEL, where that is a directory.
        strip_prefix, factory: Have nothing to do here.
        trust: As for `opened`.

    Raises:
        InputError: There is no checkpoint, or an option that does not go with it; or as `surgery.sources.empty_model`.
    """
    from surgery.sources import empty_model

    if strip_prefix or factory is not None:
        option = "--strip-prefix" if strip_prefix else "--factory"
        raise InputError(f"{option} does not go with --stream", "leave it out: a prefix of all names is found anyway")
    if checkpoint is None and not Path(spec).is_dir():
        raise InputError("--stream reads weights from files, and none were named", "add --checkpoint DIRECTORY")
    loaded = empty_model(spec, trust=trust)
    for text in loaded.notes:
        note(text)
    return loaded.model, checkpoint or Path(spec)


def inputs_of(specs: Sequence[str]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """The example inputs: positional ones, and those with a name.

    Raises:
        InputError: A word of `--input` is malformed.
    """
    from surgery.sources import parse_inputs

    return parse_inputs(specs)


def check_file(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written before hours are spent on what goes into it.

    Raises:
        InputError: It exists, is a directory, or there is no place for it.
    """
    if not path.parent.is_dir():
        raise InputError(f"the directory {str(path.parent)!r} does not exist", "create it first")
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a directory", "give the path of a file")
    if os.path.lexists(path) and not overwrite:
        raise InputError(f"{str(path)!r} exists already", "pass --overwrite, or choose another path")


def check_report(path: Path | None, *, output: Path | None = None, overwrite: bool) -> None:
    """Refuse a report page that cannot be written.

    Args:
        path: Where it is to be; None where nobody asked for one.
        output: The directory that the same command makes: it holds what `save` wrote, and nothing else.
        overwrite: Replace a file that is there.

    Raises:
        MissingExtraError: jinja2 is not installed.
        InputError: As `check_file`, or it would lie in `output`.
    """
    from surgery.reporting import check_page

    if path is None:
        return
    check_page()
    if output is not None and path.resolve().is_relative_to(output.resolve()):
        fact = f"the report {str(path)!r} would lie in {str(output)!r}, which holds the slim model alone"
        raise InputError(fact, f"put it beside: {output.resolve().name}.html")
    check_file(path, overwrite=overwrite)


def write_file(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a text file, all of it or nothing.

    Raises:
        InputError: It exists, or the disk is full.
    """
    from surgery.exporting.staging import staged

    with staged(path, overwrite=overwrite) as place:
        place.write_text(text, encoding="utf-8")


def note(text: str) -> None:
    """A line on stderr."""
    typer.echo(text, err=True)
