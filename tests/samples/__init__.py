"""Samples of every op that has a rule, one file per family of rules."""

from tests.samples import (
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
    transposed,
)
from tests.samples.sample import Sample

SAMPLES: tuple[Sample, ...] = (
    *bookkeeping.SAMPLES,
    *convolution.SAMPLES,
    *dense.SAMPLES,
    *functionalised.SAMPLES,
    *joining.SAMPLES,
    *lookup.SAMPLES,
    *movement.SAMPLES,
    *normalization.SAMPLES,
    *pointwise.SAMPLES,
    *reductions.SAMPLES,
    *selecting.SAMPLES,
    *spatial.SAMPLES,
    *transposed.SAMPLES,
)
