"""Why channels stayed: by reason, over all groups; and stranded zeros by group."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from surgery.deciding.parts import AxisCut, GroupCut
from surgery.plans import Plan
from surgery.results import Result

SENTENCES = (
    (re.compile(r"^alive: (?P<where>.+?) reads it, (?P<rest>.*)$"), "a layer reads it, {rest}"),
    (re.compile(r"^(?P<rest>carrier: .*) at (?P<where>\S+)$"), "{rest}"),
    (re.compile(r"^(?:pinned: )?(?P<rest>.*?) \((?P<where>[^()]+)\)$"), "{rest}"),
)
"""How reasons name the place in the model that they are about, and how they read without it."""

UNTOLD = "the plan does not say"


@dataclass(frozen=True)
class Place:
    """One group of channels that stays, or a part of it."""

    group: str
    where: str
    channels: int


@dataclass(frozen=True)
class Reason:
    """One reason, wherever it holds.

    Attributes:
        text: The sentence without its place.
        pinned: Whether the channels cannot go, whatever the weights are.
        places: Where it holds, in the model's order.
    """

    text: str
    pinned: bool
    places: tuple[Place, ...]

    @property
    def channels(self) -> int:
        """How many channels stay for it."""
        return sum(place.channels for place in self.places)


@dataclass(frozen=True)
class Staying:
    """All channels: `removed` + `kept` are `channels`; the reasons are those of `kept`, the most frequent first."""

    channels: int
    removed: int
    reasons: tuple[Reason, ...]
    stranded: tuple[GroupCut, ...]

    @property
    def kept(self) -> int:
        """How many channels stay."""
        return self.channels - self.removed

    @property
    def pinned(self) -> int:
        """How many of those that stay are pinned."""
        return sum(reason.channels for reason in self.reasons if reason.pinned)

    @property
    def zeroed(self) -> int:
        """How many are stranded."""
        return sum(group.stranded for group in self.stranded)

    @property
    def alignable(self) -> int:
        """How many stranded ones masks that agree would free."""
        return sum(group.alignable for group in self.stranded)


def staying_of(result: Result) -> Staying:
    """The account of all channels of a plan."""
    groups = result.plan.groups
    axes = {f"{axis.name}:{axis.dim}": axis for axis in result.plan.axes}
    found: dict[tuple[str, bool], dict[tuple[str, str], int]] = {}
    for group in groups:
        for sentence, number in _why(result.plan, axes, group):
            text, where = _placed(sentence)
            places = found.setdefault((text, sentence.startswith("pinned:")), {})
            places[group.name, where] = places.get((group.name, where), 0) + number
    reasons = [
        Reason(text, pinned, tuple(Place(group, where, number) for (group, where), number in places.items()))
        for (text, pinned), places in found.items()
    ]
    return Staying(
        channels=sum(group.channels for group in groups),
        removed=sum(group.removed for group in groups),
        reasons=tuple(sorted(reasons, key=lambda reason: -reason.channels)),
        stranded=tuple(sorted((g for g in groups if g.stranded), key=lambda group: -group.stranded)),
    )


def _why(plan: Plan, axes: Mapping[str, AxisCut], group: GroupCut) -> Iterator[tuple[str, int]]:
    """`(sentence, channels)` for what stays of a group.

    They are read off an axis that holds the group's channels once and nothing else. Where there is none (every axis is
    shared with another group, or repeats each channel), the most frequent reason on its axes stands for all.
    """
    kept = group.channels - group.removed
    if not kept:
        return
    lived_on = [axes[name] for name in group.axes]
    exact = next((a for a in lived_on if a.size == group.channels and len(a.keep) == kept), None)
    if exact is not None and len(staying := _codes(exact)) == kept:
        yield from ((plan.reasons[code], number) for code, number in Counter(staying).most_common())
        return
    told = [code for axis in lived_on for code in _codes(axis)]
    yield (plan.reasons[Counter(told).most_common(1)[0][0]] if told else UNTOLD), kept


def _codes(axis: AxisCut) -> list[int]:
    """The reason of every position that stays, as indices into the plan's reasons."""
    codes = axis.why * len(axis.keep) if len(axis.why) == 1 else axis.why
    return [code for code in codes if code >= 0]


def _placed(sentence: str) -> tuple[str, str]:
    """A reason without its place, and the place."""
    for pattern, said in SENTENCES:
        if found := pattern.match(sentence):
            return said.format(rest=found["rest"]), found["where"]
    return sentence.removeprefix("pinned: "), ""
