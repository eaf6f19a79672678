"""A saved directory as the result that it was written from; and what a model trained since takes over from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from surgery.checkpoints.beside import SOURCE, copy_companions
from surgery.checkpoints.loading import load
from surgery.checkpoints.manifest import BLANK, Manifest, Saved, describe
from surgery.errors import InputError
from surgery.proof.prove import Proof
from surgery.results import Result

STALE = "the exports in {directory} are of the weights before training, and were left out: export it again"


def reopen(directory: str | Path, model: nn.Module | Callable[[], nn.Module] | None = None) -> Result:
    """What `save` wrote, with the slim model in it; `save` writes it again, with the weights that it has then.

    Args:
        directory: From `save`.
        model: As for `load`.

    Raises:
        InputError: As `load`.
    """
    slim = load(directory, model)
    saved = describe(directory)
    manifest = saved.manifest
    return Result(
        model=slim,
        plan=saved.plan,
        earlier=saved.earlier,
        proof=_proof(manifest.proof),
        params_before=manifest.params_before,
        params_after=manifest.params_after,
        macs_before=manifest.macs_before,
        macs_after=manifest.macs_after,
        notes=manifest.notes,
        source_sha256=manifest.source_sha256,
        training=manifest.training,
        origin=Path(directory),
    )


def lineage(saved: Saved) -> tuple[Saved, ...]:
    """The saved directories that one was made from, the oldest first, and itself: a net may be cut in several rounds.

    It ends at what is no directory of ours, or is there no longer.
    """
    found = [saved]
    while (source := found[0].manifest.source) is not None and ":" not in source:
        try:
            before = describe(source)
        except InputError:  # a directory of transformers, or one that was moved since
            break
        if any(before.directory.samefile(known.directory) for known in found):
            break
        found.insert(0, before)
    return tuple(found)


def carry_over(saved: Saved, place: Path) -> None:
    """Copy what lies beside the weights of a directory: configs, what tokenizers need.

    Raises:
        InputError: A file is missing or cannot be read.
    """
    copy_companions(saved.directory, place)
    for name in saved.manifest.files:
        weights = ".safetensors" in name and not name.startswith(f"{SOURCE}/")
        if weights or any(name == file or name == f"{file}.data" for file in saved.manifest.exports):
            continue
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(saved.directory / name, place / name)
        except OSError as error:
            fact = f"{str(saved.directory / name)!r} cannot be read: {error.strerror}"
            raise InputError(fact, "copy the whole directory again") from error


def with_training(result: Result, saved: Saved, own: Manifest) -> Manifest:
    """The manifest of a model that was trained since it was read: of the cut as it was, of the weights as they are.

    Args:
        result: The model, and what it was trained with.
        saved: What it was read from.
        own: What can be said of the model itself, without looking at the other.
    """
    stale = (STALE.format(directory=saved.directory),) if saved.manifest.exports else ()
    return replace(
        saved.manifest,
        digest=BLANK,
        format_version=own.format_version,
        surgery_version=own.surgery_version,
        torch_version=own.torch_version,
        anatomy=own.anatomy,
        buffer_dtypes=own.buffer_dtypes,
        training=own.training,
        notes=(*result.notes, *(note for note in stale if note not in result.notes)),
    )


def _proof(plain: Mapping[str, Any] | None) -> Proof | None:
    """A proof from plain data; None where there is none, or one that another version wrote otherwise."""
    try:
        return None if plain is None else msgspec.convert(dict(plain), Proof)
    except msgspec.ValidationError:
        return None
