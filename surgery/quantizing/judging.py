"""The user's own bounds and measures: how far int8 may be from float, and what each of both is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from surgery.errors import CheckError, InputError
from surgery.exporting.target import first_line
from surgery.progress import stage
from surgery.quantizing.agreement import Agreement
from surgery.quantizing.result import FLOAT, INT8

Evaluate = Callable[[nn.Module], float]
"""The user's own measure of a model: tensors in, a tensor or a tuple out."""


def evaluated_by(evaluate: Evaluate, models: Mapping[str, nn.Module]) -> tuple[float, float]:
    """What the user's function says of float and of int8.

    Raises:
        InputError: It failed, or returned no number.
    """
    found = []
    for which in (FLOAT, INT8):
        with stage(f"evaluating {which}"):
            try:
                value = evaluate(models[which])
            except InputError:
                raise
            except Exception as error:  # the user's own code
                told = f"{type(error).__name__}: {first_line(error)}"
                fact = f"evaluate raised {told} on the {which} model"
                raise InputError(fact, "it is called with tensors in, a tensor or a tuple out") from error
        try:
            found.append(float(value))
        except (TypeError, ValueError) as error:
            raise InputError(f"evaluate returned a {type(value).__name__}", "return a number") from error
        if math.isnan(found[-1]):
            raise InputError(f"evaluate returned NaN for the {which} model", "return a number")
    return found[0], found[1]


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
