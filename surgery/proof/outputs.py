"""What a model returned, as named leaves on the CPU, and how far two of them are apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from surgery.caches import is_cache


@dataclass(frozen=True, eq=False)
class Output:
    """One call's output.

    Attributes:
        structure: Containers and kinds of leaves in words; equal for outputs of equal structure.
        floats: By path (`output['logits']`), what is compared to a tolerance; complex numbers as pairs of real ones.
        exact: By path, integer and boolean tensors.
        data: By path, what is compared by `==` (None, int, str, ...).
        opaque: Paths with types of objects that cannot be looked into.
    """

    structure: str
    floats: Mapping[str, Tensor]
    exact: Mapping[str, Tensor]
    data: Mapping[str, Any]
    opaque: Mapping[str, str]

    @staticmethod
    def of(value: Any) -> Output:
        """Take `value` apart: tensors, arrays, numbers, mappings, sequences, dataclasses, registered pytrees."""
        floats: dict[str, Tensor] = {}
        exact: dict[str, Tensor] = {}
        data: dict[str, Any] = {}
        opaque: dict[str, str] = {}

        def visit(value: Any, path: str) -> str:
            kind = type(value).__name__
            if _is_number(value):
                value = torch.from_numpy(np.array(value))
            if isinstance(value, Tensor):
                tensor = _plain(value)
                if tensor.is_floating_point():
                    floats[path] = tensor
                    return "float"
                exact[path] = tensor
                return "bool" if tensor.dtype == torch.bool else "integer"
            if is_cache(value):
                opaque[path] = kind
                return kind
            if (children := _children(value)) is not None:
                return f"{kind}({', '.join(f'{name}: {visit(child, path + name)}' for name, child in children)})"
            equality: object = type(value).__eq__
            if equality is object.__eq__ and not isinstance(value, NoneType | type | torch.dtype | Enum):
                opaque[path] = kind
            else:
                data[path] = value
            return kind

        return Output(visit(value, "output"), floats, exact, data, opaque)

    @property
    def compares(self) -> int:
        """How many numbers there are to compare."""
        return sum(tensor.numel() for tensor in (*self.floats.values(), *self.exact.values()))


def _children(value: Any) -> list[tuple[str, Any]] | None:
    """The parts of a container with their names, None for a leaf."""
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", child) for key, child in value.items()]
    if isinstance(value, list | tuple):
        return [(f"[{i}]", child) for i, child in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value)]
    children = pytree.tree_leaves(value, is_leaf=lambda node: node is not value)
    if len(children) == 1 and children[0] is value:
        return None
    return [(f"[{i}]", child) for i, child in enumerate(children)]


def _is_number(value: Any) -> bool:
    """Whether `value` is a floating-point number, a NumPy number or an array of numbers."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biufc"
    return isinstance(value, float | complex | np.number)


def _plain(tensor: Tensor) -> Tensor:
    """A dense, real copy on the CPU: the model may go on writing into its own."""
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    tensor = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return tensor.to("cpu", copy=True)


@dataclass(frozen=True)
class Gap:
    """Two float tensors of one shape: the largest difference where both are finite, and where they are not.

    Attributes:
        largest: max|a - b| over the positions where both are finite; 0 without any.
        finite: How many such positions there are.
        disagree: Positions where one is NaN or infinite and the other is not, or is so differently.
    """

    largest: float
    finite: int
    disagree: int


def gap(a: Tensor, b: Tensor) -> Gap:
    """a [...], b [...]: how far apart they are, computed in float64."""
    a, b = a.to(torch.float64), b.to(torch.float64)
    finite = a.isfinite() & b.isfinite()
    alike = finite | (a == b) | (a.isnan() & b.isnan())
    difference = (a - b).abs()[finite]
    largest = float(difference.max()) if difference.numel() else 0.0
    return Gap(largest, difference.numel(), int((~alike).sum()))


@dataclass(frozen=True)
class Scale:
    """What an absolute difference of one output is divided by.

    Attributes:
        spread: The largest change of an element across the test inputs; 0 where the output does not depend on them.
        largest: The largest finite |element|.
        why: Why the divisor is not the spread of this very output, "" where it is.
    """

    spread: float
    largest: float
    why: str = ""

    @property
    def divisor(self) -> float:
        """The spread; where that is 0 the largest |element|, or 1."""
        return self.spread or self.largest or 1.0


@dataclass(frozen=True, eq=False)
class _Range:
    """Lowest and highest finite value of each element [...] over `count` inputs; NaN where it never was finite."""

    low: Tensor
    high: Tensor
    count: int

    @property
    def spread(self) -> float:
        return _largest(self.high - self.low)

    @property
    def largest(self) -> float:
        return _largest(torch.maximum(self.low.abs(), self.high.abs()))


Key = tuple[str, torch.Size]
"""The path of an output and its whole shape."""


def scales(runs: Sequence[tuple[int | None, Output]], dtype: torch.dtype) -> dict[Key, Scale]:
    """The scale of each float output.

    Args:
        runs: For each call the size of its batch dim (None without one) and its output. Entries of a batch count as
            inputs of their own. A shape that only one input has borrows the spread of the same output's other shapes.
        dtype: What the model computed in: changes of the size of its rounding are no dependence on the input.
    """
    ranges: dict[Key, _Range] = {}
    entry_key: dict[Key, Key] = {}
    rounding: dict[str, float] = {}
    for batch, output in runs:
        for path, tensor in output.floats.items():
            rounding[path] = max(_rounding(dtype), _rounding(tensor.dtype))
            for entry in _entries(tensor, batch):
                key = entry_key[path, tensor.shape] = path, entry.shape
                number = torch.where(entry.isfinite(), entry, torch.nan).to(torch.float64)
                old = ranges.get(key, _Range(number, number, 0))
                ranges[key] = _Range(torch.fmin(old.low, number), torch.fmax(old.high, number), old.count + 1)
    known: dict[str, float] = {}
    for (path, _), found in ranges.items():
        if found.count > 1:
            known[path] = max(known.get(path, 0.0), found.spread)
    return {key: _scale(ranges[entry], known.get(key[0]), rounding[key[0]]) for key, entry in entry_key.items()}


def _scale(found: _Range, elsewhere: float | None, rounding: float) -> Scale:
    """The scale of one output shape; `elsewhere` is the spread that the output has at its other shapes."""
    spread = found.spread if found.count > 1 else elsewhere
    if spread is None:
        return Scale(0.0, found.largest, "has no known spread, for only one input could be tried")
    if spread <= rounding * found.largest:
        return Scale(0.0, found.largest, "does not depend on the input")
    return Scale(spread, found.largest)


def _rounding(dtype: torch.dtype) -> float:
    """The relative change up to which an output counts as independent of the input: float64 resolves far less."""
    return (4096 if dtype == torch.float64 else 64) * torch.finfo(dtype).eps


def _entries(tensor: Tensor, batch: int | None) -> Iterator[Tensor]:
    """The batch entries of an output whose dim 0 is the inputs' batch, otherwise the output itself."""
    if batch and tensor.dim() > 0 and tensor.shape[0] == batch:
        yield from tensor
    else:
        yield tensor


def _largest(tensor: Tensor) -> float:
    """The largest finite element, 0 without one."""
    tensor = tensor[tensor.isfinite()]
    return float(tensor.max()) if tensor.numel() else 0.0
