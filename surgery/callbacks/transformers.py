"""A schedule in the Trainer of transformers."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import IterableDataset

from surgery.callbacks.order import arrange_
from surgery.callbacks.pacing import Pace, Paced, figures
from surgery.deciding.criteria import Loss
from surgery.errors import InputError, MissingExtraError
from surgery.exporting.staging import staged
from surgery.fitting.engine import LEFT
from surgery.inputs import Example
from surgery.schedules import Schedule
from surgery.sources.files import read_tensors
from surgery.sources.weights import load_checkpoint_

try:
    from accelerate.state import AcceleratorState
except ImportError as missing:
    raise MissingExtraError("accelerate", "train") from missing
try:
    from transformers import TrainerCallback
    from transformers.utils import logging
except ImportError as missing:
    raise MissingExtraError("transformers", "models") from missing

STATE = "surgery_pruning.pt"
"""The file in a checkpoint's directory that says how the net was masked and cut."""

SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")

_log = logging.get_logger("transformers.surgery")  # below theirs, for only that hierarchy has their handler


class PruningCallback(Paced, TrainerCallback):
    """Carries a schedule out while transformers' Trainer trains: masks, or cuts of the model and its optimizer.

        trainer = Trainer(model, args, train_dataset=data, callbacks=[PruningCallback(surgery.Gradual(0.8))])

    The Trainer's steps (`max_steps`, or `num_train_epochs` of batches over `gradient_accumulation_steps`) are divided
    among the rounds of the schedule; the learning rate is the Trainer's, over all of them. Sparsity, parameters and
    MACs go into `state.log_history`, and into the logs that follow a change for the callbacks that come after this one:
    with `report_to="none"`, put `TensorBoardCallback()` and the like behind it.

    The Trainer loads a checkpoint's weights before it asks any callback. To go on from a checkpoint:

        trainer = Trainer(fresh_model, args, ..., callbacks=[callback := PruningCallback(schedule)])
        callback.resume_(fresh_model, "out/checkpoint-500")
        trainer.train(resume_from_checkpoint="out/checkpoint-500")

    The same without `train` reloads what was saved: a config does not say the widths of a net that was cut.

    Args:
        schedule: When how much goes.
        example_inputs, example_kwargs: One call of the model; else they are taken from the first batch, without labels.
        data: Batches for an importance that looks at data, and for winning back what a cut costs.
        loss: As for `surgery.choose`; models of transformers have their own.

    Attributes:
        changes: What was done, in order.
        pruner: None until training begins.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        example_inputs: Example | None = None,
        example_kwargs: Mapping[str, Any] | None = None,
        data: Any = None,
        loss: Loss | None = None,
    ) -> None:
        self._given = (schedule, example_inputs, example_kwargs, data, loss)
        self._pace = Pace(*self._given)
        self._waiting: dict[str, float] = {}
        self._guards: list[Any] = []
        self._warned = False

    def resume_(self, model: nn.Module, checkpoint: str | os.PathLike[str]) -> nn.Module:
        """Make a fresh model as narrow and masked as it was when the Trainer wrote a checkpoint, with its weights.

        Args:
            model: As it was before training; written in place.
            checkpoint: The directory.

        Returns:
            The model.

        Raises:
            InputError: There is no state of this callback, or of another schedule; or the weights do not fit.
            PlanError: The model is not as it was at the start.
        """
        directory = Path(checkpoint)
        if not (directory / STATE).is_file():
            fact = f"{str(directory)!r} holds no {STATE}"
            raise InputError(fact, "give a checkpoint that a Trainer with this callback wrote")
        self._pace = Pace(*self._given)
        self._pace.resume_(model, read_tensors(directory / STATE))
        files = [directory / name for name in WEIGHTS if (directory / name).is_file()]
        if not files:
            raise InputError(f"{str(directory)!r} holds no weights in one file", "save the model unsharded")
        load_checkpoint_(model, files[0])
        return model

    def on_init_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Be there when a checkpoint's weights are loaded into the model."""
        if more.get("model") is not None:
            self._guards.append(more["model"].register_load_state_dict_pre_hook(refuse_other_shapes))

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Everything is prepared and restored.

        Raises:
            InputError: The Trainer runs in a way that does not go with the schedule, or in the middle of a run whose
                state was not taken up; or as `surgery.Pruner`.
        """
        while self._guards:
            self._guards.pop().remove()
        model, optimizer = more["model"], _bare(more["optimizer"])
        self._check(args)
        if self._pace.pruner is not None and self._pace.pruner.model is not model:
            self._pace = Pace(*self._given)
        if self._pace.pruner is None and state.global_step:
            fact = (
                f"the run goes on from step {state.global_step}, and the callback does not know what was pruned before"
            )
            raise InputError(fact, "call callback.resume_(model, checkpoint) before trainer.train")
        if not self._pace.begun:
            with plain(model):
                self._pace.begin_(
                    model,
                    total=state.max_steps,
                    first=state.global_step,
                    item=lambda: _first_samples(more["train_dataloader"]),
                )
        for names in self._pace.names:
            arrange_(optimizer, model, names)
        self._pace.names = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """What the schedule wants before an optimizer's step.

        Raises:
            InputError, CheckError, CaptureError: As `surgery.Pruner`.
        """
        with plain(more["model"]):
            changes = self._pace.before(state.global_step, _bare(more["optimizer"]))
        for change in changes:
            _log.info("pruning: %s", change)
            self._waiting = figures(change)
            state.log_history.append({**self._waiting, "epoch": state.epoch, "step": state.global_step})
        if any(change.plan is not None for change in changes) and hasattr(more["model"], "config") and not self._warned:
            self._warned = True
            _log.warning(
                "pruning: model.config still has the widths before the cut, so that from_pretrained does not load what "
                "save_pretrained writes now; load it with PruningCallback(schedule).resume_(fresh_model, checkpoint)"
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **more: Any) -> None:
        """Add what was changed since the last time."""
        if logs is not None:
            logs.update(self._waiting)
            self._waiting = {}

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Write what a run needs to go on beside the checkpoint's own files."""
        directory = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if not state.is_world_process_zero or not directory.is_dir() or self._pace.pruner is None:
            return
        with staged(directory / STATE, overwrite=True) as place:
            torch.save(self._pace.state([_bare(more["optimizer"])], more["model"]), place)

    def _check(self, args: Any) -> None:
        kind = AcceleratorState().distributed_type.value
        if kind in SHARDED:
            way_out = "prune under one process or DDP, then tune the result under it"
            raise InputError(f"{kind} keeps parameters in shapes of its own", way_out)
        if self._pace.cuts and (args.world_size > 1 or args.n_gpu > 1):
            fact = "the Trainer keeps its wrap around the model for the whole run, and a cut needs another one"
            raise InputError(fact, "mask instead (Structured(cut=False)), train in one process, or use surgery.fit")
        if args.load_best_model_at_end and not self._pace.one_change:
            fact = "load_best_model_at_end may load weights from before the last change of masks or shapes"
            raise InputError(fact, "switch it off, and load the checkpoint that you want with callback.resume_")


@contextmanager
def plain(model: nn.Module) -> Iterator[None]:
    """The model without what Accelerate wrote into it for mixed precision."""
    held = {name: vars(model).pop(name) for name in LEFT if name in vars(model)}
    try:
        yield
    finally:
        vars(model).update(held)


def refuse_other_shapes(model: nn.Module, state: Mapping[str, Any], prefix: str, *rest: Any) -> None:
    """Refuse a pruned checkpoint for a model that was not made ready for it, before a part of it is loaded.

    Raises:
        InputError: It holds masks that the model does not wear, or tensors of other shapes.
    """
    mine = model.state_dict()
    masks = [name for name in state if name.endswith("_mask") and f"{name[:-5]}_orig" in state and name not in mine]
    other = [
        name
        for name, value in state.items()
        if isinstance(value, Tensor) and name in mine and mine[name].shape != value.shape
    ]
    if masks or other:
        fact = f"the checkpoint was pruned ({(masks or other)[0]}), the model is not"
        raise InputError(
            fact, "call callback.resume_(model, checkpoint) before trainer.train(resume_from_checkpoint=...)"
        )


def _bare(optimizer: Any) -> Optimizer:
    """The optimizer inside Accelerate's."""
    found: Optimizer = getattr(optimizer, "optimizer", optimizer)
    return found


def _first_samples(loader: Any) -> Any:
    """Two samples of the loader's dataset in a batch, without the loader taking a step."""
    data = loader.dataset
    streamed = isinstance(data, IterableDataset) or not hasattr(data, "__getitem__")
    return loader.collate_fn([*itertools.islice(data, 2)] if streamed else [data[i] for i in range(min(2, len(data)))])
