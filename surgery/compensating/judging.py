"""How far a model is from the dense one on real data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from surgery.compensating.taps import refusals
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.progress import track
from surgery.proof.outputs import Output


def distance(model: nn.Module, dense: nn.Module, held: Sequence[Inputs], what: str) -> float:
    """The error of a model's floating-point outputs (see `Rung.error`), in float64. Padding is left out.

    Raises:
        InputError: The model refuses the data, or has no floating-point output, or one that is NaN.
    """
    return apart((call, answer(dense, call), answer(model, call)) for call in track(held, what))


def answer(model: nn.Module, call: Inputs) -> Output:
    """What a model answers, as it is compared.

    Raises:
        InputError: The model refuses the data.
    """
    with torch.no_grad(), refusals(call):
        return Output.of(call.call(model))


def apart(found: Iterable[tuple[Inputs, Output, Output]]) -> float:
    """The error of answers beside those wanted (see `Rung.error`), in float64: of `(call, wanted, found)`.

    Raises:
        InputError: There is no floating-point output, or one is NaN.
    """
    sums: dict[str, Tensor] = {}
    for call, dense, own in found:
        for path, wanted in dense.floats.items():
            a, b = (_real(one, call).to(torch.float64) for one in (wanted, own.floats[path]))
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
