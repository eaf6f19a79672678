"""Distillation: a slim student learns from the dense model that it was cut from, or from any other teacher.

Reading order: `targets` (which numbers of an output are distilled, and which positions count), `losses` (how far two
outputs or two features are apart), `watching` (what modules hand out while a model runs), `matching` (which channels of
the teacher a student's channels are, read off the plan), `distillation` (the door, for any training loop).
"""

from surgery.distilling.distillation import Distillation, told

__all__ = ["Distillation", "told"]
