"""What a transformers directory holds beside config and weights (tokenizers, processors): it goes with the model."""

from __future__ import annotations

import shutil
from pathlib import Path

from surgery.errors import InputError

SUFFIXES = frozenset({".json", ".jsonl", ".txt", ".model", ".jinja", ".tiktoken", ".spm", ".vocab", ".bpe"})
OURS = frozenset({"config.json", "surgery.json", "quantization_config.json"})
SOURCE = "source"
"""The directory inside a slim one that holds the config of the model before the cut."""

LARGEST_BYTES = 200_000_000


def companions(directory: Path) -> tuple[str, ...]:
    """Names of the files that belong to a model, whatever its weights: neither config, weights nor code."""
    found = []
    for path in sorted((*directory.glob("*"), *directory.glob("*/*"))):
        name = path.relative_to(directory).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        ours = name in OURS or name.startswith(f"{SOURCE}/") or path.name.endswith(".index.json")
        odd = hidden or ours or path.suffix.lower() not in SUFFIXES
        if path.is_file() and not odd and path.stat().st_size <= LARGEST_BYTES:
            found.append(name)
    return tuple(found)


def copy_companions(source: Path, target: Path) -> None:
    """Copy them, whether files or links to such (as in a cache).

    Raises:
        InputError: One of them cannot be read.
    """
    for name in companions(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source / name, target / name)
        except PermissionError as error:
            raise InputError(f"{str(source / name)!r} cannot be read", "check the permissions") from error
