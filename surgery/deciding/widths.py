"""Which widths are wanted: multiples of a number, and groups of the same part in every layer alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from surgery.coupling import Axis, Coupling
from surgery.layout import Ids

NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Likeness:
    """Groups, by number, of which the same share has to stay.

    Attributes:
        alike: Each array holds the numbers of groups that keep the same share of their channels.
        whole: Groups that stay whole.
        why_whole: Why, as a sentence.
    """

    alike: tuple[Ids, ...] = ()
    whole: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    why_whole: str = ""


Rule = Callable[[Coupling], Likeness]
"""Says which groups of a coupling are to be alike: a model has another coupling as a graph."""


@dataclass(frozen=True)
class Widths:
    """What is asked of the widths that stay. Dead channels are kept back for it, which is exact.

    Attributes:
        multiple: Every group's width is a multiple of this.
        rule: Which groups are as wide as each other; None asks nothing.
    """

    multiple: int = 1
    rule: Rule | None = None

    def likeness(self, coupling: Coupling) -> Likeness:
        """The rule's answer."""
        return Likeness() if self.rule is None else self.rule(coupling)


ANY = Widths()
"""Nothing is asked."""


def axes_of_groups(coupling: Coupling) -> list[list[Axis]]:
    """For every group the axes that its channels live on."""
    axes = list(coupling.axes.values())
    n_groups = int(coupling.group_of.max(initial=-1)) + 1
    at, channels = coupling.incidence
    found: list[list[Axis]] = [[] for _ in range(n_groups)]
    for pair in np.unique(at * max(n_groups, 1) + coupling.group_of[channels]):
        found[pair % n_groups].append(axes[pair // n_groups])
    return found


def same_part(coupling: Coupling) -> Likeness:
    """Groups on axes of the same names but for the numbers of layers, and of as many channels, are alike."""
    sizes = np.bincount(coupling.group_of[~coupling.virtual], minlength=int(coupling.group_of.max(initial=-1)) + 1)
    parts: dict[object, list[int]] = {}
    for group, axes in enumerate(axes_of_groups(coupling)):
        names = frozenset((NUMBER.sub("#", axis.name), axis.dim) for axis in axes)
        if names:
            parts.setdefault((names, int(sizes[group])), []).append(group)
    return Likeness(tuple(np.array(groups) for groups in parts.values() if len(groups) > 1))


def share_of_most(width: Ids, size: Ids, alike: Sequence[Ids]) -> Ids:
    """The width that each group needs so that of those alike all keep the share of the one that keeps most.

    `width`, `size` and the result: one per group.
    """
    wanted = width.copy()
    for groups in alike:
        part = size[groups]
        share = float((width[groups] / np.maximum(part, 1)).max(initial=0.0))
        wanted[groups] = np.maximum(width[groups], np.ceil(part * share - 1e-9).astype(np.int64))
    return wanted
