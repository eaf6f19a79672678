"""Example inputs written as text: `1x3x224x224`, `input_ids=1x128:int64[0,999]`, `x=@batch.npy`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from surgery.errors import InputError
from surgery.sources.files import read_tensors

GRAMMAR = (
    "write [NAME=]SHAPE[:DTYPE][[LOW,HIGH]] or [NAME=]@FILE, as in 1x3x224x224, input_ids=1x128:int64[0,999], "
    "or image=@batch.npy (.npy, .pt or .safetensors)"
)
DTYPES = {
    **{name: getattr(torch, name) for name in ("float64", "float32", "float16", "bfloat16", "bool", "uint8")},
    **{name: getattr(torch, name) for name in ("int64", "int32", "int16", "int8", "complex64")},
}
LARGEST_BYTES = 2**34
"""An example input above 16 GiB is a slip of the pen."""

TOKENS = (0, 9)
"""Range of integers where none is given: small enough for any vocabulary, and too wide for a mask."""

SPEC = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<value>.+)", re.DOTALL)
SHAPE = re.compile(r"(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?(?:\[(?P<low>[^,\]]+),(?P<high>[^,\]]+)\])?")


def parse_inputs(specs: Sequence[str], *, seed: int = 0) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Positional inputs (without a name, in order) and keyword inputs.

    Raises:
        InputError: a spec is malformed, or two have one name.
    """
    args: list[Tensor] = []
    kwargs: dict[str, Tensor] = {}
    for position, spec in enumerate(specs):
        name, tensor = parse_input(spec, seed=seed + position)
        if name is None:
            args.append(tensor)
        elif name in kwargs:
            raise InputError(f"two inputs are named {name!r}", "give each input once")
        else:
            kwargs[name] = tensor
    return tuple(args), kwargs


def parse_input(spec: str, *, seed: int = 0) -> tuple[str | None, Tensor]:
    """One input as (name or None, tensor).

    Floating-point values are standard normal; with a range, uniform in it. Integers are drawn from the range, both
    ends included, or from 0 to 9. Booleans, and integers whose name contains "mask", are 1 unless a range is given.

    Raises:
        InputError: the spec is malformed, or its file cannot be read as one tensor.
    """
    match = SPEC.fullmatch(spec.strip())
    if match is None:
        raise InputError("an input is empty", GRAMMAR)
    name, value = match["name"], match["value"]
    tensor = read_tensor(Path(value[1:])) if value.startswith("@") else _drawn(spec, name or "", value, seed)
    return name, tensor


def _drawn(spec: str, name: str, value: str, seed: int) -> Tensor:
    match = SHAPE.fullmatch(value)
    if match is None:
        raise InputError(f"the input {spec!r} is not understood", GRAMMAR)
    shape = tuple(map(int, match["shape"].split("x")))
    if 0 in shape:
        raise InputError(f"the input {spec!r} has a dim of size 0", "give every dim at least 1")
    dtype = DTYPES.get(match["dtype"] or "float32")
    if dtype is None:
        raise InputError(f"the input {spec!r} has the unknown dtype {match['dtype']!r}", f"use {', '.join(DTYPES)}")
    if (size := math.prod(shape) * dtype.itemsize) > LARGEST_BYTES:
        raise InputError(f"the input {spec!r} would take {size / 2**30:.0f} GiB", "give a smaller shape")
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point or dtype.is_complex:
        if (ends := _range(spec, match, float)) is None:
            return torch.randn(shape, generator=generator, dtype=torch.promote_types(dtype, torch.float32)).to(dtype)
        return (torch.rand(shape, generator=generator, dtype=torch.float64) * (ends[1] - ends[0]) + ends[0]).to(dtype)
    default = (1, 1) if dtype is torch.bool or "mask" in name else TOKENS
    low, high = map(int, _range(spec, match, int) or default)
    least, most = (0, 1) if dtype is torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    if low < least or high > most:
        raise InputError(
            f"the input {spec!r} has the range [{low},{high}]", f"{match['dtype']} holds {least} to {most}"
        )
    return torch.randint(low, min(high, 2**63 - 2) + 1, shape, generator=generator, dtype=torch.int64).to(dtype)


def _range(spec: str, match: re.Match[str], kind: type[int | float]) -> tuple[float, float] | None:
    """The ends of the range, as ints where `kind` is int; None where no range is given."""
    if match["low"] is None:
        return None
    try:
        low, high = kind(match["low"]), kind(match["high"])
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise InputError(f"the range of the input {spec!r} is not made of {what}", GRAMMAR) from None
    if not -math.inf < low <= high < math.inf:
        raise InputError(f"the range of the input {spec!r} is empty", "give the lower end first")
    return low, high


def read_tensor(path: Path) -> Tensor:
    """The one tensor that a .npy, .pt or .safetensors file holds; nothing in it is executed.

    Raises:
        InputError: There is no such file, or it holds something else.
    """
    if path.suffix == ".npy":
        if not path.is_file():
            raise InputError(f"there is no file {str(path)!r}", "check the path after @")
        try:
            array = np.load(path, allow_pickle=False)
            return torch.from_numpy(array)
        except (ValueError, TypeError, EOFError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{str(path)!r} cannot be read as one array: {reason}", "numpy.save a plain array"
            ) from error
    loaded = read_tensors(path)
    tensors = [loaded] if isinstance(loaded, Tensor) else list(loaded.values()) if isinstance(loaded, dict) else []
    if len(tensors) != 1 or not isinstance(tensors[0], Tensor):
        raise InputError(f"{str(path)!r} does not hold exactly one tensor", "save the one tensor that is the input")
    return tensors[0]
