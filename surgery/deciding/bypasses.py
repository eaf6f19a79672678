"""Whole modules that go: what stands in their place. Plain data, like all that a plan holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import nn

from surgery.deciding.checksums import check_shapes
from surgery.tensors import named_tensors


@dataclass(frozen=True)
class Give:
    """One value that is handed out in the place of a module's.

    Attributes:
        source: The argument that is handed on: a positional one's number, or a keyword.
        zeros: Without a source, the rank of zeros (of size 1 along every dim: what they are added to stays as it is);
            None for None.
    """

    source: int | str | None = None
    zeros: int | None = None


@dataclass(frozen=True)
class Bypass:
    """A module that goes as a whole.

    Attributes:
        module: Its path; what stands there now keeps the path, so that all other names stay.
        gives: What is handed out instead.
        form: As what: "tensor", "tuple" or "list".
        alone: Whether it is only ever called with one tensor: then it becomes `nn.Identity`.
        shapes: Its tensors, by their names in the model.
        why: The reason, in words.
    """

    module: str
    gives: tuple[Give, ...]
    form: str = "tensor"
    alone: bool = False
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    why: str = ""

    @property
    def passes(self) -> bool:
        """Whether everything that is handed out is an argument."""
        return all(give.source is not None for give in self.gives)


def goes_whole(bypasses: Iterable[Bypass], name: str) -> bool:
    """Whether a tensor lies in a module that goes."""
    return any(name in bypass.shapes or name.startswith(f"{bypass.module}.") for bypass in bypasses)


def check_modules(model: nn.Module, bypasses: Iterable[Bypass]) -> None:
    """Whether a model has the modules that are to go, as they were.

    Raises:
        PlanError: It has not.
    """
    bypasses = tuple(bypasses)
    tensors = named_tensors(model) if bypasses else {}
    for bypass in bypasses:
        check_shapes(tensors, bypass.shapes)
