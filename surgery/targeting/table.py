"""The table: what narrowing each group saves, measured on whole models around a point near the target.

What a group's channels cost depends on how wide its neighbours are, so that the table is measured where it will be
used: around the model in which all groups are narrowed alike and that comes closest to the target. Groups that are
alike (the blocks of a transformer) are narrowed together, and share what that saves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from surgery.deciding.pick import Floats
from surgery.deciding.study import Study
from surgery.deciding.widths import axes_of_groups
from surgery.layout import Ids
from surgery.progress import bar
from surgery.targeting.clock import Clock
from surgery.targeting.loss import Widths
from surgery.targeting.store import Reading, digest

NUMBER = re.compile(r"\d+")

GRID = 16
"""The points at which all groups are narrowed alike lie in steps of this part of the way down."""

Build = Callable[[Floats], nn.Module]
"""The slim model in which such shares of the groups are gone, as far as they can be."""


@dataclass(frozen=True)
class Table:
    """What every width is predicted to take, with all other groups as they are at a base.

    Attributes:
        base: The share of the dense model's latency that the base takes.
        change: What each of `Widths` adds to that, `[n_widths]`.
        unmeasured: How many groups have no measurement of their own, for their models could not be timed.
    """

    base: float
    change: Floats
    unmeasured: int


def kinds_of(study: Study, groups: Ids) -> list[Ids]:
    """Groups that cost the same: on tensors of the same names, but for numbers, read by ops with the same shapes."""
    of_groups, program = axes_of_groups(study.coupling), study.program
    kinds: dict[object, list[int]] = {}
    for group in groups.tolist():
        axes = []
        for axis in of_groups[group]:
            tensor = program.tensors[axis.name]
            shapes = {tuple(node.meta["val"].shape) for node in program.readers(axis.name) if _has_shape(node)}
            axes.append((NUMBER.sub("#", axis.name), axis.dim, tuple(tensor.shape), frozenset(shapes)))
        kinds.setdefault(frozenset(axes), []).append(group)
    return [np.array(found) for found in kinds.values()]


def _has_shape(node: torch.fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


@dataclass(frozen=True)
class Measuring:
    """Measures models by the shares of their groups that are gone.

    Attributes:
        clock: Times them.
        build: Makes them.
        widths: All widths of all groups.
        n_groups: How many groups there are.
        key: What else their latency depends on.
    """

    clock: Clock
    build: Build
    widths: Widths
    n_groups: int
    key: str

    def alike(self, way: float) -> Floats:
        """The shares where every group has come so far down, between whole (0) and as narrow as it may be (1)."""
        widths, shares = self.widths, np.zeros(self.n_groups)
        for group in np.unique(widths.group):
            own = widths.share[widths.group == group]
            shares[group] = own[np.abs(own - way * own.max()).argmin()]
        return shares

    def readings(self, points: list[Floats], what: str) -> list[Reading | None]:
        """A reading of each, None where the runtime does not take such a model."""
        keys = [digest((self.key, np.round(shares, 6).tolist())) for shares in points]
        models = {key: _Builder(self.build, shares) for key, shares in zip(keys, points, strict=True)}
        with bar(what, len(models)) as told:
            found: Mapping[str, Reading] = self.clock.table(models, told)
        return [found.get(key) for key in keys]

    def table(self, kinds: list[Ids], way: float, base: Reading) -> Table:
        """The table around the point where all groups have come a way down.

        Args:
            kinds: Groups that are measured together.
            way: How far down, in 0 to 1.
            base: The reading there.
        """
        widths, middle = self.widths, self.alike(way)
        points, meant = [], []
        for number, groups in enumerate(kinds):
            for shares in (np.zeros(self.n_groups), self.alike(1)):
                moved = middle.copy()
                moved[groups] = shares[groups]
                if not np.array_equal(moved, middle):
                    points.append(moved)
                    meant.append(number)
        found = self.readings(points, "measuring the table of widths")
        change, unmeasured = np.zeros(widths.group.size), 0
        for number, groups in enumerate(kinds):
            first = groups[0]
            known = [(float(middle[first]), 0.0)]
            for shares, of, reading in zip(points, meant, found, strict=True):
                if of == number and reading is not None:
                    known.append((float(shares[first]), (reading.share - base.share) / groups.size))
            if len(known) == 1:
                unmeasured += groups.size
            at, saved = zip(*sorted(known), strict=True)
            falling = np.minimum.accumulate(saved)  # a narrower group is no slower: what says so is noise
            for group in groups:
                here = widths.group == group
                change[here] = np.interp(widths.share[here], at, falling)
        return Table(base.share, change, unmeasured)


@dataclass(frozen=True)
class _Builder:
    build: Build
    shares: Floats

    def __call__(self) -> nn.Module:
        return self.build(self.shares)
