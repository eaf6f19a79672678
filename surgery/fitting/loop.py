"""The loop: rounds of epochs of steps, with what the schedule wants before a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from surgery.deciding.criteria import Loss
from surgery.deciding.criteria.gradients import has_own_loss, scalar_loss
from surgery.distilling import Distillation
from surgery.errors import CheckError, InputError
from surgery.fitting import chance
from surgery.fitting.engine import Engine
from surgery.fitting.feeding import Feed, Share, Step
from surgery.fitting.ranks import Ranks
from surgery.fitting.rates import rates_for
from surgery.fitting.result import Epoch
from surgery.fitting.settings import Settings
from surgery.inputs import Inputs
from surgery.judging import Evaluate, evaluated, value_of
from surgery.progress import bar
from surgery.schedules import Change, Pruner

LOOK_EVERY = 16
"""Losses are fetched from a GPU after so many steps, so that it need not wait."""


@dataclass(frozen=True)
class Place:
    """The step that comes next: of a round, an epoch of it, and of that epoch."""

    round: int = 0
    epoch: int = 0
    step: int = 0


@dataclass
class Record:
    """What was done so far (mutable).

    Attributes:
        place: What comes next.
        losses: Of every step.
        epochs, changes: So far.
        summed, samples: Of the epoch at hand: the sum of its losses over samples, and how many samples.
        best: The best epoch since the model last changed.
        best_weights: What it weighed, where the best are to be restored.
        waited: For how many epochs it has not got better.
        stopped_early: Whether a round ended for that.
    """

    place: Place
    losses: list[float]
    epochs: list[Epoch]
    changes: list[Change]
    summed: float = 0.0
    samples: int = 0
    best: Epoch | None = None
    best_weights: dict[str, Any] | None = None
    waited: int = 0
    stopped_early: bool = False


class Loop:
    """Trains a model (mutable).

    Args:
        engine: The model and its optimizer.
        feed: The data.
        example: A call of the model.
        ranks: The processes.
        settings: How to train.
        loss, evaluate, teacher: As for `surgery.fit`.
        pruner: What changes the model meanwhile.
        record: Where to begin.
        save: Called where a checkpoint is due.
    """

    def __init__(
        self,
        engine: Engine,
        feed: Feed,
        example: Inputs,
        ranks: Ranks,
        settings: Settings,
        *,
        loss: Loss | None,
        evaluate: Evaluate | None,
        teacher: Distillation | None,
        pruner: Pruner | None,
        record: Record,
        save: Callable[[], None],
    ) -> None:
        self.engine, self.feed, self.example, self.ranks, self.settings = engine, feed, example, ranks, settings
        self.loss, self.evaluate, self.teacher, self.pruner = loss, evaluate, teacher, pruner
        self.record, self.save = record, save
        self.rounds = 1 if pruner is None else pruner.rounds
        self.length = settings.epochs * feed.steps
        """Steps of a round."""
        self.base = [{"lr": group["lr"]} for group in engine.optimizer.param_groups]
        self.rates: Any = None
        self.pending: list[tuple[Tensor, int]] = []
        self.look = 1 if engine.accelerator.device.type == "cpu" else LOOK_EVERY

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.record.place.round >= self.rounds

    def run(self, resume: Callable[[], None] | None = None) -> None:
        """Train to the end.

        Args:
            resume: Called when learning rates of the round at hand are there, to set all to where a checkpoint left it.

        Raises:
            InputError: Data, loss, model or `evaluate` fail.
            CheckError: The loss is no number any more.
        """
        with training(self.engine.model):
            while not self.done:
                self._round(self.record.place, resume)
                resume = None

    def _round(self, begun: Place, resume: Callable[[], None] | None) -> None:
        self.engine.unwrap_()
        if resume is not None and begun.epoch == begun.step == 0:
            resume()  # then the round begins as it would have
        self.reset_rates_()
        self.rates = rates_for(self.settings.lr_schedule, self.engine.optimizer, self.length)
        if resume is not None and (begun.epoch or begun.step):
            resume()
        for epoch in range(begun.epoch, self.settings.epochs):
            first = begun.step if epoch == begun.epoch else 0
            if not first:
                chance.seed(chance.seed_of(self.settings.seed, begun.round, epoch, self.ranks.rank + 1))
            self._epoch(begun.round, epoch, first)
            if self._ended(begun.round, epoch):
                return

    def reset_rates_(self) -> None:
        """The learning rates that the optimizer came with."""
        for group, base in zip(self.engine.optimizer.param_groups, self.base, strict=True):
            group.update(base)
            group.pop("initial_lr", None)

    def _epoch(self, round: int, epoch: int, first: int) -> None:
        record, every = self.record, self.settings.checkpoint_every
        said = f"round {round + 1} of {self.rounds}, " if self.rounds > 1 else ""
        said += f"epoch {epoch + 1} of {self.settings.epochs}"
        said += f" (loss {record.losses[-1]:.4g})" if record.losses else ""
        steps = self.feed.epoch(round, epoch, self.example, first)
        shown: Any = bar(said, self.feed.steps - first) if self.ranks.main else nullcontext(lambda _: None)
        with shown as count:
            for number, step in enumerate(steps, first):
                self._change(round, epoch * self.feed.steps + number)
                self._step(step)
                count(1)
                record.place = Place(round, epoch, number + 1)
                if every and number + 1 < self.feed.steps and (len(record.losses) + len(self.pending)) % every == 0:
                    self._look()
                    self.save()
        self._look()

    def _change(self, round: int, step: int) -> None:
        """What the schedule wants before this step of the round."""
        pruner, engine = self.pruner, self.engine
        if pruner is None or not pruner.due(round, step):
            return
        engine.unwrap_()
        engine.agree_()
        change = self._apart(round, step, lambda: pruner.before_step(round, step, engine.optimizer))
        if change is None:
            return
        engine.model = pruner.model
        engine.agree_(engine.model.parameters())
        engine.agree_()
        if change.plan is not None and self.teacher is not None:
            self.teacher.follow_(change.plan)
        record = self.record
        record.changes.append(change)
        record.best, record.best_weights, record.waited = None, None, 0

    def _apart(self, round: int, step: int, work: Callable[[], Change | None]) -> Change | None:
        """What is drawn at random meanwhile, of the data or otherwise, goes by the place alone."""
        with chance.kept_apart():
            self.feed.seed_(round, step)
            return work()

    def _step(self, step: Step) -> None:
        """One step of the optimizer."""
        engine = self.engine
        if engine.wrapped is None:
            engine.wrap_(lambda model: self._loss(model, step.shares[0]))
        total = torch.zeros((), dtype=self._exact, device=engine.accelerator.device)
        for number, share in enumerate(step.shares, 1):
            with engine.syncing(number == len(step.shares)):
                value = self._loss(engine.wrapped, share)
                engine.backward(value * (share.weight * self.ranks.count))
            if share.weight:
                total += value.detach().to(self._exact) * share.weight
        stepped = engine.step(self.settings.clip_norm)
        if stepped:
            self.rates.step()
        self.pending.append((self.ranks.total(total), step.size))
        if len(self.pending) >= self.look:
            self._look()

    @property
    def _exact(self) -> torch.dtype:
        return torch.float32 if self.engine.accelerator.device.type == "mps" else torch.float64

    def _look(self) -> None:
        """Fetch the losses of the last steps.

        Raises:
            CheckError: One is no number.
        """
        record, pending = self.record, self.pending
        self.pending = []
        for value, size in pending:
            number = float(value)
            record.losses.append(number)
            if not math.isfinite(number):
                self.ranks.agreed = True
                raise CheckError(
                    f"the loss is {number} at step {len(record.losses)} (epoch {record.place.epoch + 1})",
                    "lower lr=, pass clip_norm=1.0, or look at the data; the weights are spoilt by now",
                )
            record.summed += number * size
            record.samples += size

    def _loss(self, model: nn.Module, share: Share) -> Tensor:
        """What is trained on, of one batch."""
        batch = share.batch
        if self.teacher is None:
            value = scalar_loss(batch.run(model), batch, self.loss)
        else:
            with self.teacher.watching(self.engine.trained):
                output = batch.run(model)
                task = None
                if self.loss is not None or has_own_loss(output):
                    task = scalar_loss(output, batch, self.loss)
                call = {**batch.inputs.kwargs, **batch.more}
                value = self.teacher(output, batch.inputs.args, call, task, targets=batch.targets)
        if not value.requires_grad:
            raise InputError("the loss does not rest on the weights", "compute it from the output, without detach()")
        return value

    def _ended(self, round: int, epoch: int) -> bool:
        """What comes after an epoch; whether the round is over."""
        record, settings = self.record, self.settings
        lr = float(self.engine.optimizer.param_groups[0]["lr"])
        done = Epoch(round, epoch, len(record.losses), record.summed / max(record.samples, 1), lr)
        if self.evaluate is not None:
            done = replace(done, value=self._evaluated(self.evaluate))
        record.epochs.append(done)
        record.summed, record.samples = 0.0, 0
        over = epoch + 1 == settings.epochs
        if done.value is not None:
            over = self._judged(done) or over
        record.place = Place(round + 1) if over else Place(round, epoch + 1)
        if over and settings.patience is not None and record.best_weights is not None:
            self.engine.unwrap_()
            self.engine.set_weights_(record.best_weights)
            record.best_weights, record.waited = None, 0
        every = settings.checkpoint_every
        if every is None or len(record.losses) % every == 0 or self.done:
            self.save()
        return over

    def _evaluated(self, evaluate: Evaluate) -> float:
        """What evaluate says; every process asks it, the first one's answer counts."""
        self.engine.agree_()
        asked = evaluated if self.ranks.main else value_of
        with self.engine.evaluable() as model:
            value = self.ranks.together(lambda: asked(evaluate, model, "trained"))
        return self.ranks.by_main(lambda: value)

    def _judged(self, done: Epoch) -> bool:
        """Keep the best; whether it has not got better for long enough, with nothing left for the schedule to do."""
        record, settings = self.record, self.settings
        sign = 1 if settings.higher_is_better else -1
        assert done.value is not None, "it was evaluated"
        if record.best is None or record.best.value is None or sign * (done.value - record.best.value) > 0:
            record.best, record.waited = done, 0
            if settings.patience is not None:
                record.best_weights = self.engine.weights()
        else:
            record.waited += 1
        if settings.patience is None or record.waited < settings.patience or self._due(done):
            return False
        record.stopped_early |= done.epoch + 1 < settings.epochs
        return True

    def _due(self, done: Epoch) -> bool:
        """Whether the schedule has something left to do in this round."""
        if self.pruner is None:
            return False
        after = (done.epoch + 1) * self.feed.steps
        return any(event.step >= after for event in self.pruner.schedule.events(done.round, self.length))


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Training mode inside; every module gets its own flag back afterwards.

    A model in eval mode is put into training mode as a whole. One in training mode is left as it is: what its owner put
    into eval mode in it, such as a frozen BatchNorm, stays so.
    """
    flags = [(module, module.training) for module in model.modules()]
    if not model.training:
        model.train()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
