"""A directory that appears as a whole, or not at all, whenever the process is killed; and what in it is ours."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgspec

from surgery.errors import InputError

WEIGHTS = "model.safetensors"
MANIFEST = "surgery.json"
FILES = frozenset({WEIGHTS, MANIFEST})
DEEPEST = 3
"""How many names the path of a file in a directory has at most."""
CHUNK_BYTES = 2**22

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux
NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


@dataclass(frozen=True)
class _Signature:
    """What of `surgery.json` says which files are ours: any other part of it may be of any format."""

    tool: str
    files: dict[str, str] = field(default_factory=dict)


def check_free(directory: str | os.PathLike[str], *, overwrite: bool = False, source: str | None = None) -> Path:
    """The absolute path that a directory may be written under; `source` is what the model was made from.

    Raises:
        InputError: Something is there that may not be replaced, or there is no place to write to.
    """
    named = repr(str(directory))
    try:
        os.fsencode(directory)
        odd = "\0" in str(directory)
    except UnicodeEncodeError:
        odd = True
    if odd:
        raise InputError(f"{named} cannot be a name on this system", "name a new directory")
    target = Path(os.path.abspath(directory))  # noqa: PTH100 (of the parent only: a link at the end is refused below)
    if not target.name or not str(directory):
        raise InputError(f"{named} cannot be written", "name a new directory")
    if not target.parent.is_dir():
        raise InputError(f"the directory {str(target.parent)!r} does not exist", "create it first")
    bring_back(target)
    if not os.path.lexists(target):
        return target
    if target.is_symlink():
        raise InputError(f"{named} is a symbolic link", "name the directory itself")
    if not target.is_dir():
        raise InputError(f"{named} is a file", "name a directory")
    if not overwrite:
        raise InputError(f"{named} exists already", "pass overwrite=True, or choose another path")
    if source is not None and ":" not in source and Path(source).is_dir() and target.samefile(source):
        raise InputError(f"{named} is what the model is made from: it would be lost", "choose another path")
    if not _is_ours(target):
        raise InputError(
            f"{named} was not written by surgery: it has no {MANIFEST} of ours", "choose another path, or move it away"
        )
    if foreign := sorted(_inside(target) - owned(target)):
        listed = ", ".join(foreign[:5]) + (f" and {len(foreign) - 5} more" if len(foreign) > 5 else "")
        raise InputError(
            f"{named} holds files that surgery did not write, or that were changed since: {listed}",
            "move them away first",
        )
    return target


def owned(directory: Path) -> frozenset[str]:
    """Names (`"source/config.json"`) of the files that `save` wrote there: the two that every directory has, and those
    that its `surgery.json` lists with the hash that they still have. A list from outside is not proof by itself.
    """
    listed = _signature(directory).files
    return FILES | {
        name for name, expected in listed.items() if is_plain(name) and _unchanged(directory / name, expected)
    }


def is_plain(name: str) -> bool:
    """Whether a name from a file stays inside its directory, on every system."""
    parts = PurePosixPath(name).parts
    odd = "\\" in name or "\0" in name or ":" in name or name != "/".join(parts)
    return 0 < len(parts) <= DEEPEST and not odd and not name.startswith("/") and ".." not in parts


def sha256(path: Path) -> str:
    """The hash of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def replaced(directory: str | os.PathLike[str], *, overwrite: bool, source: str | None = None) -> Iterator[Path]:
    """Yield an empty directory to write into; it takes the place of `directory` at the end of the block.

    The work happens in a hidden directory beside it (`.<name>.<random>`), whose files are on disk before it gets its
    name. An older directory is swapped in one step where the system can do that. Where it cannot, it is moved aside
    first; `bring_back` does what it says if the process is killed in between. After an exception the old one is there
    and nothing else; after a kill, a hidden directory may be left.

    Raises:
        InputError: As `check_free`, or the disk is full or read-only.
    """
    target = check_free(directory, overwrite=overwrite, source=source)
    old = owned(target)
    staging = target.parent / f".{target.name}.{secrets.token_hex(8)}"
    try:
        try:
            staging.mkdir()
            yield staging
            for path in (*sorted(staging.rglob("*")), staging):
                _sync(path)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        try:
            _put(staging, target)
            _sync(target.parent)
        finally:
            _remove(staging, old | owned(staging))  # the old one; or the new one, where it could not take its place
    except OSError as error:
        raise InputError(
            f"cannot write {str(directory)!r}: {error.strerror or error}", "make room, or choose another place"
        ) from error


def bring_back(target: Path) -> None:
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
        _remove(aside, owned(aside))
        old = owned(target)
        target.rename(aside)
        try:
            staging.rename(target)
        except OSError:
            aside.rename(target)
            raise
        _remove(aside, old)


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
    return _signature(directory).tool == "surgery"


def _signature(directory: Path) -> _Signature:
    try:
        return msgspec.json.decode((directory / MANIFEST).read_bytes(), type=_Signature)
    except (OSError, msgspec.DecodeError, RecursionError):
        return _Signature("")


def _unchanged(path: Path, expected: str) -> bool:
    try:
        return not path.is_symlink() and path.is_file() and sha256(path) == expected
    except OSError:
        return False


def _inside(directory: Path) -> set[str]:
    """Names of all that lies in a directory, except for directories that hold something."""
    found = set()
    for place, directories, files in os.walk(directory):
        here = Path(place)
        found |= {(here / name).relative_to(directory).as_posix() for name in files}
        linked = [name for name in directories if (here / name).is_symlink()]
        found |= {(here / name).relative_to(directory).as_posix() for name in linked}
        if here != directory and not files and not directories:
            found.add(here.relative_to(directory).as_posix())
    return found


def _remove(directory: Path, names: frozenset[str]) -> None:
    """Delete our files and the directories that they leave empty; what else is there stays.

    The list of them goes last: who is killed half-way leaves what the next one knows to delete.
    """
    with suppress(OSError):
        for name in sorted(names, key=lambda name: name == MANIFEST):
            (directory / name).unlink(missing_ok=True)
        inner = {parent for name in names for parent in (directory / name).parents if directory in parent.parents}
        for parent in sorted(inner, key=lambda path: -len(path.parts)):
            with suppress(OSError):
                parent.rmdir()
        directory.rmdir()


def _sync(path: Path) -> None:
    """Have what is behind a name on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
