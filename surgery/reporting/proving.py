"""The proof as a picture: each error against its bound, on a scale of powers of ten."""

from __future__ import annotations

from dataclasses import dataclass

from surgery.proof.prove import Proof
from surgery.reporting.scales import Scale, powers

WIDTH, LEFT, TOP, STEP = 560, 4, 26, 46
"""In pixels; `STEP` from one line to the next."""


@dataclass(frozen=True)
class Gauge:
    """One error against what it may be; `x`, `bound_x` and `noise_x` are positions, `[pixels]`."""

    name: str
    error: float
    bound: float
    noise: float | None
    y: int
    x: float
    bound_x: float
    noise_x: float | None


@dataclass(frozen=True)
class Gauges:
    """All errors of a proof, on one scale."""

    lines: tuple[Gauge, ...]
    scale: Scale
    width: int
    height: int


def gauges_of(proof: Proof) -> Gauges | None:
    """The picture; None where nothing could be compared."""
    asked = (
        ("float64", proof.max_rel_error_float64, proof.bound_float64, None),
        (f"{proof.dtype}, as used", proof.max_rel_error, proof.bound, proof.noise),
    )
    found = [(name, error, bound, noise) for name, error, bound, noise in asked if error is not None]
    if not found:
        return None
    values = [value for _, *sizes in found for value in sizes if value]
    scale = powers(min(values) / 2, max(values) * 2, LEFT, WIDTH - LEFT)
    lines = tuple(
        Gauge(
            name,
            error,
            bound,
            noise,
            TOP + STEP * number,
            scale(error or scale.low),
            scale(bound),
            scale(noise) if noise else None,
        )
        for number, (name, error, bound, noise) in enumerate(found)
    )
    return Gauges(lines, scale, WIDTH, TOP + STEP * len(lines) + 14)
