"""`surgery.shrink`: remove what is dead, exactly, and prove it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surgery.cutting.cut import cut_
from surgery.cutting.depth import Shortened, shortened
from surgery.cutting.depth import idle as idle_modules
from surgery.cutting.fallback import operate_anyhow
from surgery.cutting.operate import Kept, Operation
from surgery.cutting.twins import float64_copy, sharing_copy
from surgery.deciding.study import Study
from surgery.deciding.widths import Widths
from surgery.errors import CheckError, InputError
from surgery.inputs import Example, Inputs
from surgery.layout import Bools, Ids
from surgery.masks import (
    apply_keep_masks_,
    bake,
    bake_,
    carry_hooks_,
    check_finite,
    count_subnormals,
    find_coats,
    flush_subnormals_,
)
from surgery.plans import Plan
from surgery.progress import stage
from surgery.proof.cost import cost, size_bytes
from surgery.proof.prove import FLOAT64_LIMIT_BYTES, Proof
from surgery.proof.prove import prove as compare
from surgery.results import Result
from surgery.sources.configs import Configured
from surgery.sparsities import scattered_note
from surgery.tensors import sha256_of
from surgery.uniform import uniform_widths


def shrink(
    model: nn.Module,
    example_inputs: Example,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    keep_masks: Mapping[str, Tensor] | None = None,
    tolerance: float = 0.0,
    flush_subnormals: bool = False,
    round_to: int = 1,
    uniform: bool = False,
    inplace: bool = False,
    prove: bool = True,
    keep_class: bool = False,
    depth: bool = False,
) -> Result:
    """Remove every channel that is dead, fold what constants still add, and prove that the function is the same.

    Args:
        model: A module with zeros in it, in any of the masks' coats. It is not modified unless `inplace`.
        example_inputs: A tensor, or a tuple of the positional inputs.
        example_kwargs: Keyword inputs.
        keep_masks: True stays; by parameter name (full shape, or one entry per row) or module name.
        tolerance: Weights up to this magnitude are set to zero first. That changes the function: the proof is then
            against the model with those values zeroed, and the distance to the original is reported.
        flush_subnormals: Set subnormal weights to zero first (they make kernels very slow).
        round_to: Keep dead channels back until each group's width is a multiple of this; exact, and often faster.
        uniform: Keep dead channels back until the same part of every layer is as wide, and, of a model of transformers,
            until its config can say all widths: it is then saved as a plain directory, which `from_pretrained` loads.
        inplace: Cut the given model itself.
        prove: Compare masked and slim on fresh inputs, in float64 and in the model's own precision.
        keep_class: Leave the model's class and its code as they are, whatever they cannot run without. Otherwise, where
            code insists on sizes that could shrink, the new ones are written into it for this model; where that will
            not do, its captured graph is handed back: a module with the same tensors and names.

    Returns:
        The slim model with its plan, proof and costs. With nothing dead, a copy of the model, and the reason.

    Raises:
        CaptureError: The model refused the inputs or cannot be captured.
        InputError: NaN or infinite weights, no parameters, unusable masks or options.
        CheckError: The proof fails even with nothing removed.
    """
    inputs = Inputs.of(example_inputs, example_kwargs)
    _check_options(tolerance, round_to)
    check_finite(model)
    with stage("reading masks"):
        masked, notes = _masked(model, keep_masks, tolerance, flush_subnormals, inplace, inputs)
    with stage("analysing"):
        study = Study.of(masked, inputs)
    with stage("looking for modules that do nothing"):
        short = shortened(study) if depth else Shortened.of(study)
        notes += [f"{path} does nothing, but stays: {why}" for path, why in short.refused] if depth else _idle(study)
    study = short.study
    widths = Widths(round_to)
    if uniform:
        with stage("looking for uniform widths"):
            widths = uniform_widths(
                study.model,
                inputs,
                round_to,
                lambda asked: operate_anyhow(study, Plan, widths=asked, keep_class=keep_class),
                plain_too=not short.bypasses,
            )
    result = carried_out(short, prove=prove, widths=widths, notes=notes, inplace=inplace, keep_class=keep_class)
    if not inplace:
        carry_hooks_(model, result.model)
    return result


def carried_out(
    short: Shortened,
    *,
    prove: bool,
    widths: Widths,
    notes: Sequence[str] = (),
    allowed: Bools | None = None,
    columns: Bools | None = None,
    inplace: bool = False,
    keep_class: bool = False,
) -> Result:
    """Cut what is dead in a study's model and prove it; offending groups are put back and named.

    The model itself is cut only at the end, and only with `inplace`.
    """
    study, whole = short.study, short.before.model
    kept: Kept = []
    said = list(notes)
    while True:
        with stage("cutting"):
            done = operate_anyhow(
                study, Plan, allowed=allowed, columns=columns, widths=widths, kept=kept, keep_class=keep_class
            )
        proof = None
        if prove:
            with stage("proving"):
                proof = _proof(short, done)
            if not proof.passed and short.bypasses and not _proof(short, Operation.nothing(study, Plan)).passed:
                said.append(f"{len(short.bypasses)} modules that seemed to do nothing were put back: {proof.failure}")
                short = Shortened.of(short.before)
                study = short.study
                continue
            if not proof.passed:
                if done.cuts.empty:
                    raise CheckError(
                        f"the model disagrees with its own copy: {proof.failure}",
                        "the model is not a function of its inputs in eval mode; nothing was changed",
                    )
                if done.cuts.graph is not None:
                    said.append(f"its captured graph was not handed back, for {proof.failure}")
                    keep_class = True
                    continue
                with stage("finding the group that disagrees"):
                    name = _put_back(short, done, kept, widths, allowed, keep_class)
                said.append(f"{name} was put back: without it the proof passes, with it {proof.failure}")
                continue
        before = cost(whole, study.inputs)
        with stage("hashing"):
            hashed = sha256_of(whole)
        slim = _cut_in_place(short, done) if inplace else done.slim
        after = cost(slim, study.inputs)
        return Result(
            model=slim,
            plan=short.told(done.cuts),
            proof=proof,
            params_before=before.params,
            params_after=after.params,
            macs_before=before.macs,
            macs_after=after.macs,
            notes=(*said, *scattered_note(slim)),
            inputs=study.inputs,
            configured=Configured.of(whole),
            source_sha256=hashed,
        )


def _cut_in_place(short: Shortened, done: Operation[Plan]) -> nn.Module:
    short.study.forget()
    # what is cut is the graph, or the user's own model
    model = done.model if done.cuts.graph is not None else short.shorten_(short.before.model)
    return model if done.cuts.empty else cut_(done.cuts.mask_(model), done.cuts)


def _idle(study: Study) -> list[str]:
    """What is said of modules that do nothing, where nobody asked for them to go."""
    paths = idle_modules(study).paths
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    said = f"nothing would be missed of {', '.join(paths[:3])}{more}: depth=True (--depth) removes such modules whole"
    return [said] if paths else []


def _check_options(tolerance: float, round_to: int) -> None:
    if not tolerance >= 0:
        raise InputError(f"tolerance is {tolerance}", "give an absolute magnitude of at least 0")
    if not isinstance(round_to, int) or round_to < 1:
        raise InputError(f"round_to is {round_to}", "give a whole number of channels, at least 1")


def _masked(
    model: nn.Module,
    keep_masks: Mapping[str, Tensor] | None,
    tolerance: float,
    flush_subnormals: bool,
    inplace: bool,
    inputs: Inputs,
) -> tuple[nn.Module, list[str]]:
    """The model with plain zeros, and what was found on the way."""
    coats = find_coats(model)
    if inplace:
        bake_(model)
    masked = model if inplace else bake(model)
    notes = [f"baked: {coats}"] if coats else []
    if keep_masks:
        apply_keep_masks_(masked, keep_masks)
    subnormal = count_subnormals(masked)
    if subnormal and flush_subnormals:
        flush_subnormals_(masked)
        notes.append(f"{sum(subnormal.values())} subnormal weights were set to zero")
    elif subnormal:
        notes.append(
            f"{sum(subnormal.values())} subnormal weights ({', '.join(list(subnormal)[:3])}) slow kernels down and "
            "are not zeros; flush_subnormals=True sets them to zero"
        )
    if tolerance > 0:
        notes.append(_flattened(masked, tolerance, inputs))
    return masked, notes


def _flattened(masked: nn.Module, tolerance: float, inputs: Inputs) -> str:
    """Zero what is within the tolerance; say how much, and how far that moves the outputs."""
    original = copy.deepcopy(masked)
    count = 0
    with torch.no_grad():
        for name, parameter in masked.named_parameters():
            if name.rpartition(".")[2].startswith("weight") or parameter.dim() > 1:
                small = (parameter.abs() <= tolerance) & (parameter != 0)
                count += int(small.sum())
                parameter.masked_fill_(small, 0)
    moved = compare(original, masked, inputs)
    distance = f"{moved.max_rel_error:.1e}" if moved.max_rel_error is not None else "unknown"
    return (
        f"tolerance {tolerance:g} set {count} weights to zero; the outputs moved by {distance} of their spread. "
        "The proof is against the model with those weights zeroed"
    )


def _proof(short: Shortened, done: Operation[Plan]) -> Proof:
    study, masked = short.study, short.before.model
    if size_bytes(masked) * 8 // max(torch.finfo(study.dtype).bits // 8, 1) > FLOAT64_LIMIT_BYTES:
        return compare(masked, done.slim, study.inputs)
    wide = float64_copy(masked)
    left = short.shorten_(sharing_copy(wide)) if short.bypasses else wide
    return compare(masked, done.slim, study.inputs, masked64=wide, slim64=done.of(left))


def _put_back(
    short: Shortened, done: Operation[Plan], kept: Kept, widths: Widths, allowed: Bools | None, keep_class: bool
) -> str:
    """Find by bisection a group without which fewer errors are left; keep its channels, and name it."""
    study, coupling = short.study, short.study.coupling
    gone = np.flatnonzero(~done.alive & ~coupling.virtual)
    suspects = np.unique(coupling.group_of[gone])

    def passes(cut: Ids) -> bool:
        may = np.isin(coupling.group_of, cut) & ~done.alive
        both = may if allowed is None else may & allowed
        trial = operate_anyhow(study, Plan, allowed=both, widths=widths, kept=kept, keep_class=keep_class)
        return _proof(short, trial).passed

    low, high = 0, suspects.size  # suspects[:low] passes, suspects[:high] fails
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passes(suspects[:middle]) else (low, middle)
    offender = suspects[high - 1]
    channels = gone[coupling.group_of[gone] == offender]
    axes = [str(axis) for axis in coupling.axes.values() if np.isin(coupling.channel_of[axis.ids], channels).any()]
    name = axes[0] if axes else f"group {offender}"
    kept.append((channels, "put back: the proof failed with it removed"))
    return name
