"""Checkpoints on disk: whole or not there at all, and refused where they are of another run."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch

from surgery.errors import InputError, first_line
from surgery.fitting.ranks import Ranks

FORMAT = "surgery.fit/1"
PREFIX = "step-"
STATE, RUN = "state.pt", "run.json"


def newest(directory: Path) -> Path | None:
    """The newest whole checkpoint in a directory; None where there is none."""
    if not directory.is_dir():
        return None
    found = sorted(path for path in directory.glob(f"{PREFIX}*") if (path / RUN).is_file())
    return found[-1] if found else None


def write(directory: Path, step: int, ranks: Ranks, run: Mapping[str, Any], state: Mapping[str, Any], own: Any) -> Path:
    """Write a checkpoint of all processes, and then take away the one before.

    All is written into a hidden directory beside the final one, which then gets its name: a process that is killed
    meanwhile leaves the checkpoint before as it was.

    Args:
        directory: Of all checkpoints of the run; all processes must see it.
        step: Which to call it after.
        ranks: The processes.
        run: What is written as JSON.
        state: What the main process writes.
        own: What every process writes for itself.

    Raises:
        InputError: It cannot be written.
    """
    final = directory / f"{PREFIX}{step:010d}"
    hidden = directory / ranks.by_main(lambda: _hidden(directory, final))
    ranks.together(lambda: _save(own, hidden / f"process-{ranks.rank}.pt"))

    def finish() -> None:
        _save(state, hidden / STATE)
        _flushed(hidden / RUN, msgspec.json.format(msgspec.json.encode({"format": FORMAT, **run})))
        if final.exists():
            _remove(final)
        try:
            hidden.replace(final)
            _sync(directory)
        except OSError as error:
            raise _unwritten(final, error) from error
        for path in (*directory.glob(f"{PREFIX}*"), *directory.glob(f".{PREFIX}*")):
            if path != final:
                _remove(path)

    ranks.by_main(finish)
    return final


def read(path: Path, rank: int) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """What `write` wrote: the JSON, the state, and what this process wrote for itself.

    Raises:
        InputError: It cannot be read.
    """
    try:
        run = _run(path)
        state, own = (
            torch.load(path / name, map_location="cpu", weights_only=True) for name in (STATE, f"process-{rank}.pt")
        )
    except InputError:
        raise
    except Exception as error:  # unpickling may raise anything
        raise _unread(path, error) from error
    return run, state, own


def _run(path: Path) -> dict[str, Any]:
    try:
        run = msgspec.json.decode((path / RUN).read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise _unread(path, error) from error
    if not isinstance(run, dict) or run.get("format") != FORMAT:
        raise InputError(f"{str(path)!r} is no checkpoint of this version", "begin anew, in another directory")
    return run


def _unread(path: Path, error: Exception) -> InputError:
    fact = f"the checkpoint {str(path)!r} cannot be read: {first_line(error)}"
    return InputError(fact, "remove it: the training begins anew then")


def refuse_other(begun: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with settings that the checkpoint was not begun with.

    Raises:
        InputError: They are named.
    """
    plain = msgspec.json.decode(msgspec.json.encode(now))
    other = [name for name in plain if begun.get(name) != plain[name]]
    if other:
        said = "; ".join(f"{name} was {begun.get(name)!r}, and is {plain[name]!r}" for name in other)
        raise InputError(
            f"the checkpoint {str(path)!r} is of another run: {said}", "use the settings it was begun with"
        )


def _hidden(directory: Path, final: Path) -> str:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        hidden = directory / f".{final.name}.{secrets.token_hex(4)}"
        hidden.mkdir()
    except OSError as error:
        raise _unwritten(final, error) from error
    return hidden.name


def _save(value: Any, path: Path) -> None:
    """Write tensors to a file that is on the disk when this returns.

    Raises:
        InputError: It cannot be written.
    """
    try:
        torch.save(value, path)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
        raise _unwritten(path, error) from error


def _flushed(path: Path, content: bytes) -> None:
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritten(path, error) from error


def _sync(directory: Path) -> None:
    """A rename that is on the disk, where the system can say so."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    """Take a checkpoint away: first its name, so that a half-removed one is never taken for whole."""
    gone = path.with_name(f".{PREFIX}{secrets.token_hex(4)}")
    try:
        path.replace(gone)
    except OSError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def _unwritten(path: Path, error: Exception) -> InputError:
    fact = f"cannot write the checkpoint {str(path)!r}: {first_line(error)}"
    return InputError(fact, "make room, or choose another directory; the checkpoint before is untouched")


def begun(path: Path) -> dict[str, Any]:
    """The settings that a checkpoint was begun with.

    Raises:
        InputError: It cannot be read.
    """
    run = _run(path)
    found: dict[str, Any] = run["begun_with"]
    return found
