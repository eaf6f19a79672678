"""What aligning the masks would free, in parameters and MACs: tried, not guessed.

The totals come from the plans that `align` makes. A group alone is decided and cut on a copy without memory, but not
captured again, where that gives the totals, too; otherwise it is tried like them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from surgery.aligning import AGREEMENTS, Disagreement, additional, agreeing
from surgery.choosing import exact_plan, zeroed_exactly
from surgery.cutting.cut import cut_
from surgery.cutting.repair import find_edits
from surgery.cutting.twins import meta_copy
from surgery.deciding.build import build
from surgery.deciding.cuts import Cuts
from surgery.deciding.dead import decide
from surgery.deciding.parts import GroupCut
from surgery.deciding.stranded import axes_by_group
from surgery.deciding.study import Study
from surgery.errors import InputError
from surgery.layout import Bools
from surgery.progress import track
from surgery.proof.cost import Cost, cost

GROUPS_TRIED = 8
"""So many groups are tried alone: those whose stranded channels hold the most parameters. Together all are tried."""


@dataclass(frozen=True)
class Gain:
    """What more would go than without aligning.

    Attributes:
        channels: How many channels would be zeroed in all their producers, beside those that are gone already.
        params: How many parameters fewer.
        macs: How many multiply-accumulates of one call on the example inputs fewer.
    """

    channels: int
    params: int
    macs: int


@dataclass(frozen=True)
class GroupGain(Gain):
    """What aligning one group alone would free (`agreement="any"`).

    Attributes:
        name: The group's name.
        axes: Its axes.
    """

    name: str
    axes: tuple[str, ...]


@dataclass(frozen=True)
class Gains:
    """What aligning would free, beyond what `shrink` removes.

    Groups overlap (the weight between two of them is counted with each), so that they do not add up to the whole.

    Attributes:
        params, macs: What `shrink` alone would leave.
        groups: By group alone, the largest gain first; at most `GROUPS_TRIED`.
        untried: How many more groups could be aligned; they are part of the totals.
        any: All groups, `agreement="any"`.
        average: All groups, `agreement="average"`.
    """

    params: int
    macs: int
    groups: tuple[GroupGain, ...]
    untried: int
    any: Gain
    average: Gain


def gains(study: Study, groups: Sequence[GroupCut]) -> Gains | None:
    """Try what aligning would free; None where no masks disagree.

    Args:
        study: The masked model.
        groups: The groups of its plan, for their names.
    """
    start = Disagreement.of(study)
    if not start.masks.alignable.any():
        return None
    none = np.zeros_like(start.gone)
    alone, _ = exact_plan(study, none, dead_too=True, keep_class=True)
    before = _cost(study, alone)
    totals, lefts = {}, {}
    for agreement in AGREEMENTS:
        plan, channels = agreeing(study, start, agreement, 1)
        lefts[agreement] = left = _cost(study, plan)
        totals[agreement] = Gain(channels, before.params - left.params, before.macs - left.macs)
    every = additional(study, start, "any")
    plain = _planned(study, none) == before and _planned(study, every) == lefts["any"]
    order, axes = _largest_first(study, start.masks.alignable)
    names = {group.axes: group.name for group in groups}
    found = []
    for group in track(order[:GROUPS_TRIED], "trying what aligning would free"):
        chosen = every & (study.coupling.group_of == group)
        left = before
        if chosen.any():
            quick = _planned(study, chosen) if plain else None
            left = quick or _cost(study, exact_plan(study, chosen, dead_too=True, keep_class=True)[0])
        gain = int(chosen.sum()), before.params - left.params, before.macs - left.macs
        found.append(GroupGain(*gain, names[axes[group]], axes[group]))
    return Gains(
        params=before.params,
        macs=before.macs,
        groups=tuple(sorted(found, key=lambda one: (-one.params, -one.macs))),
        untried=max(len(order) - GROUPS_TRIED, 0),
        **totals,
    )


def _largest_first(study: Study, alignable: Bools) -> tuple[list[int], dict[int, tuple[str, ...]]]:
    """Groups with alignable channels, by the parameters that these hold now; and their axes."""
    coupling = study.coupling
    counts = np.bincount(coupling.group_of[alignable])
    weights: dict[int, float] = {}
    names: dict[int, tuple[str, ...]] = {}
    for group, axes in axes_by_group(coupling).items():
        if group < counts.size and counts[group]:
            held = sum(study.program.tensors[axis.name].numel() / axis.ids.size for axis in axes)
            weights[group] = float(held * counts[group])
            names[group] = tuple(str(axis) for axis in axes)
    return sorted(weights, key=lambda group: -weights[group]), names


def _cost(study: Study, plan: Cuts) -> Cost:
    """What a plan that was tried leaves."""
    try:
        return cost(cut_(meta_copy(study.model), plan), study.inputs)
    except InputError:  # its code wants numbers, which the meta device does not have
        return cost(cut_(plan.mask(study.model), plan), study.inputs)


def _planned(study: Study, chosen: Bools) -> Cost | None:
    """What a cut leaves after these channels are zeroed, if the code runs as is planned; None where it does not."""
    masked, _, columns = zeroed_exactly(study, chosen, np.zeros_like(chosen), dead_too=True)
    decision = decide(masked.case)
    cuts = build(Cuts, masked.program, masked.coupling, masked.known, masked.readings, decision, columns=columns)
    edits = find_edits(masked.model, masked.program, masked.coupling, decision.alive, ())
    try:
        return cost(cut_(meta_copy(masked.model), replace(cuts, edits=edits)), masked.inputs)
    except InputError:
        return None
