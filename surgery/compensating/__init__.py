"""Compensating: what a removal costs is won back on real data, without training, and each step is accounted for."""

from surgery.compensating.door import RUNGS, compensate
from surgery.compensating.result import Compensated, Rung

__all__ = ["RUNGS", "Compensated", "Rung", "compensate"]
