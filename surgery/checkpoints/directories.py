"""A directory of two files that appears as a whole, or not at all, whenever the process is killed."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from surgery.errors import InputError

WEIGHTS = "model.safetensors"
MANIFEST = "surgery.json"
FILES = frozenset({WEIGHTS, MANIFEST})

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux
NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


class _Signature(msgspec.Struct):
    tool: str


def check_free(directory: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """The absolute path that a directory may be written under.

    Raises:
        InputError: Something is there that may not be replaced, or there is no place to write to.
    """
    target = Path(os.path.abspath(directory))  # noqa: PTH100 (of the parent only: a link at the end is refused below)
    named = repr(str(directory))
    if not target.name or not str(directory):
        raise InputError(f"{named} cannot be written", "name a new directory")
    if not target.parent.is_dir():
        raise InputError(f"the directory {str(target.parent)!r} does not exist", "create it first")
    recover(target)
    if not os.path.lexists(target):
        return target
    if target.is_symlink():
        raise InputError(f"{named} is a symbolic link", "name the directory itself")
    if not target.is_dir():
        raise InputError(f"{named} is a file", "name a directory")
    if not overwrite:
        raise InputError(f"{named} exists already", "pass overwrite=True, or choose another path")
    if not _is_ours(target):
        raise InputError(
            f"{named} was not written by surgery: it has no {MANIFEST} of ours", "choose another path, or move it away"
        )
    if foreign := sorted(set(os.listdir(target)) - FILES):  # noqa: PTH208 (the names, not paths)
        listed = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
        raise InputError(f"{named} holds files that surgery did not write: {listed}", "move them away first")
    return target


@contextmanager
def replaced(directory: str | os.PathLike[str], *, overwrite: bool) -> Iterator[Path]:
    """Yield an empty directory to write `FILES` into; it takes the place of `directory` at the end of the block.

    The work happens in a hidden directory beside it (`.<name>.<random>`), whose files are on disk before it gets its
    name. An older directory is swapped in one step where the system can do that. Where it cannot, it is moved aside
    first, and `recover` brings it back if the process is killed in between. After an exception the old one is there
    and nothing else; after a kill, a hidden directory may be left.

    Raises:
        InputError: As `check_free`, or the disk is full or read-only.
    """
    target = check_free(directory, overwrite=overwrite)
    staging = target.parent / f".{target.name}.{secrets.token_hex(8)}"
    try:
        try:
            staging.mkdir()
            yield staging
            for name in FILES:
                _sync(staging / name)
            _sync(staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        try:
            _put(staging, target)
            _sync(target.parent)
        finally:
            _remove(staging)  # the old one; or the new one, where it could not take its place
    except OSError as error:
        raise InputError(
            f"cannot write {str(directory)!r}: {error.strerror or error}", "make room, or choose another place"
        ) from error


def recover(target: Path) -> None:
    """Bring back a directory that was moved aside when its process was killed."""
    aside = _aside(target)
    if _is_ours(aside) and not os.path.lexists(target):
        with suppress(OSError):  # somebody else may be doing the same
            aside.rename(target)


def _put(staging: Path, target: Path) -> None:
    """Give the new directory its name; the old one, if any, is under the name of `staging` afterwards, or gone."""
    if not target.exists():
        staging.rename(target)
    elif not _exchange(staging, target):
        aside = _aside(target)
        _remove(aside)
        target.rename(aside)
        try:
            staging.rename(target)
        except OSError:
            aside.rename(target)
            raise
        _remove(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two directories in one step; False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    if renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    if (number := ctypes.get_errno()) in NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _aside(target: Path) -> Path:
    return target.parent / f".{target.name}.previous"


def _is_ours(directory: Path) -> bool:
    """Whether the directory's `surgery.json` says that surgery wrote it."""
    try:
        text = (directory / MANIFEST).read_bytes()
        return msgspec.json.decode(text, type=_Signature).tool == "surgery"
    except (OSError, msgspec.DecodeError, RecursionError):
        return False


def _remove(directory: Path) -> None:
    """Delete our two files and the directory; a file of somebody else's stays, and the directory with it."""
    with suppress(OSError):
        for name in FILES:
            (directory / name).unlink(missing_ok=True)
        directory.rmdir()


def _sync(path: Path) -> None:
    """Have what is behind a name on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
