"""All or nothing on disk: a file appears under its name only when it is complete and checked."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from surgery.errors import InputError


@contextmanager
def staged(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Yield a path to write to; what lies there at the end of the block moves to `path`, all else vanishes.

    The work happens in a hidden directory beside `path`, so that the move is a rename. Files that were written beside
    the yielded path move, too. An exception of any kind leaves nothing behind and the old file in place; only a
    killed process leaves its hidden directory (`.<name>.<random>`), never a half-written file under the final name.

    Raises:
        InputError: `path` exists and `overwrite` is off, its directory is missing or read-only, or the disk is full.
    """
    if not path.parent.is_dir():
        raise InputError(f"the directory {str(path.parent)!r} does not exist", "create it first")
    _require_free(path, overwrite)
    try:
        directory = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise InputError(
            f"cannot write into {str(path.parent)!r}: {error.strerror}", "choose another directory"
        ) from error
    try:
        yield directory / path.name
        # companions first: the file itself is what others look for
        for file in sorted(directory.iterdir(), key=lambda file: file.name == path.name):
            final = path.parent / file.name
            _require_free(final, overwrite)
            _flush(file)
            file.replace(final)
    except OSError as error:
        raise InputError(
            f"cannot write {str(path)!r}: {error.strerror or error}", "make room, or choose another place"
        ) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _require_free(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a directory", "give the path of a file")
    if not overwrite and os.path.lexists(path):
        raise InputError(f"{str(path)!r} exists already", "pass overwrite=True, or choose another path")


def _flush(file: Path) -> None:
    """Have the bytes on disk before the name points to them."""
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
