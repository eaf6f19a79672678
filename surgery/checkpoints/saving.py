"""`surgery.save`: a result as two files that appear together or not at all."""

from __future__ import annotations

import os
import shutil

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from surgery.checkpoints.directories import MANIFEST, WEIGHTS, replaced, sha256
from surgery.checkpoints.manifest import Manifest
from surgery.checkpoints.tensors import stored, unstored_buffers
from surgery.errors import InputError
from surgery.progress import stage
from surgery.results import Result
from surgery.version import __version__


def save(
    result: Result, directory: str | os.PathLike[str], *, source: str | None = None, overwrite: bool = False
) -> None:
    """Write a slim model: `model.safetensors`, and `surgery.json` with the plan that `load` replays.

    Whenever the process is killed, the directory is the old one, the new one, or not there.

    Args:
        result: From `shrink`; its model may have been trained further, in the same shapes.
        directory: Where to write; its parent must exist.
        source: How the model is named on the command line, as `"timm:resnet18"`; recorded, so that library models
            are rebuilt from it.
        overwrite: Replace a directory that `save` wrote. Any other is refused.

    Raises:
        InputError: The directory exists or holds files of others, the disk is full, or a part of the model's state
            cannot be stored.
    """
    with replaced(directory, overwrite=overwrite) as place, stage(f"writing {os.fspath(directory)}"):
        tensors, ties = stored(result.model)
        try:
            save_file(tensors, place / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise InputError(f"cannot write {WEIGHTS}: {error}", "make room, or choose another place") from error
        except (KeyError, ValueError, TypeError) as error:
            dtypes = ", ".join(sorted({str(tensor.dtype) for tensor in tensors.values()}))
            raise InputError(f"safetensors cannot hold the model ({dtypes}): {error}", "change the dtype") from error
        manifest = Manifest(
            weights_sha256=sha256(place / WEIGHTS),
            plan=msgspec.Raw(result.plan.to_json().encode()),
            surgery_version=__version__,
            torch_version=str(torch.__version__),
            source=source,
            ties=ties,
            buffer_dtypes={name: _word(buffer.dtype) for name, buffer in unstored_buffers(result.model)},
            proof=None if result.proof is None else msgspec.to_builtins(result.proof),
            params_before=result.params_before,
            params_after=result.params_after,
            macs_before=result.macs_before,
            macs_after=result.macs_after,
            notes=result.notes,
        )
        (place / MANIFEST).write_bytes(manifest.to_json())
        shutil.copymode(place / MANIFEST, place / WEIGHTS)  # safetensors lets nobody else read its files


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
