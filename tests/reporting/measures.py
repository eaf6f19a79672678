"""A ladder, a sensitivity study and an int8 file to write pages of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from surgery.compensating import Compensated, Rung
from surgery.exporting import Parity
from surgery.plans import Plan
from surgery.pruning import Pruned
from surgery.quantizing import Agreement, Quantized
from surgery.quantizing.counting import Share
from surgery.sensitivities import Curve, Point, Sensitivity
from tests.reporting.pages import benchmark, row, stranded_result

LADDER = (
    Rung("fold", 0.8, 0.5),
    Rung("bias", 0.6, 0.7, 3, notes=("biases were made where there were none: a.bias",)),
    Rung("lstsq", 0.2, 0.9, 4),
    Rung("batchnorm", 0.3, 0.85, 2, taken=False, notes=("taken back, for the held-out error became larger",)),
)
COMPENSATED = Compensated(nn.Identity(), Plan(axes=()), LADDER, 0.95, 300, 100, ("a note of the data",))


def study(*, measured: str = "evaluate", dense: float = 0.9, name: str = "stem.weight") -> Sensitivity:
    """Two groups; of the second, one point is no number, and one was not measured."""
    first = Curve(name, "stem.weight:0", 16, 16, tuple(range(16)), (Point(0.25, 4, 0.8), Point(0.5, 8, 0.3)))
    second = Curve("inner.weight", "inner.weight:0", 24, 24, tuple(range(24)), (Point(0.5, 12, None),))
    return Sensitivity("Net", measured, dense, "taylor", (0.25, 0.5), 40, (first, second), ("a note",))


def quantized(**changes: object) -> Quantized:
    found = Quantized(
        path=Path("slim.int8.onnx"),
        method="static",
        why="convolutions carry 100% of the MACs",
        size_bytes=40_000,
        float_size_bytes=160_000,
        float_sha256="0" * 64,
        float_parity=Parity(1e-6, 2e-6, 1e-5, True, 5, (1, 3)),
        share=Share(11, 12, ("MatMul head",)),
        calibrated=300,
        compared=100,
        compared_on="held back from the calibration",
        agreement=(Agreement("logits", 0.98765, 0.99876, 0.05, 0.99), Agreement("ids", None, None, None, 1.0)),
        evaluated=(0.97, 0.96),
        benchmark=benchmark((row("float", 4.2), row("int8", 2.1, seed=1))),
        notes=("a note of int8",),
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def pruned() -> Pruned:
    """A result with a ladder."""
    return Pruned(**vars(stranded_result()), chosen=Plan(axes=()), compensated=COMPENSATED)
