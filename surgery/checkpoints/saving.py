"""`surgery.save`: a result as a directory that appears as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from surgery.checkpoints.anatomy import anatomy
from surgery.checkpoints.beside import SOURCE, copy_companions
from surgery.checkpoints.directories import MANIFEST, WEIGHTS, replaced, sha256
from surgery.checkpoints.manifest import ExportRecord, Manifest, Saved, describe
from surgery.checkpoints.pretrained import configured_before, save_config, save_generation, save_plain, save_weights
from surgery.checkpoints.reopening import carry_over, with_training
from surgery.checkpoints.tensors import stored, unstored_buffers
from surgery.errors import InputError
from surgery.exporting import Export
from surgery.progress import stage
from surgery.results import Result
from surgery.version import __version__


def save(
    result: Result,
    directory: str | os.PathLike[str],
    *,
    source: str | None = None,
    exports: Sequence[Export] = (),
    overwrite: bool = False,
) -> None:
    """Write a slim model: `model.safetensors`, and `surgery.json` with the plan that `load` replays.

    Whenever the process is killed, the directory is the old one, the new one, or not there. A model that was read from
    a directory (`reopen`) and trained since is written as that was, with its new weights.

    Of a model of transformers the tokenizer's and processor's files are kept, where `source` is the directory that it
    came from. If its config can say all the widths that are left (they are alike in every layer: see `uniform` of
    `shrink`), the directory is a plain one of transformers, with the config changed, which `from_pretrained` loads;
    that is tried before it is written. Otherwise the config of the model before the cut is kept in it, so that
    `load(directory)` needs nothing else.

    Args:
        result: From `shrink`; its model may have been trained further, in the same shapes.
        directory: Where to write; its parent must exist.
        source: How the model is named on the command line, as `"timm:resnet18"` or a directory of transformers;
            recorded, so that library models are rebuilt from it. What was read from a directory keeps that one's.
        exports: Files that `export` made of the slim model: they are copied into the directory, and their parity is
            recorded.
        overwrite: Replace a directory that `save` wrote. Any other is refused.

    Raises:
        InputError: The directory exists or holds files of others, the disk is full, or a part of the model's state
            cannot be stored.
    """
    if result.plan.graph is not None and result.plan.graph.args is None:
        raise InputError(
            "the captured graph could not be made again: its example call holds objects that cannot be stored",
            "call shrink with tensors, numbers and strings only, or export the model: surgery.export",
        )
    saved = None if result.origin is None else describe(result.origin)
    with replaced(directory, overwrite=overwrite, source=source) as place, stage(f"writing {os.fspath(directory)}"):
        manifest, ties = _as_cut(result, place, source) if saved is None else _as_trained(result, place, saved)
        records = {path.name: _copied(export, place) for export in exports if (path := Path(export.path))}
        files = {path.relative_to(place).as_posix(): sha256(path) for path in place.rglob("*") if path.is_file()}
        manifest = replace(manifest, ties=ties, weights_sha256=files.pop(WEIGHTS, ""), files=files, exports=records)
        (place / MANIFEST).write_bytes(manifest.to_json())
        for path in place.rglob("*.safetensors"):
            shutil.copymode(place / MANIFEST, path)  # safetensors lets nobody else read its files


def _as_cut(result: Result, place: Path, source: str | None) -> tuple[Manifest, dict[str, str]]:
    """Write the weights of a model that was cut here, and what lies beside them."""
    before = configured_before(result)
    plain = before is not None and save_plain(result, before, place)
    ties = {} if plain else _write_weights(result, place)
    if before is not None and not plain:
        save_config(before, place / SOURCE)
    if before is not None:
        save_generation(result.model, place)
    if source is not None and any((Path(source) / name).is_file() for name in ("config.json", MANIFEST)):
        copy_companions(Path(source), place)
    return _manifest(result, source, "plain" if plain else "source" if before is not None else None), ties


def _as_trained(result: Result, place: Path, saved: Saved) -> tuple[Manifest, dict[str, str]]:
    """Write the weights of a model that was read from a directory, and what lies beside them there."""
    ties: dict[str, str] = {}
    if saved.plain:
        save_weights(result.model, place)
    else:
        ties = _write_weights(result, place)
    carry_over(saved, place)
    return with_training(result, saved, _manifest(result, None, None)), ties


def _write_weights(result: Result, place: Path) -> dict[str, str]:
    """Write the state; the other names of shared tensors come back."""
    tensors, ties = stored(result.model)
    try:
        save_file(tensors, place / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:
        raise InputError(f"cannot write {WEIGHTS}: {error}", "make room, or choose another place") from error
    except (KeyError, ValueError, TypeError) as error:
        dtypes = ", ".join(sorted({str(tensor.dtype) for tensor in tensors.values()}))
        raise InputError(f"safetensors cannot hold the model ({dtypes}): {error}", "change the dtype") from error
    return ties


def _manifest(result: Result, source: str | None, transformers: str | None) -> Manifest:
    """All that is known without looking at the files."""
    return Manifest(
        weights_sha256="",
        plan=msgspec.Raw(result.plan.to_json().encode()),
        earlier=tuple(msgspec.Raw(plan.to_json().encode()) for plan in result.earlier),
        surgery_version=__version__,
        torch_version=str(torch.__version__),
        source=source,
        source_sha256=result.source_sha256,
        anatomy=anatomy(result.model),
        transformers=transformers,  # type: ignore[arg-type]
        buffer_dtypes={name: _word(buffer.dtype) for name, buffer in unstored_buffers(result.model)},
        proof=None if result.proof is None else msgspec.to_builtins(result.proof),
        params_before=result.params_before,
        params_after=result.params_after,
        macs_before=result.macs_before,
        macs_after=result.macs_after,
        notes=result.notes,
        training=result.training,
    )


def _copied(export: Export, place: Path) -> ExportRecord:
    """Copy an export with what lies beside it (weights above 1.8 GB are a second file)."""
    path = Path(export.path)
    parts = [path, *path.parent.glob(f"{path.name}.data")]
    for part in parts:
        if not part.is_file():
            raise InputError(f"the export {str(part)!r} is not there any more", "export it again")
        if (place / part.name).exists():
            raise InputError(f"two files of the directory would be named {part.name!r}", "name the export otherwise")
        shutil.copyfile(part, place / part.name)
    details = export.as_dict()
    return ExportRecord(export.format, details["parity"], tuple(export.notes))


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
