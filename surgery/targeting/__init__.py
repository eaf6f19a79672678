"""A latency as a budget: a table of measured widths, the cheapest loss within it, and what then is measured."""

from surgery.targeting.aiming import Aiming, UnreachableError, measured_again
from surgery.targeting.clock import Place, RefusedError

__all__ = ["Aiming", "Place", "RefusedError", "UnreachableError", "measured_again"]
