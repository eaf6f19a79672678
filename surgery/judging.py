"""The user's own measure of a model, such as accuracy: called, and its answer checked."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from surgery.analysis.capture import evaluating
from surgery.errors import InputError, first_line
from surgery.progress import stage

Evaluate = Callable[[nn.Module], float]
"""Called with a model in eval mode, without gradients; returns a number."""

CALLED = "it is called with a model in eval mode, and returns a number"


def evaluated(evaluate: Evaluate, model: nn.Module, which: str, *, called: str = CALLED) -> float:
    """What the user's function says of a model, with a spinner.

    Args:
        evaluate: The function.
        model: The model; in eval mode meanwhile.
        which: What to call it.
        called: How the function is called, in words.

    Raises:
        InputError: It failed, or returned no number.
    """
    with stage(f"evaluating {which}"):
        return value_of(evaluate, model, which, called=called)


def value_of(evaluate: Evaluate, model: nn.Module, which: str, *, called: str = CALLED) -> float:
    """As `evaluated`, for work that has a bar of its own."""
    with evaluating(model), torch.no_grad():
        try:
            value = evaluate(model)
        except InputError:
            raise
        except Exception as error:  # the user's own code
            raise InputError(f"evaluate raised {first_line(error)} on the {which} model", called) from error
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"evaluate returned a {type(value).__name__}", "return a number") from error
    if math.isnan(number):
        raise InputError(f"evaluate returned NaN for the {which} model", "return a number")
    return number
