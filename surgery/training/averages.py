"""Averaged copies of a model (EMA, SWA) are cut by the model's plan; their values, and constants, are their own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from surgery.caches import forget_
from surgery.cutting.cut import cut_
from surgery.cutting.twins import sharing_copy
from surgery.deciding.build import build, zeros_of
from surgery.deciding.cuts import zero_
from surgery.deciding.dead import decide
from surgery.deciding.parts import Fold, Zeros
from surgery.deciding.study import Study
from surgery.errors import CheckError, InputError, PlanError
from surgery.inputs import Example, Inputs
from surgery.layout import Bools
from surgery.masks import bake, bake_, find_coats, merge_state_dict
from surgery.plans import Plan
from surgery.progress import stage
from surgery.tensors import named_tensors
from surgery.training.tensors import TensorCuts

_log = logging.getLogger("surgery")

SAME_ZEROS = "zero in the copy what is zero in the masked model, or make the copy anew from the slim model"


def cut_ema_(
    ema: nn.Module, plan: Plan, example_inputs: Example | None = None, example_kwargs: Mapping[str, Any] | None = None
) -> nn.Module:
    """Cut an averaged copy of a model by the model's plan, in place, so that averaging goes on with the slim model.

    A copy that lags behind has small values where the masked model has zeros. So it is masked first: what comes out
    computes what the copy computes with zeros in everything that the plan removes. Where the plan folds constants
    (a bias, a BatchNorm shift behind a ReLU), those of the copy are others: they are found and folded anew, which takes
    `example_inputs`. There biases and shifts of what goes stay, and what reads it is zero where it would vary, or where
    the model folded nothing.

    Args:
        ema: `torch.optim.swa_utils.AveragedModel`, timm's `ModelEmaV3`, any module that holds one copy of the model,
            or the copy itself (a deep copy, say).
        plan: What was cut from the model that it follows.
        example_inputs: With inputs the result is proven against the masked copy.
        example_kwargs: Keyword inputs.

    Returns:
        The module given; where the plan is for a captured graph and `ema` is the copy itself, the graph.

    Raises:
        PlanError: No copy of the plan's model; or constants are folded that are not the copy's, without example inputs,
            or cannot be folded as the model's were. Nothing is changed then.
        CheckError: The proof failed. Nothing is changed.
    """
    holder, name, model = _copy_in(ema, plan)
    inputs = None if example_inputs is None else Inputs.of(example_inputs, example_kwargs)
    masked = bake(model)
    with stage("cutting the average"):
        if plan.folds or plan.carries:
            zeros, own = _folded_anew(masked, plan, inputs)
        else:
            zeros, own = _everything(plan), plan
            _zero_(masked, zeros)
        if inputs is None:
            _log.warning("the slim average was not proven: cut_ema_ was given no example_inputs")
        else:
            _proven(masked, own, inputs)
        bake_(model)
        _zero_(model, zeros)
        slim = cut_(own.as_cut(model), own)
    if holder is None:
        return slim
    setattr(holder, name, slim)
    return ema


def cut_ema_state(state_dict: Mapping[str, Any], plan: Plan, *, prefix: str = "") -> dict[str, Any]:
    """Cut a bare state_dict of averaged weights by the plan of the model; what is not the model's passes through.

    Args:
        state_dict: The weights, in any coat that a state_dict can be merged from; it is left as it is.
        plan: What was cut from the model.
        prefix: Before the model's names, as `"module."` in that of an AveragedModel.

    Raises:
        PlanError: The plan folds constants (those of the average are others), or a tensor has another shape.
        InputError: None of the tensors that the plan cuts is there.
    """
    if plan.folds or plan.carries:
        raise PlanError(
            "the plan folds constants, and those of averaged weights are others",
            "load the weights into a copy of the masked model and cut that: cut_ema_(copy, plan, example_inputs)",
        )
    cuts = TensorCuts(plan)
    state = merge_state_dict(state_dict)
    found = {key: key.removeprefix(prefix) for key in state if key.startswith(prefix)}
    changing = {key: name for key, name in found.items() if cuts.changes(name)}
    gone = {key for key, name in found.items() if any(name.startswith(f"{path}.") for path in cuts.bypassed)}
    if not changing and not gone and not plan.empty:
        name = next(name for name in (*cuts.axes, *cuts.gone))
        raise InputError(f"the state_dict has no {prefix + name!r}", "name what stands before its names (prefix=)")
    for key, name in changing.items():
        if tuple(state[key].shape) != cuts.before(name):
            raise PlanError(
                f"{key} is {list(state[key].shape)}, the plan was made for {list(cuts.before(name) or ())}",
                "cut the weights once, and by the plan of their model",
            )
    left = {key: value for key, value in state.items() if key not in gone}
    return {key: cuts.average(changing[key], value) if key in changing else value for key, value in left.items()}


def _copy_in(ema: nn.Module, plan: Plan) -> tuple[nn.Module | None, str, nn.Module]:
    """`(holder, attribute, copy)`: the copy of the plan's model; the holder is None where `ema` is the copy."""
    refusal = _misfit(ema, plan)
    if refusal is None:
        return None, "", ema
    found = [(name, child) for name, child in ema.named_children() if _misfit(child, plan) is None]
    if len(found) > 1:
        names = " and ".join(name for name, _ in found)
        raise InputError(f"{type(ema).__name__} holds several copies: {names}", "give the averaged one itself")
    if not found:
        inside = next((child for _, child in ema.named_children()), None)
        nearer = None if inside is None or "has no" not in refusal.fact else _misfit(inside, plan)
        raise nearer if nearer is not None and "has no" not in nearer.fact else refusal
    return ema, *found[0]


def _misfit(model: nn.Module, plan: Plan) -> PlanError | None:
    try:
        plan.tensors_of(bake(model) if find_coats(model) else model)
    except PlanError as error:
        return error
    return None


def _everything(plan: Plan) -> tuple[Zeros, ...]:
    """Everything that the plan removes."""
    return tuple(
        Zeros(axis.name, axis.dim, tuple(np.setdiff1d(np.arange(axis.size), axis.keep).tolist()), axis.conv_groups)
        for axis in plan.axes
        if axis.removed
    )


def _zero_(model: nn.Module, zeros: tuple[Zeros, ...]) -> None:
    """Zero positions of parameters; buffers (statistics, tables) stay."""
    tensors = named_tensors(model)
    for one in zeros:
        if isinstance(tensors[one.name], nn.Parameter):
            zero_(tensors[one.name].data, one)
    forget_(model)


def _folded_anew(masked: nn.Module, plan: Plan, inputs: Inputs | None) -> tuple[tuple[Zeros, ...], Plan]:
    """What masks a copy so that all that the plan removes is dead, and the same plan with the copy's own constants.

    The copy given is masked.
    """
    _zero_(masked, plan.zeros)
    if inputs is None:
        try:
            plan.fits(masked)
        except PlanError as error:
            raise PlanError(error.fact, "give example_inputs: the copy's own constants are folded then") from None
        return plan.zeros, plan
    study = Study.of(plan.as_cut(sharing_copy(masked) if plan.bypasses else masked), inputs)
    removed = _removed(plan, study)
    zeros = _unheard(plan, study, removed)
    _zero_(masked, zeros)
    study = study.with_weights_of(study.model)
    decision = decide(study.case, allowed=removed)
    missed = removed & decision.alive
    if missed.any():
        coupling = study.coupling
        where = ((axis, missed[coupling.channel_of[axis.ids]].ravel()) for axis in coupling.axes.values())
        axis, here = next((axis, here) for axis, here in where if here.any())
        why = decision.reasons[decision.reason[np.flatnonzero(missed)[0]]]
        raise PlanError(f"{axis.name}[{here.argmax()}] cannot go from the copy: {why}", SAME_ZEROS)
    own = build(Plan, study.program, study.coupling, study.known, study.readings, decision)
    folded = {fold.bias for fold in own.folds}
    idle = tuple(Fold(fold.bias, (0.0,) * len(fold.delta)) for fold in plan.folds if fold.bias not in folded)
    own = replace(
        own,
        folds=(*own.folds, *idle),
        edits=plan.edits,
        rewrites=plan.rewrites,
        graph=plan.graph,
        bypasses=plan.bypasses,
        renumbered=plan.renumbered,
    )
    return (*plan.zeros, *zeros), own


def _unheard(plan: Plan, study: Study, removed: Bools) -> tuple[Zeros, ...]:
    """Where a copy must not read what goes: where the model took up no constants, and all that varies in it."""
    biases, folding = {fold.bias for fold in plan.folds}, set()
    varies = np.zeros_like(removed)
    for reading in study.readings:
        source = study.program.source(reading.use.weight) if reading.use.weight is not None else None
        if source is not None and reading.slot in biases and not reading.use.borders:
            folding.add(source[0])
        live = removed[reading.channels] & ~reading.constant & reading.read_by(~removed)
        varies[reading.channels[live]] = True
    carried: dict[str, set[int]] = {}
    for carry in plan.carries:
        carried.setdefault(carry.weight, set()).update(carry.take)
    nothing = np.zeros_like(removed)
    every = zeros_of(study.program, study.coupling, nothing, removed)
    still = zeros_of(study.program, study.coupling, nothing, varies)
    idle = [
        replace(one, positions=tuple(at for at in one.positions if at not in carried.get(one.name, ())))
        for one in every
        if one.name not in folding
    ]
    return (*idle, *still)


def _removed(plan: Plan, study: Study) -> Bools:
    """The plan's removed channels, `[n_channels]`."""
    removed = np.zeros(study.coupling.n_channels, bool)
    for axis in plan.axes:
        channels = study.coupling.channel_of[study.coupling.axes[axis.name, axis.dim].ids].ravel()
        removed[np.delete(channels, list(axis.keep))] = True
    return removed


def _proven(masked: nn.Module, own: Plan, inputs: Inputs) -> None:
    try:
        own.apply(masked, inputs.args, inputs.kwargs)
    except CheckError as error:
        raise CheckError(f"of the averaged copy: {error.fact}", SAME_ZEROS) from error
