"""Files of tensors, read without running any code that they hold."""

from __future__ import annotations

import difflib
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from surgery.errors import InputError

PICKLED = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *PICKLED)
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
"""Under which of its entries a training checkpoint keeps the weights, the likeliest first."""

GLOBAL = re.compile(r"(?:GLOBAL|class|function) ([\w.]+\.[\w.]+)")
LFS_POINTER = b"version https://git-lfs"
PROTOCOL, TORCH_PROTOCOL = b"\x80", 2
DAMAGED = (
    SafetensorError,
    zipfile.BadZipFile,
    OSError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
)
SAVE_AGAIN = "where it was written: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"


@dataclass(frozen=True)
class WeightsFile:
    """Tensors by name, and what was decided on the way (`notes`)."""

    path: Path
    tensors: dict[str, Any]
    notes: tuple[str, ...]


def read_weights(path: Path) -> WeightsFile:
    """The state_dict in a file; a training checkpoint that wraps one is unwrapped, with a note.

    Raises:
        InputError: as `read_tensors`, or the file holds no tensors by name.
    """
    loaded = read_tensors(path)
    notes: list[str] = []
    while (wrapper := _wrapper(loaded)) is not None:
        others = ", ".join(repr(key) for key in loaded if key != wrapper)
        notes.append(f"{path.name}: took the weights under {wrapper!r}" + (f", left {others}" if others else ""))
        loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping):
        raise InputError(f"{str(path)!r} holds a {type(loaded).__name__}, not tensors by name", SAVE_AGAIN)
    if not any(isinstance(value, Tensor) for value in loaded.values()):
        entries = ", ".join(map(repr, list(loaded)[:5])) or "none"
        raise InputError(f"{str(path)!r} holds no tensors; its entries: {entries}", SAVE_AGAIN)
    return WeightsFile(path, {str(name): value for name, value in loaded.items()}, tuple(notes))


def read_tensors(path: Path) -> Any:
    """What a `.safetensors` or a pickled torch file holds, on the CPU. Nothing in the file is executed.

    Raises:
        InputError: no such file, an unknown suffix, a damaged file, a TorchScript archive, or a pickle that needs code.
    """
    if not path.is_file():
        raise _no_file(path)
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"{str(path)!r} has the unknown suffix {path.suffix!r}",
            f"weights are read from {', '.join(SUFFIXES)} files",
        )
    try:
        with path.open("rb") as file:
            head = file.read(len(LFS_POINTER))
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}", "check the permissions") from error
    if head == LFS_POINTER:
        raise InputError(f"{str(path)!r} is a git-lfs pointer, not the file itself", "run `git lfs pull`")
    if path.suffix in PICKLED and len(head) > 1 and head[:1] == PROTOCOL and head[1] > TORCH_PROTOCOL:
        raise InputError(f"{str(path)!r} is a plain pickle (protocol {head[1]}), which may run any code", SAVE_AGAIN)
    try:
        return load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except DAMAGED as error:
        reason = re.split(r"[\n.]", str(error))[0][:120]
        raise InputError(
            f"{str(path)!r} ({path.stat().st_size} bytes) is cut short or damaged: "
            f"{type(error).__name__}{f': {reason}' if reason else ''}",
            "compare its size with the original's and copy it again",
        ) from error


def _no_file(path: Path) -> InputError:
    if path.is_dir():
        return InputError(f"{str(path)!r} is a directory", "name the file with the weights in it")
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    way_out = f"did you mean {str(path.parent / near[0])!r}?" if near else "check the path"
    return InputError(f"there is no file {str(path)!r}", way_out)


def _unpickled(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise InputError(f"{str(path)!r} is a TorchScript archive: code, not weights", SAVE_AGAIN)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the pickle's protocol: what matters is an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch raises pickle.UnpicklingError for both: a pickle that needs code, and bytes that are no pickle
        if match := GLOBAL.search(str(error)):
            raise InputError(
                f"{str(path)!r} needs the code of {match[1]} to be loaded, and a pickle may run any code",
                SAVE_AGAIN,
            ) from error
        if "Weights only load failed" in str(error):
            raise ValueError("not a torch file") from error
        raise


def _wrapper(loaded: Any) -> str | None:
    """The entry under which the weights are, or None where `loaded` is the state_dict itself."""
    if not isinstance(loaded, Mapping):
        return None
    for name in WRAPPERS:
        inside = loaded.get(name)
        if isinstance(inside, Mapping) and (any(isinstance(v, Tensor) for v in inside.values()) or _wrapper(inside)):
            return name
    return None
