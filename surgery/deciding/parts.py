"""The parts of a plan: what is cut, folded, carried, scaled, zeroed and set. Plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AxisCut:
    """What stays of one dim of one tensor.

    Attributes:
        name: The tensor's canonical name; `aliases` are all its names (tied tensors have several).
        dim: The dim.
        size: Its size before; for a grouped weight, `conv_groups` times the dim's size.
        keep: Positions that stay, in order. For a grouped weight position `g * n + j` is column j of conv group g.
        conv_groups: Above 1 for the dim of a grouped convolution's weight that is gathered group by group.
        why: For every position the index of its reason in `Cuts.reasons`, -1 where it is removed; a single number
            where all are alike.
    """

    name: str
    dim: int
    size: int
    keep: tuple[int, ...]
    conv_groups: int = 1
    aliases: tuple[str, ...] = ()
    why: tuple[int, ...] = ()

    @property
    def removed(self) -> int:
        """How many positions go."""
        return self.size - len(self.keep)


@dataclass(frozen=True)
class Fold:
    """A bias takes up what removed constants still added: `bias += delta` (made where there was none)."""

    bias: str
    delta: tuple[float, ...]


@dataclass(frozen=True)
class Carry:
    """At a border, one column takes over others: `W[:, onto] += sum over i of W[:, take[i]] * ratio[i]`.

    Positions count over conv groups: `g * n + j`.
    """

    weight: str
    conv_groups: int
    orientation: str
    onto: int
    take: tuple[int, ...]
    ratio: tuple[float, ...]


@dataclass(frozen=True)
class Scale:
    """A tensor is multiplied: `w = (w + offset) * factor - offset`, at some positions of a dim or (None) at all.

    It keeps what a norm or an attention computes where its width, which it divides by, is another now.
    """

    name: str
    factor: float
    offset: int = 0
    dim: int = 0
    positions: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Zeros:
    """Positions along one dim of a tensor that masking sets to zero."""

    name: str
    dim: int
    positions: tuple[int, ...]
    conv_groups: int = 1


@dataclass(frozen=True)
class Edit:
    """A number in a module that the cut changes: `module.attribute` (or one entry of a tuple) from `old` to `new`."""

    module: str
    attribute: str
    old: int | float | None
    new: int | float
    index: int | None = None


@dataclass(frozen=True)
class Rewrite:
    """A number in the place of an expression in a method of one module.

    Attributes:
        module: The module's path.
        functions: The method and, where a function that it calls holds the expression, the names down to that.
        place: First line, column, last line and column of the expression; lines count from the function's first.
        text: The expression.
        old, new: What it is, and what it is to be.
        index: Which entry, where the expression is of several sizes; None where it is the number.
    """

    module: str
    functions: tuple[str, ...]
    place: tuple[int, int, int, int]
    text: str
    old: int
    new: int
    index: int | None = None


@dataclass(frozen=True)
class GroupCut:
    """One group of channels: how many there were, are removed, and are zeroed but stranded.

    Attributes:
        name: The tensor that hands the channels out first.
        axes: Every `tensor:dim` that they live on.
        channels: How many channels.
        removed: How many go.
        stranded: How many are zeroed in some producer and stay all the same.
        blockers: Why those stay, each with its count.
        keep_alive: By producer, how many of the alignable channels it keeps alive, the one with the most first.
        alignable: How many of the stranded ones stay because another producer did not zero them: masks that agree
            free them.
        pinned: How many of the stranded ones are pinned: masks that agree do not free them.
    """

    name: str
    axes: tuple[str, ...]
    channels: int
    removed: int
    stranded: int = 0
    blockers: tuple[tuple[str, int], ...] = ()
    keep_alive: tuple[tuple[str, int], ...] = ()
    alignable: int = 0
    pinned: int = 0
