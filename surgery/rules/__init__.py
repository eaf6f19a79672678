"""The rules, one file per family of ops. Importing this package fills the table in `registry.py`."""

from surgery.rules import (
    bookkeeping,
    convolution,
    dense,
    functionalised,
    joining,
    lookup,
    movement,
    normalization,
    pointwise,
    reductions,
    selecting,
    spatial,
)

__all__ = [
    "bookkeeping",
    "convolution",
    "dense",
    "functionalised",
    "joining",
    "lookup",
    "movement",
    "normalization",
    "pointwise",
    "reductions",
    "selecting",
    "spatial",
]
