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
from surgery.deciding.bypasses import Bypass, check_modules, goes_whole
from surgery.deciding.checksums import check_shapes
from surgery.deciding.parts import AxisCut, Carry, Edit, Fold, GroupCut, Rewrite, Scale, Zeros
from surgery.errors import InputError, PlanError
from surgery.masks import bake
from surgery.tensors import named_tensors

FORMAT_VERSION = 1
MAX_POSITION = 2**62


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
        made: Biases that the model was given before the cut (`compensate`), and its class has not.
        unused: Tensors that the captured forward never reads; they are left as they are.
        aim: The latency that they were chosen for, and what was measured; None where none was asked for.
        bypasses: Whole modules that go, before anything else; the cuts are of what is left.
        renumbered: Places in a cache that are others without them.
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
    made: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    graph: GraphSpec | None = None
    aim: Aim | None = None
    bypasses: tuple[Bypass, ...] = ()
    renumbered: tuple[Edit, ...] = ()
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
        return not self.bypasses and all(axis.removed == 0 for axis in self.axes)

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
        for bypass in self.bypasses:
            if goes_whole([bypass], parameter):
                return f"{parameter} is removed with all of {bypass.module}: {bypass.why}"
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
        of consumers only where the channels would not be dead without. `shrink` of it is exact (with `depth=True` where
        modules go as a whole).
        """
        return self.mask_(bake(model))

    def mask_(self, model: nn.Module) -> nn.Module:
        """`mask`, in place.

        Raises:
            PlanError: The model lacks a tensor of the plan, or has it in another shape.
        """
        tensors = self.tensors_of(model)
        check_modules(model, self.bypasses)
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
        check_shapes(tensors, self.shapes)
        return tensors

    def __str__(self) -> str:
        cut = [g for g in self.groups if g.removed]
        total = sum(g.channels for g in self.groups)
        lines = [f"plan: {self.removed_channels} of {total} channels go, in {len(cut)} of {len(self.groups)} groups"]
        if self.bypasses:
            count = "one module goes" if len(self.bypasses) == 1 else f"{len(self.bypasses)} modules go"
            lines[:1] = [f"plan: {count} as a whole: {self.named_bypasses()}", f"  {lines[0][6:]}"]
        lines += [f"  {g.name}: {g.channels} -> {g.channels - g.removed}" for g in cut[:20]]
        lines += [f"  ... and {len(cut) - 20} more groups"] if len(cut) > 20 else []
        lines += [f"  {len(self.folds)} folds, {len(self.carries)} carriers, {len(self.edits)} edited sizes"]
        lines += [f"  {self.aim}"] if self.aim is not None else []
        return "\n".join(lines)

    def named_bypasses(self, most: int = 8) -> str:
        """The modules that go as a whole, the first of them by name."""
        paths = [bypass.module for bypass in self.bypasses]
        return ", ".join(paths[:most]) + (f" and {len(paths) - most} more" if len(paths) > most else "")

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
