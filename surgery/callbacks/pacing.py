"""A schedule at the pace of a Trainer's own counter of optimizer steps, in rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from surgery.analysis.capture import evaluating
from surgery.callbacks.order import Names, names_in
from surgery.deciding.criteria import Loss
from surgery.errors import InputError
from surgery.fitting import chance
from surgery.fitting.examples import example_of
from surgery.fitting.settings import written
from surgery.inputs import Example, Inputs
from surgery.schedules import Change, Pruner, Schedule, Structured

FORMAT = "surgery.callbacks/1"

SAMPLES = 2
"""How many samples of a batch an example takes: outputs are compared with what they vary from one to another."""


class Pace:
    """Carries a schedule out by the number of the optimizer's step (mutable).

    The steps that a Trainer takes are divided among the rounds of the schedule; the last one has what is left over.

    Attributes:
        pruner: None until the model is known.
        changes: What was done, in order.
        names: Of the optimizers' parameters when the checkpoint was written that was taken up again.
    """

    def __init__(
        self,
        schedule: Schedule,
        example_inputs: Example | None,
        example_kwargs: Mapping[str, Any] | None,
        data: Any,
        loss: Loss | None,
    ) -> None:
        if not isinstance(schedule, Schedule):
            raise InputError(f"the schedule is a {type(schedule).__name__}", "give surgery.OneShot(0.5), or another")
        given = example_inputs is not None or example_kwargs
        self.inputs = Inputs.of(() if example_inputs is None else example_inputs, example_kwargs) if given else None
        self.schedule, self.data, self.loss = schedule, data, loss
        self.pruner: Pruner | None = None
        self.changes: list[Change] = []
        self.names: list[Names] = []
        self.first = self.total = 0
        self.reached = -1
        self.begun = False

    @property
    def cuts(self) -> bool:
        """Whether tensors become smaller on the way."""
        return isinstance(self.schedule.how, Structured) and self.schedule.how.cut

    @property
    def one_change(self) -> bool:
        """Whether all that the schedule wants is wanted before the very first step."""
        found = [(number, event.step) for number in range(self.schedule.rounds) for event in self._events(number)]
        return found == [(0, 0)]

    def _events(self, number: int) -> Sequence[Any]:
        return self.schedule.events(number, 1000)

    def begin_(
        self,
        model: nn.Module,
        *,
        total: float,
        first: int,
        item: Callable[[], Any],
        share: Callable[[Callable[[], Any]], Any] | None = None,
    ) -> None:
        """Before the first step: the model, and how many steps there will be.

        Args:
            model: What is pruned, where it is trained.
            total: The number that the Trainer's counter will end at.
            first: Where it is now.
            item: Returns an item of the data, for an example.
            share: As for `surgery.Pruner`.

        Raises:
            InputError: The Trainer does not know how many steps it will take, or there are fewer than rounds; a run
                that is taken up again had another number; or as `surgery.Pruner`.
        """
        if not total < float("inf") or total < 0:
            raise InputError("the Trainer does not know how many steps it will take", "give it max_steps")
        if self.pruner is None:
            steps = (int(total) - first) // self.schedule.rounds
            if steps < 1:
                fact = f"the Trainer has {int(total) - first} steps left, the schedule {self.schedule.rounds} rounds"
                raise InputError(fact, "let it train for longer (max_steps, max_epochs)")
            inputs = self._example(model, item)
            self.first, self.total, self.reached = first, int(total), first - 1
            self.pruner = self._pruner(model, steps, inputs)
        elif int(total) != self.total:
            fact = f"the run was begun for {self.total} steps, and now has {int(total)}"
            raise InputError(fact, "give the Trainer the max_steps and max_epochs that it was begun with")
        if self.pruner.inputs is not None:
            self.pruner.inputs = self.pruner.inputs.to(next(model.parameters()).device)
        if share is not None:
            self.pruner.share = share
        self.begun = True

    def before(self, count: int, optimizer: Optimizer) -> tuple[Change, ...]:
        """What the schedule wants before the step after so many, and what it wanted before those that were not told.

        Nothing is done twice, nor after the steps that were announced.
        """
        assert self.pruner is not None, "begin_ comes first"
        found = []
        for step in range(self.reached + 1, min(count + 1, self.total)):
            number = min((step - self.first) // self.pruner.steps, self.schedule.rounds - 1)
            change = self.pruner.before_step(number, step - self.first - number * self.pruner.steps, optimizer)
            found += [] if change is None else [change]
            self.reached = step
        self.changes += found
        return tuple(found)

    def state(self, optimizers: Sequence[Optimizer], whole: nn.Module) -> dict[str, Any]:
        """All that a run needs to go on, in kinds that `torch.load(weights_only=True)` reads; {} before the first step.

        Args:
            optimizers: Those of the Trainer.
            whole: What they name parameters by.
        """
        if self.pruner is None:
            return {}
        inputs = self.pruner.inputs
        return {
            "format": FORMAT,
            "schedule": written(self.schedule),
            "steps": self.pruner.steps,
            "first": self.first,
            "total": self.total,
            "reached": self.reached,
            "example": None if inputs is None else [inputs.to("cpu").args, dict(inputs.to("cpu").kwargs)],
            "names": [names_in(optimizer, whole) for optimizer in optimizers],
            "pruner": self.pruner.state_dict(),
        }

    def resume_(self, model: nn.Module, state: Mapping[str, Any]) -> None:
        """Make a fresh model as narrow and masked as it was when `state` was written; its weights come later.

        Raises:
            InputError: It is no such state, or of another schedule.
            PlanError: The model is not as it was at the start.
        """
        if state.get("format") != FORMAT:
            raise InputError("the checkpoint's state is of another version", "begin the run anew")
        if state["schedule"] != written(self.schedule):
            fact = f"the checkpoint was written under {state['schedule']}, the callback has {written(self.schedule)}"
            raise InputError(fact, "give the callback the schedule that the run was begun with")
        device = next(model.parameters()).device
        inputs = None if state["example"] is None else Inputs(*state["example"]).to(device)
        pruner = self._pruner(model, state["steps"], inputs)
        pruner.load_state_dict(state["pruner"])
        self.pruner, self.names, self.begun = pruner, state["names"], False
        self.first, self.total, self.reached = state["first"], state["total"], state["reached"]

    def fits(self, state: Mapping[str, Any]) -> bool:
        """Whether the model is as narrow and masked now as when a state was written."""
        assert self.pruner is not None, "asked after begin_ or resume_"
        now = self.pruner.state_dict()
        return all(now[key] == state["pruner"][key] for key in ("cuts", "masked"))

    def _pruner(self, model: nn.Module, steps: int, inputs: Inputs | None) -> Pruner:
        args, kwargs = (None, None) if inputs is None else (inputs.args, inputs.kwargs)
        return Pruner(
            self.schedule,
            model,
            steps=steps,
            example_inputs=args,
            example_kwargs=kwargs,
            data=self.data,
            loss=self.loss,
        )

    def _example(self, model: nn.Module, item: Callable[[], Any]) -> Inputs | None:
        """The example that was given, or the first samples of an item; None where that does not do, nor is needed."""
        device = next(model.parameters()).device
        if self.inputs is not None:
            return self.inputs.to(device)
        try:
            with chance.kept_apart():  # a dataset may draw
                found = example_of(item(), model, lossless=False)
            few = found if found.batch is None else found.map(lambda tensor: tensor[:SAMPLES])
            few = few.map(torch.Tensor.detach).to(device)
            with chance.kept_apart(), evaluating(model), torch.no_grad():
                few.call(model)
        except Exception as error:
            if not isinstance(self.schedule.how, Structured):
                return None  # masks need none: only the MACs are not told
            fact = f"{type(model).__name__} cannot be called with what the first batch holds: {error}"
            raise InputError(fact, "give the callback example_inputs or example_kwargs") from error
        return few


class Paced:
    """What any callback that has a `Pace` is asked for."""

    _pace: Pace

    @property
    def changes(self) -> tuple[Change, ...]:
        """What was done, in order."""
        return tuple(self._pace.changes)

    @property
    def pruner(self) -> Pruner | None:
        """What does it; None until training begins."""
        return self._pace.pruner


def figures(change: Change) -> dict[str, float]:
    """What is logged of a change."""
    found: dict[str, float] = {
        "pruning/amount": change.amount,
        "pruning/sparsity": change.zeros,
        "pruning/params": change.params,
    }
    return found if change.macs is None else {**found, "pruning/macs": change.macs}
