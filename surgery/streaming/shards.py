"""Safetensors files as a list of places: which tensor lies where, checked; and one tensor at a time read from there.

A file is not mapped into memory: torch's mapping fails for files larger than the machine's memory, and what was read of
one stays in the process. So safetensors checks the file and says what is in it, and its bytes are read from there.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import safe_open
from torch import Tensor

from surgery.errors import InputError
from surgery.sources.files import DAMAGED, LFS_POINTER, PICKLED

INDEX = ".safetensors.index.json"
NUMBERED = re.compile(r"-(\d+)-of-(\d+)\.safetensors$")

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What safetensors calls the types that torch has, too."""

CONVERT = (
    "convert it where it fits into memory, file by file: safetensors.torch.save_file("
    "torch.load('x.bin', weights_only=True), 'x.safetensors'); or model.save_pretrained(directory)"
)
COPY_AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Place:
    """Where a tensor lies.

    Attributes:
        file: The file.
        name: What the tensor is called in it.
        dtype: Its type.
        shape: Its shape.
        start: Its first byte, counted from the beginning of the file.
    """

    file: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def size_bytes(self) -> int:
        """How many bytes it takes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> Tensor:
        """The tensor, in memory of its own.

        Raises:
            InputError: The file cannot be read, or became shorter.
        """
        if not self.size_bytes:
            return torch.empty(self.shape, dtype=self.dtype)
        memory = mmap.mmap(-1, self.size_bytes)  # goes back to the system with the tensor, as what malloc has need not
        try:
            with self.file.open("rb", buffering=0) as file:
                file.seek(self.start)
                done, into = 0, memoryview(memory)
                while done < self.size_bytes and (count := file.readinto(into[done:])):
                    done += count
        except OSError as error:
            raise InputError(f"{str(self.file)!r} cannot be read: {error.strerror or error}", COPY_AGAIN) from error
        if done < self.size_bytes:
            raise InputError(f"{str(self.file)!r} became shorter while {self.name} was read", "leave it as it is")
        return torch.frombuffer(memory, dtype=self.dtype).reshape(self.shape)


def places_in(checkpoint: Path) -> dict[str, Place]:
    """Every tensor of a checkpoint, by name.

    Args:
        checkpoint: One `.safetensors` file, or a directory with one, or with several of which an index says what is
            in which (`model.safetensors.index.json`, as `save_pretrained` writes it).

    Raises:
        InputError: There is nothing of the kind; a file is missing, cut short or damaged; weights are pickled.
    """
    if checkpoint.is_dir():
        return _in_directory(checkpoint)
    if checkpoint.suffix in PICKLED:
        fact = f"{str(checkpoint)!r} is pickled: it cannot be read one tensor at a time"
        raise InputError(fact, CONVERT)
    if not checkpoint.is_file():
        raise InputError(f"there is no file or directory {str(checkpoint)!r}", "check the path")
    if checkpoint.name.endswith(INDEX):
        return _indexed(checkpoint)
    if checkpoint.suffix != ".safetensors":
        fact = f"{str(checkpoint)!r} has the suffix {checkpoint.suffix!r}"
        raise InputError(fact, "give a .safetensors file, or a directory with such files")
    return _in_file(checkpoint)


def _in_directory(directory: Path) -> dict[str, Place]:
    files = sorted(directory.glob("*.safetensors"))
    indices = sorted(directory.glob(f"*{INDEX}"))
    if len(indices) > 1:
        named = ", ".join(index.name for index in indices)
        raise InputError(f"{str(directory)!r} holds {len(indices)} indices: {named}", "give one of them")
    if indices:
        return _indexed(indices[0])
    if not files:
        pickled = sorted(path.name for path in directory.iterdir() if path.suffix in PICKLED)
        if pickled:
            fact = f"{str(directory)!r} holds pickled weights ({pickled[0]}), which cannot be read one at a time"
            raise InputError(fact, CONVERT)
        raise InputError(f"{str(directory)!r} holds no .safetensors file", "give the directory that the weights are in")
    _refuse_gaps(directory, files)
    return _merged(files)


def _refuse_gaps(directory: Path, files: Iterable[Path]) -> None:
    """Files that count themselves ("-00001-of-00003") are all there; others have to be one."""
    files = list(files)
    numbered = [match for path in files if (match := NUMBERED.search(path.name))]
    if len(files) > 1 and len(numbered) != len(files):
        named = ", ".join(path.name for path in files[:3])
        raise InputError(
            f"{str(directory)!r} holds {len(files)} .safetensors files and no index: {named}",
            "give the one that counts",
        )
    there, total = {int(match[1]) for match in numbered}, max((int(match[2]) for match in numbered), default=0)
    if numbered and (missing := sorted(set(range(1, total + 1)) - there)):
        fact = f"{str(directory)!r} lacks {len(missing)} of {total} shards, the first of them number {missing[0]}"
        raise InputError(fact, COPY_AGAIN)


def _indexed(index: Path) -> dict[str, Place]:
    """The tensors that an index names, each in the file that it says."""
    try:
        weight_map = msgspec.json.decode(index.read_bytes(), type=_Index).weight_map
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        fact = f"{str(index)!r} is no index of shards: {str(error).partition(chr(10))[0]}"
        raise InputError(fact, COPY_AGAIN) from error
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{str(index)!r} names a file elsewhere: {name!r}", "keep the shards beside the index")
    if missing := [name for name in names if not (index.parent / name).is_file()]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        fact = f"{str(index)!r} names {', '.join(missing[:3])}{more}, which {'is' if len(missing) == 1 else 'are'} not"
        raise InputError(f"{fact} in {str(index.parent)!r}", COPY_AGAIN)
    found = _merged(index.parent / name for name in names)
    for tensor, name in weight_map.items():
        if tensor not in found or found[tensor].file.name != name:
            raise InputError(f"{str(index)!r} says that {tensor} is in {name}, and it is not", COPY_AGAIN)
    return found


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def _merged(files: Iterable[Path]) -> dict[str, Place]:
    found: dict[str, Place] = {}
    for file in files:
        for name, place in _in_file(file).items():
            if name in found:
                fact = f"{name} is in {str(found[name].file)!r} and in {str(file)!r}"
                raise InputError(fact, "keep one of them")
            found[name] = place
    return found


def _in_file(file: Path) -> dict[str, Place]:
    """The tensors of one file. They lie one after the other, and end where it ends: safetensors sees to that."""
    try:
        with file.open("rb") as opened:
            head = opened.read(len(LFS_POINTER))
        if head == LFS_POINTER:
            raise InputError(f"{str(file)!r} is a git-lfs pointer, not the file itself", "run `git lfs pull`")
        with safe_open(file, "numpy") as handle:
            names = list(handle.offset_keys())
            described = {name: handle.get_slice(name) for name in names}
            kinds = {name: (str(said.get_dtype()), tuple(said.get_shape())) for name, said in described.items()}
    except DAMAGED as error:
        fact = f"{str(file)!r} ({file.stat().st_size:,} bytes) is cut short or damaged: {type(error).__name__}"
        raise InputError(fact, "compare its size with the original's and copy it again") from error
    return _laid_out(file, kinds)


def _laid_out(file: Path, kinds: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, Place]:
    for name, (kind, _) in kinds.items():
        if kind not in DTYPES:
            raise InputError(f"{name} in {str(file)!r} is of the type {kind}", "cast it to a type that torch has")
    sizes = [math.prod(shape) * DTYPES[kind].itemsize for kind, shape in kinds.values()]
    start = file.stat().st_size - sum(sizes)
    found = {}
    for (name, (kind, shape)), size in zip(kinds.items(), sizes, strict=True):
        found[name] = Place(file, name, DTYPES[kind], shape, start)
        start += size
    return found
