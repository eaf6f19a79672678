"""A schedule in the Trainer of Lightning: `lightning` and `pytorch_lightning` alike."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from surgery.callbacks.order import arrange_
from surgery.callbacks.pacing import Pace, Paced, figures
from surgery.deciding.criteria import Loss
from surgery.errors import InputError, MissingExtraError, SurgeryError
from surgery.inputs import Example
from surgery.schedules import Schedule
from surgery.sources.files import read_tensors
from surgery.sources.weights import load_weights_

PACKAGES = ("lightning.pytorch", "pytorch_lightning")
AVERAGES = {"StochasticWeightAveraging", "WeightAveraging"}
HOOK = "on_load_checkpoint"


def _package() -> str:
    """The package that the user has imported already, else the first that is installed.

    Raises:
        MissingExtraError: There is none (the extra `lightning`).
    """
    for name in sorted(PACKAGES, key=lambda name: name not in sys.modules):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise
        else:
            return name
    raise MissingExtraError("lightning", "lightning")


PACKAGE = _package()
Callback: Any = importlib.import_module(f"{PACKAGE}.callbacks").Callback
say: Callable[[str], None] = importlib.import_module(f"{PACKAGE}.utilities.rank_zero").rank_zero_info


class PruningCallback(Paced, Callback):  # type: ignore[misc]
    """Carries a schedule out while a Trainer of Lightning trains: masks, or cuts of the net and its optimizer.

        trainer = Trainer(max_epochs=10, callbacks=[PruningCallback(surgery.Gradual(0.8), module="net")])

    The Trainer's steps (`max_steps`, or `max_epochs` of batches over `accumulate_grad_batches`) are divided among the
    rounds of the schedule. The learning rate is that of `configure_optimizers`, over all of them: where it is to start
    anew in each round, let it (`CosineAnnealingWarmRestarts`). Sparsity, parameters and MACs go to the Trainer's
    loggers, and a line for each change to its log. Checkpoints of the Trainer hold what is needed to go on from them
    (`fit(ckpt_path=...)` with a fresh module and a fresh callback), or to test with them; `resume_` loads one without a
    Trainer.

    Under DDP all processes change alike, and the module is wrapped again after a cut. Other strategies that run several
    processes are refused.

    Args:
        schedule: When how much goes.
        module: The path of what is pruned inside the LightningModule; None for all of it, where its own forward can be
            called with an input of a batch.
        example_inputs, example_kwargs: One call of that module; else they are taken from the first batch.
        data: Batches for an importance that looks at data, and for winning back what a cut costs.
        loss: As for `surgery.choose`.

    Attributes:
        changes: What was done, in order.
        pruner: None until training begins.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        module: str | None = None,
        example_inputs: Example | None = None,
        example_kwargs: Mapping[str, Any] | None = None,
        data: Any = None,
        loss: Loss | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self._given = (schedule, example_inputs, example_kwargs, data, loss)
        self._pace = Pace(*self._given)
        self._hooked = False

    @property
    def state_key(self) -> str:
        """What its state is found by in a checkpoint: of several callbacks, each has a module of its own."""
        key: str = self._generate_state_key(module=self.module)
        return key

    def resume_(self, pl_module: nn.Module, checkpoint: str | os.PathLike[str]) -> nn.Module:
        """Make a fresh module as narrow and masked as it was when the Trainer wrote a checkpoint, with its weights.

        Args:
            pl_module: The LightningModule as it was before training; written in place.
            checkpoint: The file.

        Returns:
            The module.

        Raises:
            InputError: The file cannot be read without running its code, has no state of this callback, or of another
                schedule; or the weights do not fit.
            PlanError: The module is not as it was at the start.
        """
        path = Path(checkpoint)
        found = read_tensors(path)
        state = _state_in(found if isinstance(found, Mapping) else {}, self.state_key)
        if not state:
            fact = f"{str(path)!r} holds no state of a PruningCallback"
            raise InputError(fact, "give a checkpoint that a Trainer with this callback wrote, not weights alone")
        self._pace = Pace(*self._given)
        self._pace.resume_(self._target(pl_module), state)
        load_weights_(pl_module, found["state_dict"], source=path.name)
        return pl_module

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Be there when a checkpoint's weights are loaded: Lightning asks callbacks only afterwards.

        Raises:
            InputError: The module is not there; a strategy that is not supported.
        """
        target = self._target(pl_module)
        kinds = {kind.__name__ for kind in type(trainer.strategy).__mro__}
        if stage == "fit" and (not kinds & {"SingleDeviceStrategy", "DDPStrategy"} or "DeepSpeedStrategy" in kinds):
            fact = f"the strategy is {type(trainer.strategy).__name__}, under which parameters are not the module's own"
            raise InputError(fact, 'prune under one device or strategy="ddp", then tune the result under this one')
        if self._pace.pruner is not None and self._pace.pruner.model is not target:
            self._pace = Pace(*self._given)
        if self._hooked:
            return
        self._hooked = True
        theirs = pl_module.on_load_checkpoint

        def before_loading(checkpoint: dict[str, Any]) -> None:
            self._take_up(pl_module, checkpoint)
            theirs(checkpoint)

        setattr(pl_module, HOOK, before_loading)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave nothing behind in the module."""
        vars(pl_module).pop(HOOK, None)
        self._hooked = False

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """The same, where training ended in an error."""
        self.teardown(trainer, pl_module, "fit")

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Write what a run needs to go on."""
        checkpoint.setdefault("callbacks", {})[self.state_key] = self._pace.state(trainer.optimizers, pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Everything is restored: put the optimizer's state in its places.

        Raises:
            InputError: The Trainer has what a cut cannot go with.
        """
        if self._pace.cuts and len(trainer.optimizers) != 1:
            fact = f"the module has {len(trainer.optimizers)} optimizers, and a cut goes with one"
            raise InputError(fact, "mask instead (Structured(cut=False)), or cut after training")
        averages = [
            name for one in trainer.callbacks for kind in type(one).__mro__ if (name := kind.__name__) in AVERAGES
        ]
        if self._pace.cuts and averages:
            fact = f"{averages[0]} holds an average of weights in their old shapes"
            raise InputError(fact, "leave it out, or mask instead (Structured(cut=False))")
        for optimizer, names in zip(trainer.optimizers, self._pace.names, strict=True) if self._pace.names else ():
            arrange_(optimizer, pl_module, names)
        self._pace.names = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """What the schedule wants before a step, which several batches may make.

        Raises:
            InputError, CheckError, CaptureError: As `surgery.Pruner`.
        """
        pace = self._pace
        if not pace.begun:
            pace.begin_(
                self._target(pl_module),
                total=trainer.estimated_stepping_batches,
                first=trainer.global_step // len(trainer.optimizers),
                item=lambda: batch,
                share=_share(trainer) if trainer.world_size > 1 else None,
            )
        # with several optimizers, Lightning counts the steps of each
        changes = pace.before(trainer.global_step // len(trainer.optimizers), trainer.optimizers[0])
        if trainer.world_size > 1 and any(change.plan is not None and change.resized for change in changes):
            _wrap_again_(trainer.strategy)
        for change in changes:
            say(f"pruning: {change}")
            for logger in trainer.loggers:
                logger.log_metrics(figures(change), step=trainer.global_step)

    def _target(self, pl_module: nn.Module) -> nn.Module:
        if self.module is None:
            return pl_module
        found: nn.Module | None = dict(pl_module.named_modules()).get(self.module)
        if found is None:
            names = ", ".join(name for name, _ in pl_module.named_children())
            fact = f"{type(pl_module).__name__} has no module {self.module!r}"
            raise InputError(fact, f"give module= the path of one, such as: {names}")
        return found

    def _take_up(self, pl_module: nn.Module, checkpoint: Mapping[str, Any]) -> None:
        """Make the module as it was when the checkpoint was written, before its weights are loaded."""
        state = _state_in(checkpoint, self.state_key)
        if not state:
            return
        if self._pace.pruner is None:
            self._pace.resume_(self._target(pl_module), state)
        elif not self._pace.fits(state):
            fact = "the checkpoint was written when the module had other masks or shapes than it has now"
            raise InputError(fact, "load it into a fresh module, with a Trainer that has a fresh PruningCallback")


def _state_in(checkpoint: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What the callback wrote into a checkpoint; empty where it did not."""
    found: Mapping[str, Any] = (checkpoint.get("callbacks") or {}).get(key) or {}
    return found


def _share(trainer: Any) -> Callable[[Callable[[], Any]], Any]:
    """What the first process alone does; all get what it returns, or raise."""

    def share(make: Callable[[], Any]) -> Any:
        told: tuple[Any, tuple[str, str] | None] = (None, None)
        failed: Exception | None = None
        if trainer.is_global_zero:
            try:
                told = (make(), None)
            except Exception as error:
                failed = error
                said = (error.fact, error.way_out) if isinstance(error, SurgeryError) else (str(error), "")
                told = (None, said)
        value, said_of = trainer.strategy.broadcast(told)
        if failed is not None:
            raise failed
        if said_of is not None:
            raise InputError(f"the first process failed: {said_of[0]}", said_of[1])
        return value

    return share


def _wrap_again_(strategy: Any) -> None:
    """Give DDP the parameters that there are now; the wrap before goes first, for it hooked into some of them."""
    strategy.model = strategy.lightning_module
    gc.collect()
    strategy.configure_ddp()
