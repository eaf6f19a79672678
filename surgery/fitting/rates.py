"""Optimizers and learning rates: what is made where the user brought none, and what cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from torch.optim import LBFGS, AdamW, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from surgery.errors import InputError, first_line
from surgery.fitting.settings import LrSchedule

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


def optimizer_for(
    given: Optimizer | MakeOptimizer | None, model: nn.Module, lr: float, weight_decay: float
) -> Optimizer:
    """The user's optimizer, or the one that their function makes of the trainable parameters, or AdamW.

    Raises:
        InputError: Nothing is to be trained, it is made for another model, or it cannot be stepped by a loop.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InputError("no parameter of the model requires a gradient", "call requires_grad_() on what is to learn")
    if given is None:
        return AdamW(trained, lr=lr, weight_decay=weight_decay)
    made: Any = given
    if not isinstance(made, Optimizer):
        if not callable(made):
            way_out = "pass an optimizer, or a function of the parameters that returns one"
            raise InputError(f"optimizer is a {type(made).__name__}", way_out)
        try:
            made = made(trained)
        except Exception as error:  # the user's own code
            way_out = "it is called with the list of the model's trainable parameters"
            raise InputError(f"the function that makes the optimizer raised {first_line(error)}", way_out) from error
    while type(made).__name__ == "AcceleratedOptimizer":  # the user's Accelerator prepared it
        made = made.optimizer
    if not isinstance(made, Optimizer):
        raise InputError(f"the optimizer is a {type(made).__name__}", "give a torch.optim.Optimizer")
    if isinstance(made, LBFGS):
        raise InputError("LBFGS needs a closure for every step", "give an optimizer that steps once per batch")
    held = {id(parameter) for group in made.param_groups for parameter in group["params"]}
    if not held & {id(parameter) for parameter in trained}:
        way_out = "make it over model.parameters(), after the model was last cut or converted"
        raise InputError("the optimizer holds none of the model's trainable parameters", way_out)
    return made


def rates_for(kind: LrSchedule, optimizer: Optimizer, steps: int) -> LRScheduler:
    """The learning rate over one round, stepped once per optimizer step.

    Cosine: Loshchilov and Hutter, 2017, without restarts, down to 0. One cycle: Smith and Topin, 2019, up to the
    optimizer's own rate and down again; its momentum follows where it has one.

    Raises:
        InputError: The user's function fails, or returns what cannot be stepped by number.
    """
    if kind == "constant":
        return lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    if kind == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, steps)
    if kind == "onecycle":
        momentum = all(group.get("momentum", 0) or "betas" in group for group in optimizer.param_groups)
        peaks = [float(group["lr"]) for group in optimizer.param_groups]
        return lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=max(steps, 2), cycle_momentum=momentum)
    assert callable(kind), "checked with the settings"
    try:
        made: Any = kind(optimizer, steps)
    except Exception as error:  # the user's own code
        raise InputError(f"lr_schedule raised {first_line(error)}", "it gets the optimizer and the steps") from error
    if not isinstance(made, LRScheduler) or isinstance(made, ReduceLROnPlateau):
        way_out = "return a torch.optim.lr_scheduler that goes by the number of steps"
        raise InputError(f"lr_schedule returned a {type(made).__name__}", way_out)
    return made
