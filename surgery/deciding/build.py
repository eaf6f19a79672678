"""From a decision about channels to cuts of tensors: positions, folds, carriers, and the reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from surgery.analysis.capture import Program
from surgery.analysis.constants import Constants
from surgery.coupling import Axis, Bools, Coupling
from surgery.deciding.cuts import AxisCut, Carry, Cuts, Fold, GroupCut, Zeros, already_zero, checksum
from surgery.deciding.dead import Carrier, Decision, needs_fold
from surgery.deciding.reads import Reading
from surgery.layout import Ids
from surgery.rules.convolution import oriented

C = TypeVar("C", bound=Cuts)


def build(
    kind: type[C],
    program: Program,
    coupling: Coupling,
    known: Constants,
    readings: list[Reading],
    decision: Decision,
    *,
    columns: Bools | None = None,
) -> C:
    """The cuts that a decision means.

    Args:
        kind: The class to make (`Cuts`, or one that adds doors to it).
        program, coupling, known, readings, decision: What was found and decided.
        columns: Channels whose consumers' columns `mask` has to zero as well, `[n_channels]`.
    """
    folds, carries = _writes(program, known, readings, decision)
    producers, _ = sides_of(program, coupling)
    masked = ~decision.alive | decision.carrying(readings)
    slices = zeros_of(program, coupling, masked, masked & columns if columns is not None else np.zeros_like(masked))
    zeros = tuple(zeros for slice_ in slices if (zeros := already_zero(program.tensors[slice_.name], slice_)).positions)
    resting = program.tensors if folds or carries else {}
    return kind(
        axes=tuple(_axis_cut(program, coupling, decision, axis) for axis in coupling.axes.values()),
        folds=tuple(folds),
        carries=tuple(carries),
        zeros=zeros,
        groups=tuple(_groups(program, coupling, readings, decision, producers)),
        reasons=tuple(decision.reasons),
        shapes={name: tuple(tensor.shape) for name, tensor in program.tensors.items()},
        checksums={name: checksum(tensor) for name, tensor in resting.items()},
        unused=program.unused,
    )


def _axis_cut(program: Program, coupling: Coupling, decision: Decision, axis: Axis) -> AxisCut:
    channels = coupling.channel_of[axis.ids]
    why = decision.reason[channels].ravel()
    keep = np.flatnonzero(decision.alive[channels].ravel())
    return AxisCut(
        name=axis.name,
        dim=axis.dim,
        size=int(channels.size),
        keep=tuple(keep.tolist()),
        conv_groups=channels.shape[0] if channels.ndim == 2 else 1,
        aliases=program.aliases[axis.name],
        why=tuple(why[:1].tolist() if (why == why[0]).all() else why.tolist()),
    )


def sides_of(program: Program, coupling: Coupling) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The dims of weights that hand channels out, and those that read them: each `(tensor, dim)`."""
    producers: dict[tuple[str, int], None] = {}
    consumers: dict[tuple[str, int], None] = {}
    for node, dim in coupling.producers:
        if node in program.parameters:
            producers[program.parameters[node], dim] = None
    for use in coupling.uses:
        name = program.parameters.get(use.weight) if use.weight is not None else None
        if name is None:
            continue
        rows, columns = (0, 1) if use.orientation == "out_in" else (1, 0)
        producers[name, rows] = None
        consumers[name, columns] = None
    return list(producers), list(consumers)


def zeros_of(program: Program, coupling: Coupling, rows: Bools, columns: Bools) -> tuple[Zeros, ...]:
    """What masking zeroes: the slices that write the channels `rows`, and those that read the channels `columns`."""
    producers, consumers = sides_of(program, coupling)
    return (*_zeros(coupling, producers, rows), *_zeros(coupling, consumers, columns))


def _zeros(coupling: Coupling, sides: Iterable[tuple[str, int]], gone: Bools) -> list[Zeros]:
    found = []
    for name, dim in sides:
        axis = coupling.axes.get((name, dim))
        if axis is None:
            continue
        positions = np.flatnonzero(gone[coupling.channel_of[axis.ids]].ravel())
        if positions.size:
            groups = axis.ids.shape[0] if axis.ids.ndim == 2 else 1
            found.append(Zeros(name, dim, tuple(positions.tolist()), groups))
    return found


def _writes(
    program: Program, known: Constants, readings: list[Reading], decision: Decision
) -> tuple[list[Fold], list[Carry]]:
    """What biases and carrier columns take up, computed in float64."""
    folds: dict[str, Fold] = {}
    carries: list[Carry] = []
    for index, reading in enumerate(readings):
        folded = needs_fold(reading, decision.alive)
        if not folded.any():
            continue
        if reading.use.borders:
            carries += [_carry(reading, carrier, folded) for carrier in decision.carriers.get(index, ())]
        elif reading.slot is not None and reading.slot not in folds:
            folds[reading.slot] = Fold(reading.slot, _delta(known, reading, folded))
    return list(folds.values()), carries


def _delta(known: Constants, reading: Reading, folded: Bools) -> tuple[float, ...]:
    weight: Tensor = known.known[str(reading.use.weight)].full()
    groups = folded.shape[0]
    full = oriented(weight, groups, reading.use.orientation)  # (g, o, i, k)
    needed = np.flatnonzero(folded.any(0))
    constants = torch.from_numpy(np.where(folded, reading.value, 0.0)[:, needed])
    columns = full[:, :, torch.from_numpy(needed)].to("cpu", torch.float64).sum(-1)
    return tuple((columns * constants[:, None, :]).sum(-1).reshape(-1).tolist())


def _carry(reading: Reading, carrier: Carrier, folded: Bools) -> Carry:
    width = folded.shape[1]
    take = np.flatnonzero(folded[carrier.conv_group])
    ratio = reading.value[carrier.conv_group, take] / reading.value[carrier.conv_group, carrier.position]
    offset = carrier.conv_group * width
    return Carry(
        weight=str(reading.weight_name),
        conv_groups=folded.shape[0],
        orientation=reading.use.orientation,
        onto=offset + carrier.position,
        take=tuple((take + offset).tolist()),
        ratio=tuple(ratio.tolist()),
    )


def zero_rows(program: Program, readings: list[Reading]) -> dict[str, tuple[Ids, Bools]]:
    """By weight: the channels that it hands out, and which of its rows are all zero."""
    found: dict[str, tuple[Ids, Bools]] = {}
    for reading in readings:
        if reading.rows is not None and reading.nonzero is not None and reading.use.weight is not None:
            name = program.parameters.get(reading.use.weight, reading.use.weight)
            found[name] = (reading.rows.ravel(), ~reading.nonzero.any(2).ravel())
    return found


def _groups(
    program: Program, coupling: Coupling, readings: list[Reading], decision: Decision, producers: list[tuple[str, int]]
) -> list[GroupCut]:
    """Every group of channels, for people; kernels and the like are left out."""
    n_groups = int(coupling.group_of.max(initial=-1)) + 1
    members = np.bincount(coupling.group_of[coupling.reported], minlength=n_groups)
    removed = np.bincount(coupling.group_of[~decision.alive & ~coupling.virtual], minlength=n_groups)
    rows = zero_rows(program, readings)
    zeroed = np.zeros(coupling.n_channels, bool)
    for channels, zero in rows.values():
        zeroed[channels[zero]] = True
    stranded = zeroed & decision.alive & ~decision.carrying(readings)
    axes: dict[int, list[Axis]] = {}
    for axis in coupling.axes.values():
        for group in np.unique(coupling.group_of[coupling.channel_of[axis.ids]]):
            axes.setdefault(int(group), []).append(axis)
    order = {key: index for index, key in enumerate(producers)}
    made = []
    for group, lived_on in axes.items():
        if members[group] == 0:
            continue
        inside = coupling.group_of == group
        here = stranded & inside
        first = min(lived_on, key=lambda axis: order.get((axis.name, axis.dim), len(order)))
        blockers = Counter(decision.reasons[code] for code in decision.reason[here].tolist())
        made.append(
            GroupCut(
                name=first.name,
                axes=tuple(str(axis) for axis in lived_on),
                channels=int(members[group]),
                removed=int(removed[group]),
                stranded=int(here.sum()),
                blockers=tuple(blockers.most_common()),
                keep_alive=tuple(_keepers(rows, here).items()) if here.any() else (),
            )
        )
    return made


def _keepers(rows: Mapping[str, tuple[Ids, Bools]], stranded: Bools) -> dict[str, int]:
    """By weight, how many stranded channels it writes something else than zero to."""
    counts = {name: int((stranded[channels] & ~zero).sum()) for name, (channels, zero) in rows.items()}
    return {name: count for name, count in counts.items() if count}
