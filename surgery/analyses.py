"""`surgery.analyze`: what is coupled, what is pinned and why, what is dead, what is stranded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from surgery.coupling import STRUCTURAL
from surgery.deciding.build import build
from surgery.deciding.dead import decide
from surgery.deciding.parts import GroupCut
from surgery.deciding.stranded import axes_by_group
from surgery.deciding.study import Study
from surgery.gains import Gain, Gains, gains
from surgery.inputs import Example, Inputs
from surgery.masks import apply_keep_masks_, bake, check_finite
from surgery.plans import Plan
from surgery.progress import stage


@dataclass(frozen=True)
class Group:
    """Channels that live on the same axes.

    Attributes:
        name: The tensor that hands them out.
        axes: Every `tensor:dim` that they live on.
        channels: How many there are.
        free: How many of them are not pinned.
        dead: How many can go as the weights are; None on a meta model.
    """

    name: str
    axes: tuple[str, ...]
    channels: int
    free: int
    dead: int | None


@dataclass(frozen=True)
class Pinned:
    """Channels that must stay: how many, the reason, and the place in the model."""

    channels: int
    reason: str
    where: str


@dataclass(frozen=True)
class Analysis:
    """What was understood of a model.

    Attributes:
        groups: Every group of channels.
        pinned: Why channels are pinned, the most frequent reason first.
        unruled_ops: Ops without a rule that channels reach, with how often; whatever reaches them is pinned.
        dead: How many channels can go without changing the function; None on a meta model.
        stranded: Groups with channels that are zeroed in some layer and stay all the same; None on a meta model.
        removable_share: The share of parameter elements that sits on at least one free channel: what a plan may touch.
        unused: Tensors that the captured forward never reads.
        plan: The plan that `shrink` would carry out, before its code is tried; None on a meta model.
        study: What all this was read from.
    """

    groups: tuple[Group, ...]
    pinned: tuple[Pinned, ...]
    unruled_ops: Mapping[str, int]
    dead: int | None
    stranded: tuple[GroupCut, ...] | None
    removable_share: float
    unused: tuple[str, ...]
    plan: Plan | None
    study: Study | None = field(default=None, repr=False, compare=False)

    @cached_property
    def aligning(self) -> Gains | None:
        """What masks that agree would free; None where none disagree, and on a meta model.

        It is tried when it is first asked for, cut by cut on copies without memory.
        """
        return None if self.study is None or self.plan is None else gains(self.study, self.plan.groups)

    def __str__(self) -> str:
        channels = sum(group.channels for group in self.groups)
        free = sum(group.free for group in self.groups)
        share = 100 * self.removable_share
        headline = f"{channels} channels in {len(self.groups)} groups; {free} are free to go"
        lines = [f"{headline}, on {share:.1f} % of the parameters"]
        if self.dead is not None:
            lines.append(f"{self.dead} are dead: they can go without changing the function")
        for group in self.groups:
            dead = "" if group.dead is None else f", {group.dead} dead"
            lines.append(
                f"  {group.name}: {group.channels} channels, {group.free} free{dead}, on {len(group.axes)} axes"
            )
        lines += [f"  pinned {p.channels}: {p.reason} ({p.where})" for p in self.pinned]
        lines += [f"  no rule for {op}: {count} times" for op, count in self.unruled_ops.items()]
        if self.unused:
            lines.append(
                f"  not read in this forward, left as they are: {', '.join(self.unused[:5])}"
                + (f" and {len(self.unused) - 5} more" if len(self.unused) > 5 else "")
            )
        lines += _stranded(self.stranded, self.aligning) if self.stranded else []
        return "\n".join(lines)


KEEPERS_SHOWN = 8


def _stranded(stranded: tuple[GroupCut, ...], tried: Gains | None) -> list[str]:
    """One block per group with stranded channels, the largest gain first, and the total."""
    alone = {gain.axes: gain for gain in tried.groups} if tried is not None else {}
    order = {axes: place for place, axes in enumerate(alone)}
    lines = [f"{_count(sum(g.stranded for g in stranded), 'stranded channel')} in {_count(len(stranded), 'group')}:"]
    lines[0] += " zeroed in some layer, and still here"
    for group in sorted(stranded, key=lambda g: (order.get(g.axes, len(order)), -g.alignable)):
        lines.append(f"  {group.name}: {group.stranded} of {group.channels} channels are stranded")
        lines += [
            f"    {name} keeps {n} of {group.channels} channels alive" for name, n in group.keep_alive[:KEEPERS_SHOWN]
        ]
        if (more := len(group.keep_alive) - KEEPERS_SHOWN) > 0:
            lines.append(f"    and {more} more keep some alive")
        lines += [f"    {count}: {why}" for why, count in group.blockers]
        if group.pinned:
            lines.append(f"    aligning the masks does not help {group.pinned}, pinned")
        if other := group.stranded - group.pinned - group.alignable:
            lines.append(f"    aligning the masks does not help {other}, zeroed in every layer already")
        if tried is not None and group.axes in alone:
            lines.append(f"    aligned alone: {_freed(alone[group.axes], tried)}")
    if tried is not None:
        if tried.untried:
            lines.append(f"  {_count(tried.untried, 'group')} with less at stake not tried alone")
        lines += [
            "aligning the masks (`surgery align`) would free, beyond what shrink removes (percent: of what it leaves)",
            f"  average (as many channels as the layers zeroed on average): {_freed(tried.average, tried)}",
            f"  any (every channel that any layer zeroed): {_freed(tried.any, tried)}",
            "  that changes the function: fine-tune the aligned model. Groups overlap and do not add up",
        ]
    return lines


def _freed(gain: Gain, tried: Gains) -> str:
    if gain.params <= 0:
        return "nothing"
    params = f"{gain.params:,} parameters ({_percent(gain.params, tried.params)})"
    return f"{params} and {gain.macs:,} macs ({_percent(gain.macs, tried.macs)}), {_count(gain.channels, 'channel')}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"


def analyze(
    model: nn.Module,
    example_inputs: Example,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    keep_masks: Mapping[str, Tensor] | None = None,
) -> Analysis:
    """Find what is coupled in a model, what is pinned and why, and what is dead as its weights are.

    The model may be on the meta device; then nothing is said of its weights.

    Args:
        model: Any module, masked or not, in any of the masks' coats.
        example_inputs: A tensor, or a tuple of the positional inputs.
        example_kwargs: Keyword inputs.
        keep_masks: True stays; by parameter or module name.

    Raises:
        CaptureError: The model refused the inputs or cannot be captured.
        InputError: No parameters, NaN weights, unusable masks.
    """
    inputs = Inputs.of(example_inputs, example_kwargs)
    meta = any(parameter.is_meta for parameter in model.parameters())
    if not meta:
        check_finite(model)
    with stage("analysing"):
        baked = bake(model)
        if keep_masks:
            apply_keep_masks_(baked, keep_masks)
        study = Study.of(baked, inputs)
        plan = None if meta else _plan(study)
    return report(study, plan)


def _plan(study: Study) -> Plan:
    decision = decide(study.case)
    return build(Plan, study.program, study.coupling, study.known, study.readings, decision)


def report(study: Study, plan: Plan | None) -> Analysis:
    """A study in words."""
    coupling, program = study.coupling, study.program
    free = coupling.pin_of < 0
    groups = []
    for group in _groups(study):
        inside = (coupling.group_of == group[0]) & coupling.reported
        groups.append(Group(group[1], group[2], int(inside.sum()), int((inside & free).sum()), None))
    if plan is not None:
        dead = {cut.axes: cut.removed for cut in plan.groups}
        groups = [Group(g.name, g.axes, g.channels, g.free, dead.get(g.axes, 0)) for g in groups]
    return Analysis(
        groups=tuple(groups),
        pinned=tuple(_pinned(study)),
        unruled_ops={op: len(nodes) for op, nodes in coupling.unruled.items()},
        dead=None if plan is None else plan.removed_channels,
        stranded=None if plan is None else tuple(group for group in plan.groups if group.stranded),
        removable_share=_removable_share(study),
        unused=program.unused,
        plan=plan,
        study=study,
    )


def _groups(study: Study) -> list[tuple[int, str, tuple[str, ...]]]:
    """`(group, name, axes)` of every group that is more than a kernel's extent."""
    coupling = study.coupling
    reported = set(coupling.group_of[coupling.reported].tolist())
    return [
        (group, lived_on[0].name, tuple(str(axis) for axis in lived_on))
        for group, lived_on in axes_by_group(coupling).items()
        if group in reported
    ]


def _pinned(study: Study) -> list[Pinned]:
    coupling, program = study.coupling, study.program
    counts = np.bincount(coupling.pin_of[coupling.pin_of >= 0], minlength=len(coupling.pins))
    found: dict[tuple[str, str], int] = {}
    for index in np.flatnonzero(counts):
        pin = coupling.pins[index]
        if pin.reason in STRUCTURAL:
            continue
        key = (pin.reason, program.where(pin.node))
        found[key] = found.get(key, 0) + int(counts[index])
    return [Pinned(n, reason, where) for (reason, where), n in sorted(found.items(), key=lambda item: -item[1])]


def _removable_share(study: Study) -> float:
    """The share of parameter elements on at least one free channel."""
    coupling, program = study.coupling, study.program
    free = coupling.pin_of < 0
    total = touched = 0.0
    parameters = {name for name, _ in study.model.named_parameters()}
    for name, tensor in program.tensors.items():
        if name not in parameters:
            continue
        pinned_share = 1.0
        for dim in range(tensor.dim()):
            axis = coupling.axes.get((name, dim))
            if axis is not None:
                pinned_share *= 1.0 - float(free[coupling.channel_of[axis.ids]].mean())
        total += tensor.numel()
        touched += tensor.numel() * (1.0 - pinned_share)
    return touched / total if total else 0.0
