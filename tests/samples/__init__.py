"""Samples of every op that has a rule, one file per family of rules."""

from tests.samples import convolution
from tests.samples.sample import Sample

SAMPLES: tuple[Sample, ...] = (*convolution.SAMPLES,)
