"""`surgery.recover`: what a slim model lost is trained back, with a teacher or without, and the record says so."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch import nn

from surgery.checkpoints import describe, lineage, reopen
from surgery.deciding.criteria import Loss
from surgery.deciding.cuts import Cuts
from surgery.distilling import Distillation, told
from surgery.errors import InputError, MissingExtraError
from surgery.judging import Evaluate, evaluated
from surgery.results import Result
from surgery.tensors import named_tensors

if TYPE_CHECKING:
    from surgery.fitting import Fitted

PROOF_IS_OF = "the cut, before training"


@dataclass(frozen=True)
class Recovered(Result):
    """A slim model that was trained after the cut; plan and proof are those of the cut.

    Attributes:
        fitted: How it was trained, step by step.
    """

    fitted: Fitted = field(kw_only=True)

    @property
    def record(self) -> Mapping[str, Any]:
        """What is written down of the training, as plain data."""
        return self.training[-1]

    def __str__(self) -> str:
        record = self.record
        lines = [super().__str__(), f"trained after the cut (the proof is of {PROOF_IS_OF})"]
        if record["teacher"] is not None:
            lines.append(f"  teacher: {told(record['teacher'])}")
        if (values := record["evaluate"]) is not None:
            whole = "" if values["teacher"] is None else f" (teacher {values['teacher']:.4g})"
            lines.append(f"  evaluate: {values['before']:.4g} before, {values['after']:.4g} after{whole}")
        return "\n".join([*lines, str(self.fitted)])


def recover(
    result: Result | str | os.PathLike[str],
    data: Any,
    loss: Loss | None = None,
    *,
    model: nn.Module | Callable[[], nn.Module] | None = None,
    teacher: nn.Module | Distillation | None = None,
    evaluate: Evaluate | None = None,
    notes: Sequence[str] = (),
    **fitting: Any,
) -> Recovered:
    """Train a slim model back, in its new shapes: with its loss, with soft targets of a teacher, or with both.

    Args:
        result: What `shrink` or `prune` handed back, which is left as it is; or a directory that `save` wrote.
        data: A DataLoader, or a list of batches `(inputs, targets)`; a dict by the names of forward's parameters.
        loss: A function of (outputs, targets). Not needed with a teacher (whose soft targets then stand alone), nor
            where the model's output has a loss.
        model: Of a directory, a fresh instance of the model before it was shrunk, or a function that makes one, as
            `surgery.load` takes it.
        teacher: The dense model, or any other for the same task; a `surgery.Distillation` says how much it counts.
            Features that it names without a plan are matched by the plan of the cut (of a directory whose `source` is
            another slim one, by the plans of all rounds).
        evaluate: Called with the model before and after, with the teacher, and after each epoch; returns a number.
        notes: What else is to be told and written down.
        fitting: Everything else that `surgery.fit` takes: `epochs`, `lr`, `precision`, `patience`, `checkpoints`, ...

    Returns:
        The result with the trained model, and how it was trained; `surgery.save` writes it as it does the other.

    Raises:
        MissingExtraError: accelerate is not installed (the extra `train`).
        InputError: The directory, the data, the teacher or a setting cannot be used.
        CheckError: The loss is no longer finite.
    """
    if find_spec("accelerate") is None:
        raise MissingExtraError("accelerate", "train")
    from surgery.fitting import fit

    if fitting.get("schedule") is not None:
        raise InputError("recover was given a schedule: it trains what is cut already", "use fit, and cut as it trains")
    cut, plans = _opened(result, model)
    guide = _guided(teacher, plans)
    slim = copy.deepcopy(cut.model) if cut is result else cut.model
    before = None if evaluate is None else evaluated(evaluate, slim, "slim model")
    best = None if evaluate is None or guide is None else evaluated(evaluate, guide.teacher, "teacher")
    fitted = fit(slim, data, loss, teacher=guide, evaluate=evaluate, **fitting)
    after = None if evaluate is None else evaluated(evaluate, fitted.model, "trained model")
    record = {
        "epochs": len(fitted.epochs),
        "steps": len(fitted.losses),
        "loss": None if loss is None else getattr(loss, "__qualname__", type(loss).__qualname__),
        "loss_first_epoch": _finite(fitted.epochs[0].loss) if fitted.epochs else None,
        "loss_last_epoch": _finite(fitted.epochs[-1].loss) if fitted.epochs else None,
        "teacher": None if guide is None else guide.as_dict(),
        "evaluate": None if evaluate is None else {"teacher": best, "before": before, "after": after},
        "settings": {name: _plain(value) for name, value in sorted(fitting.items())},
        "stopped_early": fitted.stopped_early,
        "precision": fitted.precision,
        "proof_is_of": PROOF_IS_OF,
    }
    worse = _worse(before, after, fitting.get("higher_is_better", True))
    kept = {one.name: getattr(cut, one.name) for one in fields(Result)}
    trained = {"model": fitted.model, "training": (*cut.training, record), "notes": (*cut.notes, *notes, *worse)}
    return Recovered(**{**kept, **trained}, fitted=fitted)


def _opened(
    result: Result | str | os.PathLike[str], model: nn.Module | Callable[[], nn.Module] | None
) -> tuple[Result, tuple[Cuts, ...]]:
    """The result, and the plans that led to it, the oldest first."""
    if isinstance(result, Result):
        if model is not None:
            raise InputError("model was given beside a result, which has its own", "leave model= out")
        return result, result.plans
    if not isinstance(result, str | os.PathLike):
        raise InputError(f"a {type(result).__name__} was given", "pass what shrink handed back, or a saved directory")
    saved = describe(os.fspath(result))
    return reopen(saved.directory, model), tuple(plan for one in lineage(saved) for plan in one.plans)


def _guided(teacher: nn.Module | Distillation | None, plans: Sequence[Cuts]) -> Distillation | None:
    """The distillation, whose features are matched by the plans that cut the student from this very teacher."""
    if teacher is None or (isinstance(teacher, Distillation) and (teacher.plans or not teacher.features)):
        return teacher
    guide = teacher if isinstance(teacher, Distillation) else Distillation(teacher)
    if not guide.features:
        return guide
    shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(guide.teacher).items()}
    fits = [all(shapes.get(name) == tuple(shape) for name, shape in plan.shapes.items()) for plan in plans]
    return guide.following(plans[fits.index(True) if True in fits else 0 :])


def _worse(before: float | None, after: float | None, higher_is_better: bool) -> tuple[str, ...]:
    if before is None or after is None or (after >= before if higher_is_better else after <= before):
        return ()
    return (f"evaluate got worse by training: {before:.4g} before, {after:.4g} after",)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """A setting as JSON has it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return os.fspath(value) if isinstance(value, os.PathLike) else getattr(value, "__qualname__", type(value).__name__)
