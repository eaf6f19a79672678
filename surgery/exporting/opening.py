"""An exported file as something that can be called, whoever wrote it: every damage is one clear error."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from surgery.errors import InputError
from surgery.exporting.aoti import AOTI
from surgery.exporting.binding import order_of
from surgery.exporting.onnx import ONNX, weights_beside
from surgery.exporting.pt2 import PT2
from surgery.exporting.sizes import FreeDims
from surgery.exporting.table import target_for
from surgery.exporting.target import Loaded, Target, first_line
from surgery.exporting.torchscript import TORCHSCRIPT

LFS_POINTER = b"version https://git-lfs"
ZIP = b"PK"

MEMBERS = {
    "/constants.pkl": TORCHSCRIPT,
    "/models/model.json": PT2,
    ".so": AOTI,
}
"""What tells the archives of PyTorch from each other: how the name of one of their members ends."""

WORDS = {
    "onnx": "an ONNX model",
    "torchscript": "a TorchScript file",
    "pt2": "a torch.export program",
    "aoti": "an AOTInductor package",
}


@dataclass(frozen=True)
class Opened:
    """A file that can be asked like a model.

    Attributes:
        path: Where it is.
        target: Its format.
        loaded: It, in its own runtime.
        order: Per input of the file, the position of the tensor among those that it is given.
        dynamic: Per tensor that it is given, the dims that it says are free, None for one that it does not take; None
            as a whole where it does not tell.
    """

    path: Path
    target: Target
    loaded: Loaded
    order: tuple[int, ...]
    dynamic: tuple[FreeDims | None, ...] | None

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return repr(str(self.path))

    def outputs(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Its output tensors, on the CPU."""
        return self.loaded.run([tensors[i] for i in self.order])


def open_file(path: Path, names: Sequence[str], *, trust: bool) -> Opened:
    """Open an exported file in its own runtime, to be given tensors under `names` (`""`: by position only).

    Raises:
        InputError: There is no such file, its suffix is unknown, it is damaged or of another format than its suffix
            says, it is code and `trust` is off, or it takes other inputs.
    """
    target = _format_of(path)
    if target is not ONNX and not trust:
        fact = f"{str(path)!r} is {WORDS[target.name]}: opening it can run any code"
        raise InputError(fact, "pass trust=True if you know where it comes from")
    if target is ONNX:
        _require_weights(path)
    try:
        loaded = target.load(path)
    except Exception as error:
        fact = f"{target.runtime} cannot open {str(path)!r} ({path.stat().st_size} bytes): {first_line(error)}"
        raise InputError(fact, "it may be damaged or made for another version: export it again") from error
    try:
        order = order_of(loaded, names)
    except InputError as error:
        raise InputError(f"{str(path)!r} takes other inputs: {error.fact}", error.way_out) from error
    if loaded.dynamic is None:
        return Opened(path, target, loaded, tuple(order), None)
    free = dict(zip(order, loaded.dynamic, strict=True))
    return Opened(path, target, loaded, tuple(order), tuple(free.get(i) for i in range(len(names))))


def _format_of(path: Path) -> Target:
    """What the file is by its first bytes and members, which must be what its suffix says.

    Raises:
        InputError: No file, an unknown suffix, a damaged archive, or another format.
    """
    expected = target_for(path, None)
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}", "check the path")
    try:
        with path.open("rb") as file:
            head = file.read(len(LFS_POINTER))
        members = zipfile.ZipFile(path).namelist() if head.startswith(ZIP) else []
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}", "check the permissions") from error
    except zipfile.BadZipFile as error:
        fact = f"{str(path)!r} ({path.stat().st_size} bytes) is cut short or damaged: {error}"
        raise InputError(fact, "compare its size with the original's and copy it again") from error
    if head == LFS_POINTER:
        raise InputError(f"{str(path)!r} is a git-lfs pointer, not the file itself", "run `git lfs pull`")
    found = next((target for end, target in MEMBERS.items() if any(name.endswith(end) for name in members)), None)
    if not head.startswith(ZIP):
        if expected is ONNX:
            return ONNX
        fact = f"{str(path)!r} is not {WORDS[expected.name]}: it is no archive"
        raise InputError(fact, "an ONNX model is named .onnx; otherwise export it again")
    if found is None:
        fact = f"{str(path)!r} is not {WORDS[expected.name]}, but an archive of something else"
        raise InputError(fact, "weights are no model: name the MODEL, and give them as its checkpoint")
    if found is not expected and not (found is AOTI and expected is PT2):
        fact = f"{str(path)!r} is not {WORDS[expected.name]}, but {WORDS[found.name]}"
        raise InputError(fact, f"name it {found.suffixes[0]}")
    return found


def _require_weights(path: Path) -> None:
    """Refuse an ONNX model whose second file is missing or shorter than the model says.

    Raises:
        InputError: It is, or this is no ONNX model at all.
    """
    for name, size_bytes in weights_beside(path).items():
        beside = path.parent / name
        fact = f"{str(path)!r} has weights in {name!r}"
        if not beside.is_file():
            raise InputError(f"{fact}, which is not beside it", "put the file there, or export the model again")
        if beside.stat().st_size < size_bytes:
            fact += f", which is cut short: {beside.stat().st_size} bytes instead of at least {size_bytes}"
            raise InputError(fact, "copy it again")
