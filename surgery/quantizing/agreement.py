"""How far the int8 file is from float: the angle between their outputs, and whether they name the same class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from surgery.quantizing.float_file import Array, Feed


@dataclass(frozen=True)
class Agreement:
    """One output, int8 beside float.

    Attributes:
        name: The output's name.
        min_cosine: The lowest cosine of any sample; None for an output of integers.
        mean_cosine: The mean over samples; None for an output of integers.
        error: The root mean square of the difference, over that of float's own changes from sample to sample: a
            network that hardly tells its inputs apart has a cosine near 1 whatever happens. None for integers, and
            where samples have different shapes or there is one only.
        top1: The share of samples (of tokens, for logits of tokens) where the largest score is at the same place; for
            an output of integers, the share of equal values; None for other outputs.
    """

    name: str
    min_cosine: float | None
    mean_cosine: float | None
    error: float | None
    top1: float | None

    def __str__(self) -> str:
        parts = []
        if self.min_cosine is not None:
            parts.append(f"cosine {self.min_cosine:.5f} at least, {self.mean_cosine:.5f} on average")
        if self.error is not None:
            parts.append(f"error {self.error:.2%} of what it varies")
        if self.top1 is not None:
            parts.append(f"{'same top-1' if parts else 'equal'} on {self.top1:.1%}")
        return f"{self.name}: {', '.join(parts)}"


def compare(
    float_run: Callable[[Feed], list[Array]],
    int8_run: Callable[[Feed], list[Array]],
    feeds: Iterable[Feed],
    names: Sequence[str],
) -> tuple[Agreement, ...]:
    """Run both on every feed; one `Agreement` per output."""
    cosines: list[list[float]] = [[] for _ in names]
    same: list[list[float]] = [[] for _ in names]
    changes = [_Changes() for _ in names]
    for feed in feeds:
        batch = next(iter(feed.values())).shape[:1]
        for j, (a, b) in enumerate(zip(float_run(feed), int8_run(feed), strict=True)):
            if a.dtype.kind != "f":
                same[j].append(float((a == b).mean()) if a.size else 1.0)
                continue
            each = len(a) if a.shape[:1] == batch and a.ndim else 1
            flat = a.reshape(each, -1), b.reshape(each, -1)
            cosines[j] += [cosine(x, y) for x, y in zip(*flat, strict=True)]
            changes[j].add(*flat)
            if _scores(names[j], a):
                same[j] += (a.argmax(-1) == b.argmax(-1)).astype(float).ravel().tolist()
    return tuple(
        Agreement(
            name,
            min(angles) if angles else None,
            float(np.mean(angles)) if angles else None,
            changed.error(),
            float(np.mean(hits)) if hits else None,
        )
        for name, angles, changed, hits in zip(names, cosines, changes, same, strict=True)
    )


class _Changes:
    """Sums over the samples of one output: how much float varies, and how far int8 is from it."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: Array = np.zeros(0)
        self.squares = self.differences = 0.0

    def add(self, a: Array, b: Array) -> None:
        """Samples of float and of int8, both `[n, values]`; what is not finite in both does not count."""
        finite = np.isfinite(a) & np.isfinite(b)
        a, b = (np.where(finite, one, 0).astype(np.float64) for one in (a, b))
        total = a.sum(0)
        same = not self.count or total.shape == self.sums.shape
        self.sums = (total if not self.count else self.sums + total) if same else np.full(1, np.nan)
        self.count += len(a)
        self.squares += float((a * a).sum())
        self.differences += float(((a - b) ** 2).sum())

    def error(self) -> float | None:
        """The difference over the variation; None where there is none, or it cannot be told."""
        if self.count < 2:
            return None
        varied = self.squares - float((self.sums**2).sum()) / self.count
        return float(np.sqrt(self.differences / varied)) if varied > 1e-12 * self.squares else None


def cosine(a: Array, b: Array) -> float:
    """Of the angle between two vectors; 1 where both are zero, 0 where one is or where they are finite elsewhere.

    Values that neither holds as a finite number (the -inf of a mask) do not count.
    """
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return 0.0
    a, b = (one[finite].astype(np.float64) for one in (a, b))
    long, other = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if not long or not other:
        return float(long == other)
    return float(np.clip(a @ b / (long * other), -1.0, 1.0))


def _scores(name: str, output: Array) -> bool:
    """Whether the last dim of an output holds scores of classes: [n, classes], or the logits of tokens."""
    return output.shape[-1] > 1 and (output.ndim == 2 or (output.ndim == 3 and "logits" in name))
