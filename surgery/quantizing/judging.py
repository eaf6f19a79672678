"""The user's own bounds and measures: how far int8 may be from float, and what each of both is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from surgery.errors import CheckError, InputError
from surgery.judging import Evaluate, evaluated
from surgery.quantizing.agreement import Agreement
from surgery.quantizing.result import FLOAT, INT8

CALLED = "it is called with tensors in, a tensor or a tuple out"


def evaluated_on_both(evaluate: Evaluate, models: Mapping[str, nn.Module]) -> tuple[float, float]:
    """What the user's function says of float and of int8: modules, tensors in, a tensor or a tuple out.

    Raises:
        InputError: It failed, or returned no number.
    """
    found, other = (evaluated(evaluate, models[which], which, called=CALLED) for which in (FLOAT, INT8))
    return found, other


def require_close(found: Sequence[Agreement], bound: float | None) -> None:
    """Raise where an output is further from float than the user accepts, or where a cosine cannot tell."""
    if bound is None:
        return
    angles = {one.min_cosine: one for one in found if one.min_cosine is not None}
    if not angles:
        raise InputError("all outputs are integers, which have no cosine", "leave min_cosine out; evaluate= can judge")
    worst = min(angles)
    if worst < bound:
        raise CheckError(
            f"int8 is too far from float: {angles[worst]} (min_cosine={bound})",
            "nothing was kept; calibrate on more or better data, try the other method, or accept less",
        )
