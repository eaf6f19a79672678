"""From a decision about channels to cuts of tensors: positions, folds, carriers, and the reasons."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, fx

from surgery.analysis.capture import Program
from surgery.analysis.constants import Constants
from surgery.calls import short_name
from surgery.coupling import Axis, Coupling
from surgery.deciding.checksums import checksum
from surgery.deciding.cuts import Cuts
from surgery.deciding.dead import Carrier, Decision, needs_fold
from surgery.deciding.parts import AxisCut, Carry, Fold, Zeros
from surgery.deciding.reads import Reading
from surgery.deciding.rescaling import MOVING, rescaled
from surgery.deciding.stranded import group_cuts
from surgery.layout import Bools, Ids
from surgery.pieces import empty as slice_is_empty
from surgery.pieces import pieces
from surgery.registry import arguments
from surgery.rules.convolution import oriented

C = TypeVar("C", bound=Cuts)

ADDING = ("add", "add_", "sub", "sub_")
LAYING = (*MOVING, "cat", "expand", "repeat", "to", "getitem")


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
    empty = empty_slices(program, readings)
    zeros = tuple(left for one in slices if (left := _already(program, empty, one)).positions)
    resting = program.tensors if folds or carries else {}
    seen: dict[bytes, tuple[int, ...]] = {}
    return kind(
        axes=tuple(_axis_cut(program, coupling, decision, axis, seen) for axis in coupling.axes.values()),
        folds=tuple(folds),
        carries=tuple(carries),
        scales=rescaled(program, coupling, decision.alive),
        zeros=zeros,
        groups=tuple(group_cuts(program, coupling, readings, decision, producers)),
        reasons=tuple(decision.reasons),
        shapes={name: tuple(tensor.shape) for name, tensor in program.tensors.items()},
        checksums={name: checksum(tensor) for name, tensor in resting.items() if not tensor.is_meta},
        unused=program.unused,
    )


def empty_slices(program: Program, readings: list[Reading]) -> dict[tuple[str, int], Bools]:
    """Which rows and which columns of every weight are all zero, by `(weight, dim)`; `[positions]`."""
    found: dict[tuple[str, int], Bools] = {}
    for reading in readings:
        source = program.source(reading.use.weight) if reading.use.weight is not None else None
        if source is not None and reading.pattern is not None:
            name, dims = source
            rows, columns = (dims[d] for d in reading.use.weight_dims)
            found[name, rows] = ~reading.pattern.rows.ravel()
            found[name, columns] = ~reading.pattern.columns.ravel()
    return found


def _already(program: Program, empty: dict[tuple[str, int], Bools], zeros: Zeros) -> Zeros:
    """Those of the positions that are zero as the weight is: a plan must not zero what is dead for another reason.

    A channel that is constant because all that it reads is would become another constant than the one that was folded.
    """
    zero = empty.get((zeros.name, zeros.dim))
    if zero is None:  # a table: nothing is contracted with it
        zero = slice_is_empty(program.tensors[zeros.name], zeros.dim).numpy()
    positions = np.asarray(zeros.positions)
    return replace(zeros, positions=tuple(positions[zero[positions]].tolist()))


def _axis_cut(
    program: Program, coupling: Coupling, decision: Decision, axis: Axis, seen: dict[bytes, tuple[int, ...]]
) -> AxisCut:
    channels = coupling.channel_of[axis.ids]
    why = decision.reason[channels].ravel()
    return AxisCut(
        name=axis.name,
        dim=axis.dim,
        size=int(channels.size),
        keep=_once(np.flatnonzero(decision.alive[channels].ravel()), seen),
        conv_groups=channels.shape[0] if channels.ndim == 2 else 1,
        aliases=program.aliases[axis.name],
        why=_once(why[:1] if (why == why[0]).all() else why, seen),
    )


def _once(numbers: Ids, seen: dict[bytes, tuple[int, ...]]) -> tuple[int, ...]:
    """The numbers as a tuple; axes that keep the same positions share it."""
    key = numbers.tobytes()
    if key not in seen:
        seen[key] = tuple(numbers.tolist())
    return seen[key]


def sides_of(program: Program, coupling: Coupling) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """The dims of weights that hand channels out, and those that read them: each `(tensor, dim)`."""
    producers: dict[tuple[str, int], None] = {}
    consumers: dict[tuple[str, int], None] = {}
    for node, dim in coupling.producers:
        source = program.source(node)
        if source is not None:
            name, dims = source
            producers[name, dims[dim]] = None
    for use in coupling.uses:
        weight = use.weight or (use.partner[0] if use.partner is not None else None)
        source = program.source(weight) if weight is not None else None
        if source is None:
            continue
        name, dims = source
        if use.weight is not None:
            producers[name, dims[use.weight_dims[0]]] = None
            consumers[name, dims[use.weight_dims[1]]] = None
        elif use.partner is not None and len(use.partner[1]) == 1:  # a weight of another rank
            consumers[name, dims[use.partner[1][0]]] = None
    return list(producers), list(consumers)


def zeros_of(program: Program, coupling: Coupling, rows: Bools, columns: Bools) -> tuple[Zeros, ...]:
    """What masking zeroes: the slices that write the channels `rows`, and those that read the channels `columns`.

    Where no tensor of the model reads a channel (a product of two activations, a norm), only an exact zero may go: what
    is added to it goes, too.
    """
    producers, consumers = sides_of(program, coupling)
    bare = np.zeros_like(columns)
    for use in coupling.uses:
        if use.weight is None or program.source(use.weight) is None:
            bare[coupling.channel_of[use.ids]] = True
    added = _zeros(coupling, addends(program, coupling), columns & bare)
    return (*_zeros(coupling, producers, rows), *_zeros(coupling, consumers, columns), *added)


def addends(program: Program, coupling: Coupling) -> list[tuple[str, int]]:
    """The dims of tensors that are added to something, moved about or laid side by side before: biases, positions."""
    biases = {use.bias for use in coupling.uses}
    found: dict[tuple[str, int], None] = {}
    for place, name in program.parameters.items():
        reached = [program.by_name[place]]
        for node in reached:  # grows
            if node.name in biases or any(_name(user) in ADDING or _bias(user) is node for user in node.users):
                found |= dict.fromkeys((name, dim) for dim in range(program.tensors[name].dim()))
                break
            reached += [user for user in node.users if _name(user) in LAYING and user not in reached]
    return list(found)


def _bias(node: fx.Node) -> object:
    """What an op adds behind its product: a convolution's bias, the first matrix of an addmm."""
    bound = arguments(node.target, node.args, node.kwargs) if node.op == "call_function" else {}
    return bound.get("input") if _name(node) == "addmm" else bound.get("bias")


def _name(node: fx.Node) -> str:
    return "getitem" if node.target is operator.getitem else short_name(node.target)


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
    chosen = torch.from_numpy(needed).to(full.device)
    delta: list[float] = []
    for block, values in zip(full, constants, strict=True):  # one conv group: (o, i, k), (needed,)
        for rows in pieces(block):
            delta += (rows[:, chosen].sum(-1, dtype=torch.float64).cpu() @ values).tolist()
    return tuple(delta)


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
