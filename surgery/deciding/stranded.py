"""Stranded zeros: channels that some layer zeroed and that stay all the same, and which layer keeps each alive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from surgery.analysis.capture import Program
from surgery.coupling import Axis, Coupling
from surgery.deciding.dead import Decision
from surgery.deciding.parts import GroupCut
from surgery.deciding.reads import Reading
from surgery.layout import Bools, Ids
from surgery.pieces import empty

Rows = Mapping[str, tuple[Ids, Bools]]
"""By producer: the channel of each of its rows, and which rows are all zero."""


@dataclass(frozen=True)
class Masks:
    """Which producer zeroed which channels, and what a decision made of that; all `[n_channels]` but the rows.

    Attributes:
        rows: By producer, its channels and its zeros.
        zeroed: Zeroed in some producer.
        agreed: Zeroed in every producer.
        stranded: Zeroed in some producer, and alive: other than as the carrier of removed constants.
        alignable: Stranded because another producer writes something else, and not pinned: masks that agree free them.
    """

    rows: Rows
    zeroed: Bools
    agreed: Bools
    stranded: Bools
    alignable: Bools


def masks_of(
    program: Program,
    coupling: Coupling,
    readings: list[Reading],
    decision: Decision,
    producers: Iterable[tuple[str, int]],
) -> Masks:
    """What the producers' zeros come to, under a decision."""
    rows = _rows(program, coupling, readings, producers)
    zeroed, written = np.zeros(coupling.n_channels, bool), np.zeros(coupling.n_channels, bool)
    for channels, zero in rows.values():
        zeroed[channels[zero]] = True
        written[channels[~zero]] = True
    # a carrier stays for a reason of its own, unless someone else writes to it
    stranded = zeroed & decision.alive & (written | ~decision.carrying(readings))
    return Masks(rows, zeroed, zeroed & ~written, stranded, stranded & written & (coupling.pin_of < 0))


def _rows(
    program: Program, coupling: Coupling, readings: list[Reading], producers: Iterable[tuple[str, int]]
) -> dict[str, tuple[Ids, Bools]]:
    found: dict[str, tuple[Ids, Bools]] = {}
    for reading in readings:
        if reading.rows is not None and reading.pattern is not None and reading.use.weight is not None:
            name = (program.source(reading.use.weight) or (reading.use.weight,))[0]
            found[name] = (reading.rows.ravel(), ~reading.pattern.rows.ravel())
    contracted = set(found)
    for name, dim in producers:
        axis = coupling.axes.get((name, dim))
        if axis is None or axis.ids.ndim > 1 or name in contracted:
            continue
        key = f"{name}:{dim}" if name in found else name  # a weight may hand channels out along several dims
        found[key] = (coupling.channel_of[axis.ids], empty(program.tensors[name], dim).numpy())
    return found


def group_cuts(
    program: Program, coupling: Coupling, readings: list[Reading], decision: Decision, producers: list[tuple[str, int]]
) -> list[GroupCut]:
    """Every group of channels, for people; kernels and the like are left out."""
    n_groups = int(coupling.group_of.max(initial=-1)) + 1
    members = np.bincount(coupling.group_of[coupling.reported], minlength=n_groups)
    removed = np.bincount(coupling.group_of[~decision.alive & ~coupling.virtual], minlength=n_groups)
    masks = masks_of(program, coupling, readings, decision, producers)
    order = {key: index for index, key in enumerate(producers)}
    made = []
    for group, lived_on in axes_by_group(coupling).items():
        if members[group] == 0:
            continue
        inside = coupling.group_of == group
        here, apart = masks.stranded & inside, masks.alignable & inside
        first = min(lived_on, key=lambda axis: order.get((axis.name, axis.dim), len(order)))
        blockers = Counter(decision.reasons[code] for code in decision.reason[here].tolist())
        made.append(
            GroupCut(
                name=first.name,
                axes=tuple(str(axis) for axis in lived_on),
                channels=int(members[group]),
                removed=int(removed[group]),
                stranded=int(here.sum()),
                alignable=int(apart.sum()),
                pinned=int((here & (coupling.pin_of >= 0)).sum()),
                blockers=tuple(blockers.most_common()),
                keep_alive=_keepers(masks.rows, apart) if apart.any() else (),
            )
        )
    return made


def axes_by_group(coupling: Coupling) -> dict[int, list[Axis]]:
    """The axes that every group lives on."""
    every = list(coupling.axes.values())
    axes, channels = coupling.incidence
    n_groups = int(coupling.group_of.max(initial=0)) + 1
    pairs = np.flatnonzero(np.bincount(axes * n_groups + coupling.group_of[channels]))
    found: dict[int, list[Axis]] = {}
    for axis, group in zip(*(each.tolist() for each in np.divmod(pairs, n_groups)), strict=True):
        found.setdefault(group, []).append(every[axis])
    return found


def _keepers(rows: Rows, channels: Bools) -> tuple[tuple[str, int], ...]:
    """By producer, how many of the channels it writes something else than zero to; the one with the most first."""
    counts = {name: np.unique(here[channels[here] & ~zero]).size for name, (here, zero) in rows.items()}
    found = [(name, count) for name, count in counts.items() if count]
    return tuple(sorted(found, key=lambda item: -item[1]))
