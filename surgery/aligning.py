"""`surgery.align`: from masks that disagree about the channels of a group to masks that agree, so that they can go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surgery.choosing import exact_plan
from surgery.deciding.build import sides_of
from surgery.deciding.dead import Decision, decide
from surgery.deciding.importance import importance_scores
from surgery.deciding.parts import Zeros
from surgery.deciding.pick import Floats, lowest
from surgery.deciding.stranded import Masks, masks_of
from surgery.deciding.study import Study
from surgery.deciding.widths import Widths
from surgery.errors import InputError
from surgery.inputs import Example, Inputs
from surgery.layout import Bools, Ids
from surgery.masks import apply_keep_masks_, bake, check_finite
from surgery.pieces import empty
from surgery.plans import Plan
from surgery.progress import stage

AGREEMENTS = ("any", "average")
"""When a channel goes: any of its producers zeroed it; or it is among the lowest, so many as were zeroed on average."""

_log = logging.getLogger("surgery")


def align(
    model: nn.Module,
    example_inputs: Example,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    keep_masks: Mapping[str, Tensor] | None = None,
    agreement: str = "average",
    round_to: int = 1,
) -> Plan:
    """Make masks agree within every group of channels, such that what is zeroed can be cut exactly.

    Masks made layer by layer disagree where several layers write the same channels (a residual stream): those zeros are
    stranded. Aligning them zeroes other weights and so changes the function; a log line says by how many channels.
    Nothing is changed here: `plan.mask(model)` is the aligned model to fine-tune, `plan.apply(model)` cuts it. Groups
    whose masks agree are left as `shrink` would leave them, and what is dead stays dead (as zeros that are kept, where
    conv groups ask for as many channels each or a width is rounded).

    Args:
        model: A module with zeros in it, in any of the masks' coats.
        example_inputs: A tensor, or a tuple of the positional inputs.
        example_kwargs: Keyword inputs.
        keep_masks: True stays; by parameter or module name. Whole rows that they zero become part of the plan; give
            the plan a model that wears all other masks already.
        agreement: `"average"`: as many channels of a group go as its producers zeroed on average, rounded down, those
            with the lowest norms over all producers first (each producer's norms over their root mean square).
            `"any"`: a channel goes if any producer of it zeroed it; it frees most, and changes the function most.
        round_to: Widths that stay are multiples of this.

    Raises:
        InputError: No channel is zeroed, an unknown agreement, NaN weights, unusable masks.
        CaptureError: The model refused the inputs or cannot be captured.
    """
    inputs = Inputs.of(example_inputs, example_kwargs)
    done = aligned(model, inputs, keep_masks=keep_masks, agreement=agreement, round_to=round_to)
    for note in done.notes:
        _log.warning(note)
    return done.plan


@dataclass(frozen=True)
class Aligned:
    """A plan that makes masks agree, and what it costs.

    Attributes:
        plan: The plan.
        agreement: `"any"` or `"average"`.
        more: How many channels it zeroes in all their producers beside those that are zeroed, or dead, already.
        notes: What the reader should know: how far the function changes, or why nothing does.
    """

    plan: Plan
    agreement: str
    more: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([str(self.plan), *(f"note: {note}" for note in self.notes)])


def aligned(
    model: nn.Module,
    inputs: Inputs,
    *,
    keep_masks: Mapping[str, Tensor] | None = None,
    agreement: str = "average",
    round_to: int = 1,
) -> Aligned:
    """`align`, with what is to be said of it."""
    if agreement not in AGREEMENTS:
        raise InputError(f"unknown agreement {agreement!r}", f"choose one of {', '.join(AGREEMENTS)}")
    if not isinstance(round_to, int) or round_to < 1:
        raise InputError(f"round_to is {round_to}", "give a whole number of channels, at least 1")
    check_finite(model)
    with stage("analysing"):
        baked = bake(model)
        if keep_masks:
            apply_keep_masks_(baked, keep_masks)
        study = Study.of(baked, inputs)
        start = Disagreement.of(study)
    if not start.masks.zeroed.any() and not (start.gone & ~study.coupling.virtual).any():
        raise InputError(
            f"no channel is zeroed in {type(model).__name__}: there are no masks to align",
            "mask it first (torch.nn.utils.prune), or let surgery.choose pick the channels",
        )
    with stage("aligning"):
        plan, more = agreeing(study, start, agreement, round_to)
    notes = _notes(start, agreement, more)
    return Aligned(_with_rows_of(plan, study, model) if keep_masks else plan, agreement, more, notes)


@dataclass(frozen=True)
class Disagreement:
    """What the masks of a study's model come to as they are.

    Attributes:
        decision: What is dead.
        masks: Who zeroed what.
        gone: Channels that go, or carry constants, without anyone's help, `[n_channels]`.
    """

    decision: Decision
    masks: Masks
    gone: Bools

    @staticmethod
    def of(study: Study) -> Disagreement:
        """Decide what is dead, and look at the producers."""
        decision = decide(study.case)
        producers, _ = sides_of(study.program, study.coupling)
        masks = masks_of(study.program, study.coupling, study.readings, decision, producers)
        gone = ~decision.alive | (decision.carrying(study.readings) & ~masks.stranded)
        return Disagreement(decision, masks, gone)


def additional(
    study: Study, start: Disagreement, agreement: str, *, round_to: int = 1, taken: Bools | None = None
) -> Bools:
    """The channels to zero in all their producers beside those that are gone already, `[n_channels]`."""
    coupling, masks = study.coupling, start.masks
    scores = np.where(start.gone, -1.0, _scores(study, masks))
    may = np.ones_like(start.gone)
    if agreement == "any":
        may = start.gone | masks.agreed | masks.alignable
        scores = np.where(may, scores, scores.max(initial=0.0) + 1.0)
    average = _average(study, masks)
    found = np.zeros_like(may)
    for group in np.unique(coupling.group_of[masks.alignable]):
        inside = (coupling.group_of == group) & ~coupling.virtual
        size, gone = int(inside.sum()), int((inside & start.gone).sum())
        count = int((inside & may).sum()) if agreement == "any" else max(int(average[group]), gone)
        most = count - gone + (0 if taken is None else int((inside & taken).sum()))

        def pick(count: int, inside: Bools = inside, size: int = size) -> Bools:
            ratio = (size - count) / size
            return lowest(coupling, scores, ratio, round_to=round_to, taken=taken) & inside & ~start.gone

        found |= _largest(pick, may, count, most)
    return found & ~masks.agreed


def _largest(pick: Callable[[int], Bools], may: Bools, count: int, most: int) -> Bools:
    """The largest pick of at most `count` channels that takes `most` new ones, and none but those that `may` go.

    Rectangles ask for as many of every row; the masks may hold fewer of one, and what is gone may be a whole row.
    """

    def fine(picked: Bools) -> bool:
        return not (picked & ~may).any() and int(picked.sum()) <= most

    if fine(whole := pick(count)):
        return whole
    low, high = 0, count  # pick(low) is fine, pick(high) is not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fine(pick(middle)) else (low, middle)
    return pick(low) & may


def _average(study: Study, masks: Masks) -> Ids:
    """By group, how many of its free channels its producers zeroed on average, rounded down.

    Where a producer writes several rows to a channel, a zero row counts for its share.
    """
    coupling = study.coupling
    n_groups = int(coupling.group_of.max(initial=-1)) + 1
    free = (coupling.pin_of < 0) & ~coupling.virtual
    shares, producers = np.zeros(n_groups), np.zeros(n_groups, np.int64)
    for channels, zero in masks.rows.values():
        kept = free[channels]
        rows = np.bincount(coupling.group_of[channels[kept]], minlength=n_groups)
        zeros = np.bincount(coupling.group_of[channels[kept & zero]], minlength=n_groups)
        shares += zeros / np.maximum(rows, 1)
        producers += rows > 0
    sizes = np.bincount(coupling.group_of[free], minlength=n_groups)
    average: Ids = np.floor(sizes * shares / np.maximum(producers, 1) + 1e-9).astype(np.int64)
    return average


def _scores(study: Study, masks: Masks) -> Floats:
    """The norm of everything that writes a channel, `[n_channels]`.

    Every producer is scaled so that the norms of its rows that are not zero have a root mean square of 1.
    """
    tensors = dict(study.program.tensors)
    for name, (_, zero) in masks.rows.items():
        norm = float(torch.linalg.vector_norm(tensors[name].detach().double())) if name in tensors else 0.0
        if norm > 0:
            tensors[name] = tensors[name].detach().double() * (max(int((~zero).sum()), 1) ** 0.5 / norm)
    scaled = replace(study, program=replace(study.program, tensors=tensors))
    return importance_scores(scaled, "l2")


def agreeing(study: Study, start: Disagreement, agreement: str, round_to: int) -> tuple[Plan, int]:
    """`(the plan, how many channels it zeroes in all their producers)`."""
    chosen = additional(study, start, agreement)
    plan, carriers = exact_plan(study, chosen, dead_too=True, keep_class=True)
    if round_to > 1:  # a carrier takes one of the places in a rounded width
        chosen = additional(study, start, agreement, round_to=round_to, taken=carriers)
        plan, carriers = exact_plan(study, chosen, widths=Widths(round_to), dead_too=True, keep_class=True)
    return plan, int((chosen & (_removed(study, plan) | carriers)).sum())


def _removed(study: Study, plan: Plan) -> Bools:
    """The channels that a plan removes, `[n_channels]`."""
    gone = np.zeros(study.coupling.n_channels, bool)
    for axis in plan.axes:
        channels = study.coupling.channel_of[study.coupling.axes[axis.name, axis.dim].ids].ravel()
        gone[np.delete(channels, list(axis.keep))] = True
    return gone


def _notes(start: Disagreement, agreement: str, more: int) -> tuple[str, ...]:
    masks = start.masks
    said = []
    if more:
        said.append(
            f"aligning ({agreement}) changes the function: it zeroes {more} more channels in every layer that writes "
            "them; fine-tune plan.mask(model), then shrink it"
        )
    elif masks.alignable.any():
        way = "" if agreement == "any" else "; agreement='any' aligns all that any producer zeroed"
        said.append(f"no channel more goes than shrink would remove: too few are zeroed in their producers{way}")
    else:
        said.append("no masks disagree: the plan is what shrink would do")
    if stuck := int((masks.stranded & ~masks.alignable).sum()):
        said.append(
            f"{stuck} zeroed channels stay for other reasons than masks that disagree (pinned, or a constant that "
            "cannot be folded): aligning does not help there; surgery.analyze says why"
        )
    return tuple(said)


def _with_rows_of(plan: Plan, study: Study, model: nn.Module) -> Plan:
    """The plan, with the rows that only `keep_masks` zeroed in its zeros."""
    given = dict(bake(model).named_parameters(remove_duplicate=False))
    zeros = list(plan.zeros)
    for name, dim in sides_of(study.program, study.coupling)[0]:
        if name not in given or study.coupling.axes[name, dim].ids.ndim == 2:
            continue
        now, before = (empty(tensor, dim) for tensor in (study.program.tensors[name], given[name]))
        if rows := torch.nonzero(now & ~before).flatten().tolist():
            zeros.append(Zeros(name, dim, tuple(rows)))
    return replace(plan, zeros=tuple(zeros))
