"""Cuts: what is cut, folded and set, decided before anything is touched. Plain data; JSON in and out.

`surgery.Plan` is this and the doors that apply it (`surgery/plans.py`, some floors up).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from surgery.analysis.graph_specs import GraphSpec
from surgery.caches import forget_
from surgery.deciding.aims import Aim
from surgery.errors import InputError, PlanError
from surgery.masks import bake
from surgery.tensors import named_tensors

FORMAT_VERSION = 1
MAX_POSITION = 2**62


@dataclass(frozen=True)
class AxisCut:
    """What stays of one dim of one tensor.

    Attributes:
        name: The tensor's canonical name; `aliases` are all its names (tied tensors have several).
        dim: The dim.
        size: Its size before; for a grouped weight, `conv_groups` times the dim's size.
        keep: Positions that stay, in order. For a grouped weight position `g * n + j` is column j of conv group g.
        conv_groups: Above 1 for the dim of a grouped convolution's weight that is gathered group by group.
        why: For every position the index of its reason in `Cuts.reasons`, -1 where it is removed; a single number
            where all are alike.
    """

    name: str
    dim: int
    size: int
    keep: tuple[int, ...]
    conv_groups: int = 1
    aliases: tuple[str, ...] = ()
    why: tuple[int, ...] = ()

    @property
    def removed(self) -> int:
        """How many positions go."""
        return self.size - len(self.keep)


@dataclass(frozen=True)
class Fold:
    """A bias takes up what removed constants still added: `bias += delta` (made where there was none)."""

    bias: str
    delta: tuple[float, ...]


@dataclass(frozen=True)
class Carry:
    """At a border, one column takes over others: `W[:, onto] += sum over i of W[:, take[i]] * ratio[i]`.

    Positions count over conv groups: `g * n + j`.
    """

    weight: str
    conv_groups: int
    orientation: str
    onto: int
    take: tuple[int, ...]
    ratio: tuple[float, ...]


@dataclass(frozen=True)
class Scale:
    """A tensor is multiplied: `w = (w + offset) * factor - offset`, at some positions of a dim or (None) at all.

    It keeps what a norm or an attention computes where its width, which it divides by, is another now.
    """

    name: str
    factor: float
    offset: int = 0
    dim: int = 0
    positions: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Zeros:
    """Positions along one dim of a tensor that masking sets to zero."""

    name: str
    dim: int
    positions: tuple[int, ...]
    conv_groups: int = 1


@dataclass(frozen=True)
class Edit:
    """A number in a module that the cut changes: `module.attribute` (or one entry of a tuple) from `old` to `new`."""

    module: str
    attribute: str
    old: int | float | None
    new: int | float
    index: int | None = None


@dataclass(frozen=True)
class Rewrite:
    """A number in the place of an expression in a method of one module.

    Attributes:
        module: The module's path.
        functions: The method and, where a function that it calls holds the expression, the names down to that.
        place: First line, column, last line and column of the expression; lines count from the function's first.
        text: The expression.
        old, new: What it is, and what it is to be.
        index: Which entry, where the expression is of several sizes; None where it is the number.
    """

    module: str
    functions: tuple[str, ...]
    place: tuple[int, int, int, int]
    text: str
    old: int
    new: int
    index: int | None = None


@dataclass(frozen=True)
class GroupCut:
    """One group of channels: how many there were, are removed, and are zeroed but stranded.

    Attributes:
        name: The tensor that hands the channels out first.
        axes: Every `tensor:dim` that they live on.
        channels: How many channels.
        removed: How many go.
        stranded: How many are zeroed in some producer and stay all the same.
        blockers: Why those stay, each with its count.
        keep_alive: By producer, how many of the alignable channels it keeps alive, the one with the most first.
        alignable: How many of the stranded ones stay because another producer did not zero them: masks that agree
            free them.
        pinned: How many of the stranded ones are pinned: masks that agree do not free them.
    """

    name: str
    axes: tuple[str, ...]
    channels: int
    removed: int
    stranded: int = 0
    blockers: tuple[tuple[str, int], ...] = ()
    keep_alive: tuple[tuple[str, int], ...] = ()
    alignable: int = 0
    pinned: int = 0


@dataclass(frozen=True)
class Cuts:
    """Which channels go, what is folded where, which numbers change.

    Attributes:
        axes: What stays of every tensor dim (also of those that stay whole, so that they can be explained).
        folds, carries, scales: Writes to what stays, done before the cut.
        zeros: What `mask` zeroes so that the channels are dead.
        edits: Sizes that the model's own code keeps as attributes.
        rewrites: Sizes that it computes, where no attribute says what they should be.
        groups: The same by group, for people.
        reasons: Why positions stay.
        shapes: Shape of every tensor before the cut, by canonical name.
        checksums: Of every tensor that the constants rest on, after `mask`; empty where nothing was folded.
        unused: Tensors that the captured forward never reads; they are left as they are.
        aim: The latency that they were chosen for, and what was measured; None where none was asked for.
        graph: What is cut is not the model itself but its captured graph; None where its own class lives on.
    """

    axes: tuple[AxisCut, ...]
    folds: tuple[Fold, ...] = ()
    carries: tuple[Carry, ...] = ()
    scales: tuple[Scale, ...] = ()
    zeros: tuple[Zeros, ...] = ()
    edits: tuple[Edit, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()
    groups: tuple[GroupCut, ...] = ()
    reasons: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    checksums: Mapping[str, int] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    graph: GraphSpec | None = None
    aim: Aim | None = None
    format_version: int = FORMAT_VERSION

    @property
    def removed_channels(self) -> int:
        """How many channels go, over all groups."""
        return sum(group.removed for group in self.groups)

    @property
    def elements_left(self) -> int:
        """How many elements of all tensors stay."""
        left = {name: math.prod(shape) for name, shape in self.shapes.items()}
        for axis in self.axes:
            if axis.size:
                left[axis.name] = left[axis.name] * len(axis.keep) // axis.size
        return sum(left.values())

    @property
    def empty(self) -> bool:
        """Whether nothing goes."""
        return all(axis.removed == 0 for axis in self.axes)

    def axis(self, parameter: str, dim: int = 0) -> AxisCut:
        """The cut of one dim of a tensor, by any of its names.

        Raises:
            InputError: The plan knows no such tensor or dim.
        """
        for axis in self.axes:
            if axis.dim == dim and parameter in (axis.name, *axis.aliases):
                return axis
        names = sorted({alias for axis in self.axes for alias in (axis.name, *axis.aliases)})
        close = difflib.get_close_matches(parameter, names, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"it knows {len(names)} tensors, e.g. {names[:3]}"
        raise InputError(f"the plan has no dim {dim} of {parameter!r}", hint)

    def explain(self, parameter: str, index: int, dim: int = 0) -> str:
        """Why one channel is removed, or why it is still here.

        Args:
            parameter: A tensor's name, such as `"layer1.0.conv1.weight"`.
            index: The position along `dim`.

        Raises:
            InputError: No such tensor, dim or position.
        """
        axis = self.axis(parameter, dim)
        if not 0 <= index < axis.size:
            raise InputError(
                f"{parameter} has no position {index} on dim {dim}", f"positions run from 0 to {axis.size - 1}"
            )
        code = axis.why[index if len(axis.why) > 1 else 0] if axis.why else -2
        verdict = "stays" if code != -1 else "is removed"
        reason = self.reasons[code] if code >= 0 else "dead: everything that reads it sees a zero column or a constant"
        return f"{parameter}[{index}] (dim {dim}) {verdict}: {reason}"

    def explain_group(self, group: GroupCut) -> str:
        """Why a group's channels stay, in one line: the most frequent reason."""
        tensor, _, dim = group.axes[0].rpartition(":")
        axis = self.axis(tensor, int(dim))
        codes, counts = np.unique(np.asarray(axis.why, np.int64), return_counts=True)
        code = int(codes[counts.argmax()])
        return f"{group.name}: {self.reasons[code]}" if code >= 0 else f"{group.name}: dead"

    def to_json(self) -> str:
        """The plan as JSON text."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """A plan from JSON text, checked against its schema.

        Raises:
            PlanError: Not JSON, not a plan, a newer format, or positions out of range or doubled.
        """
        try:
            plan = msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
            raise PlanError(f"this is not a plan: {error}", "write plans with Plan.to_json()") from error
        if plan.format_version > FORMAT_VERSION:
            raise PlanError(
                f"the plan has format {plan.format_version}, this version reads up to {FORMAT_VERSION}",
                "upgrade surgery",
            )
        plan._check()
        return plan

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """A plan from a JSON file."""
        try:
            return cls.from_json(Path(path).read_bytes())
        except OSError as error:
            raise PlanError(
                f"cannot read the plan {path}: {error.strerror}", "name a file that Plan.to_json() wrote"
            ) from error

    def _check(self) -> None:
        for rewrite in self.rewrites:
            if not rewrite.functions:
                raise PlanError(f"the rewrite of {rewrite.text!r} names no function", "name the method that holds it")
        for axis in self.axes:
            if any(abs(position) > MAX_POSITION for position in axis.keep):
                fact = f"{axis.name}: position {max(axis.keep)} of {axis.size} on dim {axis.dim}"
                raise PlanError(fact, "positions are below the size")
            keep = np.asarray(axis.keep, np.int64)
            if keep.size and (keep.min() < 0 or keep.max() >= axis.size):
                raise PlanError(
                    f"{axis.name}: position {keep.max()} of {axis.size} on dim {axis.dim}",
                    "positions are below the size",
                )
            if not keep.size and axis.size:
                raise PlanError(f"{axis.name}: nothing would be left of dim {axis.dim}", "keep at least one position")
            if np.unique(keep).size != keep.size or (np.diff(keep) < 0).any():
                raise PlanError(
                    f"{axis.name}: doubled or unordered positions on dim {axis.dim}",
                    "list each position once, in order",
                )
            if axis.conv_groups < 1 or axis.size % axis.conv_groups:
                raise PlanError(
                    f"{axis.name}: {axis.size} positions in {axis.conv_groups} conv_groups",
                    "the groups must divide the size",
                )

    def mask(self, model: nn.Module) -> nn.Module:
        """A copy of the model, in its old shapes, in which everything that the plan removes is zero.

        The producers' weight slices are zeroed, as `torch.nn.utils.prune` does (biases and shifts stay), and columns
        of consumers only where the channels would not be dead without. `shrink` of it is exact.
        """
        return self.mask_(bake(model))

    def mask_(self, model: nn.Module) -> nn.Module:
        """`mask`, in place.

        Raises:
            PlanError: The model lacks a tensor of the plan, or has it in another shape.
        """
        tensors = self.tensors_of(model)
        with torch.no_grad():
            for zeros in self.zeros:
                zero_(tensors[zeros.name], zeros)
        forget_(model)
        return model

    def tensors_of(self, model: nn.Module) -> dict[str, Tensor]:
        """The model's tensors by name, checked against the plan's shapes.

        Raises:
            PlanError: A tensor is missing or has another shape.
        """
        tensors = named_tensors(model)
        for name, shape in self.shapes.items():
            if name not in tensors:
                raise PlanError(f"the model has no {name}", "apply the plan to the model it was made from")
            if tuple(tensors[name].shape) != tuple(shape):
                raise PlanError(
                    f"{name} is {list(tensors[name].shape)}, the plan was made for {list(shape)}",
                    "apply the plan to the model it was made from, not to one already cut",
                )
        return tensors

    def __str__(self) -> str:
        cut = [g for g in self.groups if g.removed]
        total = sum(g.channels for g in self.groups)
        lines = [f"plan: {self.removed_channels} of {total} channels go, in {len(cut)} of {len(self.groups)} groups"]
        lines += [f"  {g.name}: {g.channels} -> {g.channels - g.removed}" for g in cut[:20]]
        lines += [f"  ... and {len(cut) - 20} more groups"] if len(cut) > 20 else []
        lines += [f"  {len(self.folds)} folds, {len(self.carries)} carriers, {len(self.edits)} edited sizes"]
        lines += [f"  {self.aim}"] if self.aim is not None else []
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def zero_(tensor: Tensor, zeros: Zeros) -> None:
    """Zero the positions along one dim (of a grouped weight: column j of conv group g only)."""
    positions = torch.tensor(zeros.positions, dtype=torch.long, device=tensor.device)
    if zeros.conv_groups == 1:
        tensor.index_fill_(zeros.dim, positions, 0)
        return
    per_group = tensor.shape[zeros.dim]
    view = tensor.movedim(zeros.dim, 1).unflatten(0, (zeros.conv_groups, -1))  # (g, other, n, ...)
    view[positions // per_group, :, positions % per_group] = 0


IN_CACHE = 1 << 16
"""Elements that are summed at once, so that they stay in the processor's cache."""


def checksum(tensor: Tensor) -> int:
    """The sum of a tensor's bits: equal for equal weights, cheap enough to take of every tensor.

    A mask that is multiplied in leaves -0 where a mask that is written leaves 0: they count as the same.
    """
    total = 0
    for piece in tensor.detach().cpu().contiguous().view(-1).split(IN_CACHE):
        raw = (piece + 0.0 if piece.is_floating_point() else piece).view(torch.uint8).numpy()
        whole = raw.size // 8 * 8
        total += int(raw[:whole].view(np.int64).sum()) + int(raw[whole:].sum())
    return total
