"""An architecture of the zoo: how its net is built, and the inputs that it takes at any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Tensor, nn

from surgery.inputs import Inputs

Sizes = Mapping[str, int]
"""What the letters in a shape stand for: `{"B": 2, "T": 12}`."""

Shape = tuple[int | str, ...]
"""Sizes of dims: numbers, or letters that `Sizes` knows."""

EMPTY: Sizes = MappingProxyType({})


def resolved(shape: Shape, sizes: Sizes) -> tuple[int, ...]:
    """A shape in numbers."""
    return tuple(sizes[size] if isinstance(size, str) else size for size in shape)


@dataclass(frozen=True)
class Floats:
    """Normal values."""

    shape: Shape

    def draw(self, sizes: Sizes, generator: torch.Generator) -> Tensor:
        """One tensor of the shape at these sizes."""
        return torch.randn(resolved(self.shape, sizes), generator=generator)


@dataclass(frozen=True)
class Tokens:
    """Whole numbers in [low, high)."""

    high: int = 100
    low: int = 5
    shape: Shape = ("B", "T")

    def draw(self, sizes: Sizes, generator: torch.Generator) -> Tensor:
        """One tensor of the shape at these sizes."""
        return torch.randint(self.low, self.high, resolved(self.shape, sizes), generator=generator)


@dataclass(frozen=True)
class Mask:
    """Ones, but zeros over two padded positions of every second sequence, on the left or on the right."""

    side: str = "right"
    shape: Shape = ("B", "T")

    def draw(self, sizes: Sizes, generator: torch.Generator) -> Tensor:
        """One tensor `[batch, tokens]` at these sizes."""
        mask = torch.ones(resolved(self.shape, sizes), dtype=torch.long)
        padded = slice(0, 2) if self.side == "left" else slice(-2, None)
        mask[1::2, padded] = 0
        return mask


@dataclass(frozen=True)
class Value:
    """The same every time: a flag, a tensor of a fixed layout that only depends on the sizes."""

    of: Callable[[Sizes], object]

    def draw(self, sizes: Sizes, generator: torch.Generator) -> object:
        """The value at these sizes."""
        return self.of(sizes)


Input = Floats | Tokens | Mask | Value


@dataclass(frozen=True)
class Architecture:
    """A net of the zoo.

    Attributes:
        name: As in the table; unique.
        net: The class that stands for it, and where it comes from.
        build: Makes it.
        takes: What its forward takes: keyword inputs by name; `""` is the one positional input.
        sizes: The letters of the example: at least `"B"`, the batch.
        others: The sizes that results are judged on, each laid over `sizes`.
        note: What is special: a cache that is on, an input of one size only.
        stays: Why much of it cannot go; "" where (nearly) everything can.
        refused: Export formats in which the net itself computes something else.
    """

    name: str
    net: str
    build: Callable[[], nn.Module]
    takes: Mapping[str, Input]
    sizes: Sizes
    others: tuple[Sizes, ...] = ({"B": 1}, {"B": 3})
    note: str = ""
    stays: str = ""
    refused: tuple[str, ...] = ()
    tags: frozenset[str] = field(default=frozenset())

    def make(self) -> nn.Module:
        """The net in eval mode, with the same random weights every time."""
        torch.manual_seed(0)
        return self.build().eval()

    def inputs(self, seed: int = 7, **sizes: int) -> Inputs:
        """Fresh inputs; `inputs(B=3, T=17)` for other sizes than the example's."""
        generator = torch.Generator().manual_seed(seed)
        at = {**self.sizes, **sizes}
        drawn = {name: kind.draw(at, generator) for name, kind in self.takes.items()}
        positional = tuple(value for name, value in drawn.items() if not name)
        return Inputs(positional, {name: value for name, value in drawn.items() if name})
