"""Gradients over all of the user's data: of the mean loss, or the mean of their squares sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from surgery.analysis.capture import evaluating
from surgery.batches import Batch
from surgery.errors import InputError, first_line

Loss = Callable[[Any, Any], Tensor]
"""A function of a model's output and the targets of a batch (see `Batch`); the mean over the batch's samples."""


@contextmanager
def differentiable(model: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Eval mode, and every parameter asks for a gradient, frozen ones too; yields them. Afterwards no gradient is left.

    For models of our own (a copy): gradients that the parameters had are lost.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    asking = [parameter.requires_grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
            parameter.grad = None
        with evaluating(model), torch.enable_grad():
            yield parameters
    finally:
        for parameter, asked in zip(parameters, asking, strict=True):
            parameter.grad = None
            parameter.requires_grad_(asked)


def mean_gradients_(
    model: nn.Module, parameters: list[nn.Parameter], batches: Iterator[Batch], loss: Loss | None
) -> None:
    """Leave with every parameter the gradient of the mean loss over all samples of all batches; None where it has none.

    Raises:
        InputError: As `loss_of`.
    """
    total = 0
    for batch in batches:
        (loss_of(batch.run(model), batch, loss) * batch.size).backward()
        total += batch.size
    for parameter in parameters:
        parameter.grad = None if parameter.grad is None else parameter.grad / total


def mean_squares_(
    model: nn.Module, parameters: list[nn.Parameter], batches: Iterator[Batch], loss: Loss | None
) -> None:
    """Leave with every parameter the mean over all samples of its squared gradient: the Fisher matrix' diagonal.

    Raises:
        InputError: As `loss_of`.
    """
    sums: list[Tensor | None] = [None] * len(parameters)
    total = 0
    for batch in batches:
        for sample in batch.samples():
            found = torch.autograd.grad(loss_of(sample.run(model), sample, loss), parameters, allow_unused=True)
            for place, gradient in enumerate(found):
                if gradient is not None:
                    before = sums[place]
                    sums[place] = gradient**2 if before is None else before.add_(gradient**2)
            total += 1
    for parameter, own in zip(parameters, sums, strict=True):
        parameter.grad = None if own is None else own / total


def squares_by_(criterion: Any, model: nn.Module, batches: Iterator[Batch], loss: Loss | None) -> None:
    """Have a criterion accumulate, sample by sample, by a function of its own (`accumulate_grad`).

    Raises:
        InputError: As `loss_of`.
    """
    criterion.zero_grad()
    for batch in batches:
        for sample in batch.samples():
            model.zero_grad()
            loss_of(sample.run(model), sample, loss).backward()
            criterion.accumulate_grad(model)


def loss_of(output: Any, batch: Batch, loss: Loss | None) -> Tensor:
    """The loss of one batch, to be differentiated.

    Raises:
        InputError: As `scalar_loss`, or it is no finite number that rests on the weights.
    """
    value = scalar_loss(output, batch, loss)
    if not bool(torch.isfinite(value)):
        raise InputError(f"the loss is {float(value.detach())} on {batch.where}", "look at that item, and at the loss")
    if not value.requires_grad:
        raise InputError("the loss does not rest on the weights", "compute it from the output, without detach()")
    return value


def scalar_loss(output: Any, batch: Batch, loss: Loss | None) -> Tensor:
    """The loss of one batch: what the user's function says, or what the model's own output calls its loss.

    Raises:
        InputError: There is none, or the function fails.
    """
    if loss is None:
        value = _own(output)
        if value is None:
            kind = type(output).__name__
            way_out = "pass loss=, a function of (outputs, targets), such as torch.nn.functional.cross_entropy"
            raise InputError(f"there is no loss: none was given, and the model's output ({kind}) holds none", way_out)
    else:
        try:
            value = loss(output, batch.targets)
        except Exception as error:
            fact = f"the loss fails on {batch.where}: {first_line(error)}"
            way_out = "it gets the model's output and what follows the inputs in the batch (of a dict, all)"
            raise InputError(fact, way_out) from error
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise InputError(f"the loss is a {type(value).__name__}", "return a tensor of one number")
    return value.mean()


def has_own_loss(output: Any) -> bool:
    """Whether the model hands out a loss beside its other outputs."""
    return not isinstance(output, Tensor) and _own(output) is not None


def _own(output: Any) -> Any:
    """The loss that a model hands out itself: `output.loss`, `output["loss"]`, or a single number."""
    if isinstance(output, Tensor):
        return output if output.numel() == 1 else None
    return output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
