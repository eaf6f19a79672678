"""How far a model is from the dense one on real data, and what the user's own function makes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from surgery.analysis.capture import evaluating
from surgery.compensating.taps import refusals
from surgery.errors import InputError, first_line
from surgery.inputs import Inputs
from surgery.progress import stage, track
from surgery.proof.outputs import Output

Evaluate = Callable[[nn.Module], float]
"""The user's own measure of a model, such as accuracy."""


def distance(model: nn.Module, dense: nn.Module, held: Sequence[Inputs], what: str) -> float:
    """The error of a model's floating-point outputs (see `Rung.error`), in float64. Padding is left out.

    Raises:
        InputError: The model refuses the data, or has no floating-point output, or one that is NaN.
    """
    sums: dict[str, Tensor] = {}
    for call in track(held, what):
        found: list[Output] = []
        for net in (dense, model):
            with torch.no_grad(), refusals(call):
                found.append(Output.of(call.call(net)))
        for path, wanted in found[0].floats.items():
            a, b = (_real(one, call).to(torch.float64) for one in (wanted, found[1].floats[path]))
            parts = [torch.tensor(float(a.numel())), a.sum(), a.square().sum(), (a - b).square().sum()]
            sums[path] = sums.get(path, torch.zeros(4, dtype=torch.float64)) + torch.stack([p.double() for p in parts])
    if not sums:
        raise InputError("the model has no floating-point output", "compensate the part of it that has")
    ratios = []
    for path, (n, total, squares, missed) in sums.items():
        varies = squares - total.square() / n.clamp(min=1)
        if not (varies.isfinite() and missed.isfinite()):
            raise InputError(f"{path} of the model is NaN or infinite on the data", "clean the data")
        divisor = float(varies) if varies > 1e-24 * squares else float(squares) or 1.0
        ratios.append(math.sqrt(float(missed) / divisor))
    return sum(ratios) / len(ratios)


def _real(output: Tensor, call: Inputs) -> Tensor:
    """The output without padding, where it lies as an `attention_mask` `[b, t]` does."""
    mask = call.kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.dim() == 2 and output.dim() > 2 and output.shape[:2] == mask.shape:
        return output[mask.to(output.device) != 0]
    return output


def evaluated(evaluate: Evaluate | None, model: nn.Module, which: str) -> float | None:
    """What the user's function says of a model, in eval mode; None without one.

    Raises:
        InputError: It failed, or returned no number.
    """
    if evaluate is None:
        return None
    with stage(f"evaluating {which}"), evaluating(model), torch.no_grad():
        try:
            value = evaluate(model)
        except InputError:
            raise
        except Exception as error:  # the user's own code
            fact = f"evaluate raised {first_line(error)} on the {which} model"
            raise InputError(fact, "it is called with a model in eval mode, and returns a number") from error
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"evaluate returned a {type(value).__name__}", "return a number") from error
    if math.isnan(number):
        raise InputError(f"evaluate returned NaN for the {which} model", "return a number")
    return number
