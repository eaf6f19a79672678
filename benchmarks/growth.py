"""How our time grows within a family: per million parameters, per op, and as a power of each."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

GROWTH = {
    "ResNet": ("resnet18", "resnet50", "resnet101", "resnet152"),
    "DenseNet": ("densenet121", "densenet169", "densenet201"),
}
"""Families in which one net is a longer version of another."""


class Sized(Protocol):
    """A net's size, and our times on it."""

    @property
    def net(self) -> str:
        """Its name."""

    @property
    def params(self) -> int:
        """Before the cut."""

    @property
    def ops(self) -> int:
        """Calls in the captured program."""

    @property
    def ours_ms(self) -> list[float]:
        """Capture to cut, by round."""


@dataclass(frozen=True)
class Growth:
    """One family: its members in order, our median on each, and the powers of size that the time grows with."""

    family: str
    members: tuple[Sized, ...]
    median_ms: tuple[float, ...]
    by_params: float
    by_ops: float

    def __str__(self) -> str:
        lines = [
            f"{net.net}: {net.params / 1e6:.1f} M parameters, {net.ops} ops: {ms:.0f} ms, "
            f"{ms / (net.params / 1e6):.1f} ms per million parameters, {ms / net.ops:.2f} ms per op"
            for net, ms in zip(self.members, self.median_ms, strict=True)
        ]
        powers = f"{self.family}: time grows as parameters^{self.by_params:.2f}, as ops^{self.by_ops:.2f}"
        return "\n".join([*lines, powers])


def power(sizes: Sequence[float], times_ms: Sequence[float]) -> float:
    """The p of `time ~ size^p` that fits best: 1 is linear growth, below 1 less than that."""
    return float(np.polyfit(np.log(np.asarray(sizes)), np.log(np.asarray(times_ms)), 1)[0])


def grown(nets: Sequence[Sized]) -> list[Growth]:
    """Every family of which at least two nets were timed."""
    found = []
    for family, names in GROWTH.items():
        members = sorted((net for net in nets if net.net in names), key=lambda net: names.index(net.net))
        if len(members) < 2:
            continue
        medians = [statistics.median(net.ours_ms) for net in members]
        by_params = power([net.params for net in members], medians)
        by_ops = power([net.ops for net in members], medians)
        found.append(Growth(family, tuple(members), tuple(medians), by_params, by_ops))
    return found
