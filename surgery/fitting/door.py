"""The door: train a model, or go on training it, on however many processes were launched."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer

from surgery.deciding.criteria import Loss
from surgery.distilling import Distillation
from surgery.errors import InputError
from surgery.fitting import chance
from surgery.fitting.engine import Engine, accelerating, explained
from surgery.fitting.feeding import Feed
from surgery.fitting.loop import Loop, Place, Record
from surgery.fitting.ranks import Ranks
from surgery.fitting.rates import MakeOptimizer, optimizer_for
from surgery.fitting.result import Fitted
from surgery.fitting.resuming import Resuming
from surgery.fitting.settings import LrSchedule, Settings, told, written
from surgery.fitting.sharded import Sharded, refuse
from surgery.inputs import Example, Inputs
from surgery.judging import Evaluate
from surgery.schedules import Pruner, Structured, keep_masks
from surgery.schedules.schedule import Schedule
from surgery.schedules.wearing import products, share_masked


def fit(
    model: nn.Module,
    data: Any,
    loss: Loss | None = None,
    *,
    epochs: int = 1,
    optimizer: Optimizer | MakeOptimizer | None = None,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    lr_schedule: LrSchedule = "cosine",
    schedule: Schedule | None = None,
    teacher: nn.Module | Distillation | None = None,
    example_inputs: Example | None = None,
    example_kwargs: Mapping[str, Any] | None = None,
    evaluate: Evaluate | None = None,
    higher_is_better: bool = True,
    patience: int | None = None,
    precision: str | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    seed: int = 0,
    checkpoints: str | Path | None = None,
    checkpoint_every: int | None = None,
    resume: bool = False,
    accelerator: Any = None,
) -> Fitted:
    """Train a model in place, on one process or on all that `accelerate launch` or `torchrun` started.

    It is made for what comes after pruning (tuning, schedules that prune while the net trains, distillation) and trains
    any model. Accelerate moves and wraps it; afterwards it is as it was: unwrapped, on its device, its modules in the
    modes in which they were, and so are torch's, NumPy's and Python's random numbers.

    A batch of the data is the batch of one step, whatever the number of processes: each takes its part of it, weighted
    by its samples, so that two processes compute what one does (but for BatchNorm's statistics, which are of each part,
    and random numbers). The loss is taken for a mean over samples.

    Args:
        model: Trained in place, in training mode (modules that are in eval mode inside a model in training mode, such
            as a frozen BatchNorm, stay so). Parameters that require no gradient stay.
        data: Batches of `(inputs, targets)`, `(x1, x2, ..., targets)` or dicts by the names of forward's parameters: a
            DataLoader, a list, or a function that returns them anew for each epoch.
        loss: A function of (outputs, targets), such as `torch.nn.functional.cross_entropy`; None where the model's
            output has a `loss`, or where a teacher's soft targets are all.
        epochs: How often all of the data is gone through; with a schedule of several rounds, in each.
        optimizer: None for AdamW; a function of the trainable parameters that returns an optimizer; or an optimizer
            that was made for this model.
        lr, weight_decay: Of AdamW; an optimizer of your own has its own.
        lr_schedule: `"constant"`; `"cosine"`, down to 0 at the end of the round; `"onecycle"`, up to the optimizer's
            rate and down again; or a function of (optimizer, steps of a round) that returns one of
            `torch.optim.lr_scheduler`.
        schedule: What is pruned when, such as `surgery.Gradual(0.5, how=surgery.Structured())`.
        teacher: A model whose soft targets are learnt from as well (`surgery.Distillation` with its defaults), or a
            `Distillation`.
        example_inputs, example_kwargs: One call of the model; read off the first batch where they are not given.
        evaluate: Called with the model in eval mode after every epoch, on every process; the first one's answer counts.
        higher_is_better: Whether more of it is better.
        patience: Stop a round after so many epochs that were no better than the best, and give the model the best
            weights since it was last pruned.
        precision: `"float32"`, `"bf16"` or `"fp16"` in forward and backward; None: as the launcher says, else float32.
        clip_norm: The largest norm that the gradients of a step may have.
        accumulate: How many batches make one step; weighted by their samples, as one large batch.
        seed: Of the data's order, dropout, and all else that is drawn at random.
        checkpoints: A directory for checkpoints: after every epoch the newest is kept, whole or not at all.
        checkpoint_every: Write them every so many steps instead.
        resume: Go on from the newest of them where there is one. On a CPU the weights at the end are bit for bit those
            of a run that was not interrupted.
        accelerator: An `accelerate.Accelerator` of your own.

    Returns:
        The losses, the epochs, the changes, and the model.

    Raises:
        InputError: An argument, the data, the model, `loss` or `evaluate` cannot be used; there is a checkpoint
            already, or it is of a run with other settings; another process failed.
        CheckError: The loss is NaN or infinite, or the proof of a cut failed.
        MissingExtraError: accelerate is not installed (the extra `train`).
    """
    settings = Settings(
        epochs, lr, weight_decay, lr_schedule, higher_is_better, patience, precision, clip_norm, accumulate, seed,
        None if checkpoints is None else Path(checkpoints), checkpoint_every, resume,
    )  # fmt: skip
    settings.check(evaluate is not None)
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is a {type(model).__name__}", "pass an nn.Module")
    given = None if example_inputs is None and not example_kwargs else _given(example_inputs, example_kwargs)
    distillation = _distillation(teacher)
    with accelerating(accelerator, precision) as accelerated, chance.kept_apart():
        refuse(accelerated)
        ranks = Ranks(accelerated)
        settings = _as_launched(settings, accelerated)
        try:
            made = ranks.together(lambda: optimizer_for(optimizer, model, lr, weight_decay))
            feed = ranks.together(lambda: Feed(data, model, ranks, seed=settings.seed, accumulate=settings.accumulate))
            example = given or ranks.together(lambda: feed.example(loss is None))
            kind = Sharded if accelerated.is_fsdp2 else Engine
            engine = kind(accelerated, model, made, own=accelerator is None)
            return _trained(
                engine, feed, example, ranks, settings, schedule, distillation, loss=loss, evaluate=evaluate, data=data
            )
        except BaseException as error:
            meant = explained(error)
            ranks.leave(meant or error)
            if meant is not None:
                raise meant from error
            raise


def _trained(
    engine: Engine,
    feed: Feed,
    example: Inputs,
    ranks: Ranks,
    settings: Settings,
    schedule: Schedule | None,
    teacher: Distillation | None,
    *,
    loss: Loss | None,
    evaluate: Evaluate | None,
    data: Any,
) -> Fitted:
    """The same with everything at hand."""
    begun_with = settings.begun_with() | {
        "optimizer": told(type(engine.optimizer)),
        "optimizer's settings": _plain_defaults(engine.optimizer),
        "schedule": None if schedule is None else written(schedule),
        "teacher": None if teacher is None else teacher.as_dict(),
        "steps of an epoch": feed.steps,
        "batches of an epoch": feed.batches,
        "processes": ranks.count,
        "precision": engine.accelerator.mixed_precision,
        "model": type(engine.model).__name__,
        "parameters": _shapes(engine.model),
    }
    try:
        ranks.together(engine.check)
        resuming = Resuming(settings, ranks, begun_with)
        found = resuming.found()
        engine.place_()
        at = example.to(engine.accelerator.device)
        pruner, whole = None, example.to(engine.at)
        if schedule is not None:
            structured = isinstance(getattr(schedule, "how", None), Structured)
            pruner = ranks.together(
                lambda: Pruner(
                    schedule,
                    engine.model,
                    steps=settings.epochs * feed.steps,
                    example_inputs=whole.args,
                    example_kwargs=whole.kwargs,
                    data=data if structured else None,
                    loss=loss,
                    share=ranks.by_main,
                )
            )
        record = Record(Place(), [], [], [])
        loop = Loop(
            engine, feed, at, ranks, settings, loss=loss, evaluate=evaluate, teacher=teacher, pruner=pruner,
            record=record, save=lambda: resuming.save(loop),
        )  # fmt: skip
        if found is None:
            loop.run()
        else:
            resuming.reshape_(loop, found)
            loop.run(lambda: resuming.load_(loop, found))
            if loop.done and not resuming.loaded:
                resuming.load_(loop, found)
        engine.agree_()
        loop.reset_rates_()
    except BaseException:
        engine.close_(failed=True)
        raise
    engine.close_(failed=False)
    return Fitted(
        model=engine.model,
        losses=tuple(record.losses),
        epochs=tuple(record.epochs),
        changes=tuple(record.changes),
        result=None if pruner is None else pruner.result(),
        best=record.best,
        stopped_early=record.stopped_early,
        resumed_at=resuming.resumed_at,
        steps=feed.steps,
        processes=ranks.count,
        device=str(engine.accelerator.device),
        precision=_precision(engine),
        notes=_notes(engine.model),
    )


def _notes(model: nn.Module) -> tuple[str, ...]:
    """What masks that are worn are worth."""
    if not keep_masks(model):
        return ()
    held = f"masks hold {share_masked(products(model)):.1%} of the weights at zero"
    return (f"{held}: no faster, smaller only when compressed; surgery.shrink removes what is whole channels",)


def _given(example_inputs: Example | None, example_kwargs: Mapping[str, Any] | None) -> Inputs:
    return Inputs.of(() if example_inputs is None else example_inputs, example_kwargs)


def _distillation(teacher: nn.Module | Distillation | None) -> Distillation | None:
    """The teacher as it is asked; the user's own object stays as it is when the student is cut."""
    if teacher is None or isinstance(teacher, Distillation):
        return copy.copy(teacher)
    return Distillation(teacher)


def _as_launched(settings: Settings, accelerator: Any) -> Settings:
    """Batches a step as an Accelerator of the user's own says, where nothing else was said."""
    if settings.accumulate == 1 and accelerator.gradient_accumulation_steps > 1:
        return replace(settings, accumulate=accelerator.gradient_accumulation_steps)
    return settings


def _plain_defaults(optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's settings in kinds that JSON has."""
    kept = (bool, int, float, str, type(None))
    return {name: value if isinstance(value, kept) else written(value) for name, value in optimizer.defaults.items()}


def _shapes(model: nn.Module) -> str:
    """How many parameters there are, and a number that tells their names and shapes from others."""
    shapes = [(name, list(parameter.shape)) for name, parameter in model.named_parameters()]
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{count:,} ({hashlib.sha256(repr(shapes).encode()).hexdigest()[:8]})"


def _precision(engine: Engine) -> str:
    """In which numbers the net was run: the mixed ones, or those of its weights."""
    mixed: str = engine.accelerator.mixed_precision
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in engine.model.parameters() if p.requires_grad})
    return mixed if mixed != "no" else " and ".join(dtypes)
