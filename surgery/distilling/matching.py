"""Which channels of the teacher a student's channels are: read off the plan that cut the one from the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from surgery.analysis.capture import Program, capture
from surgery.analysis.couple import couple
from surgery.coupling import Coupling
from surgery.deciding.cuts import Cuts
from surgery.distilling.watching import listening
from surgery.errors import CaptureError, InputError
from surgery.inputs import Inputs
from surgery.layout import Bools, Ids, Layout, covered
from surgery.masks import bake, find_coats
from surgery.tensors import named_tensors

HELD = "teacher."
"""What stands before the teacher's names while it is captured together with what its modules hand out."""


@dataclass(frozen=True)
class Match:
    """Where a student's feature lies in the teacher's.

    Attributes:
        dim: The dim of the channels.
        keep: Which positions of the teacher's stay, in order.
        factors: What the cut multiplied the module's outputs by, one for each of those that stay; None for 1.
    """

    dim: int
    keep: Tensor
    factors: Tensor | None = None

    def of(self, feature: Tensor) -> Tensor:
        """The teacher's feature [..., channels, ...] as the student's would be: [..., channels that stay, ...]."""
        kept = feature.index_select(self.dim, self.keep.to(feature.device))
        if self.factors is None:
            return kept
        shape = [-1 if dim == self.dim else 1 for dim in range(kept.dim())]
        return kept * self.factors.to(kept.device, kept.dtype).reshape(shape)


@dataclass(frozen=True)
class Kept:
    """What several cuts, one after the other, leave of every tensor dim of the model before the first.

    Attributes:
        positions: By tensor and dim, under every name of the tensor: `(size before, positions that stay)`.
        factors: By tensor, what the cuts multiply positions of a dim by: `(dim, factor of each position before)`.
    """

    positions: dict[tuple[str, int], tuple[int, Ids]]
    factors: dict[str, tuple[int, np.ndarray[Any, Any]]]

    @staticmethod
    def by(plans: Sequence[Cuts]) -> Kept:
        """The cuts of all plans together.

        Raises:
            InputError: A plan is not of what the one before it leaves.
        """
        kept = Kept({}, {})
        for number, plan in enumerate(plans):
            for scale in plan.scales:
                if scale.positions is not None:  # the gain of a norm changes nothing of what the norm hands out
                    kept._multiply_(scale.name, scale.dim, scale.factor, np.asarray(scale.positions), plan)
            for axis in plan.axes:
                keep = np.asarray(axis.keep, np.int64)
                for name in {axis.name, *axis.aliases}:
                    size, before = kept.positions.get((name, axis.dim), (axis.size, np.arange(axis.size)))
                    if before.size != axis.size:
                        fact = f"plan {number} was made for {name} of {axis.size} on dim {axis.dim}, not {before.size}"
                        raise InputError(fact, "pass the plans in the order in which they cut the model")
                    kept.positions[name, axis.dim] = size, before[keep]
        return kept

    def _multiply_(self, name: str, dim: int, factor: float, positions: Ids, plan: Cuts) -> None:
        size, before = self.positions.get((name, dim), (0, np.empty(0, np.int64)))
        if not size:
            size = plan.shapes[name][dim]
            before = np.arange(size)
        _, factors = self.factors.setdefault(name, (dim, np.ones(size)))
        factors[before[positions]] *= factor


class Matcher:
    """Finds the channels of features of a teacher in a student that plans cut from it.

    The teacher is captured once with the modules' outputs as its own, and run on unit ids, as for every cut: that says
    which channels lie on an output, be it a convolution's, a whole block's or a flattened one.
    """

    def __init__(self, teacher: nn.Module, calls: Mapping[str, int], plans: Sequence[Cuts], call: Inputs) -> None:
        """Capture the teacher.

        Args:
            teacher: The model before the first cut.
            calls: Names of its modules, and how often each is called.
            plans: The plans in the order in which they cut it.
            call: An example of its inputs.

        Raises:
            InputError: It cannot be captured, or the plans are of another model or do not follow each other.
        """
        self.kept = Kept.by(plans)
        teacher = bake(teacher) if find_coats(teacher) else teacher
        _check_sizes(teacher, self.kept)
        program = _captured(teacher, tuple(calls), call)
        self.coupling = couple(program)
        nodes = [leaf for leaf in pytree.tree_leaves(program.nodes[-1].args[0]) if isinstance(leaf, fx.Node)]
        places = [(name, number) for name, count in calls.items() for number in range(count)]
        # buffers that the forward writes come before them
        self.nodes: dict[tuple[str, int], fx.Node] = dict(zip(places, nodes[-len(places) :], strict=True))
        self.gone = _gone(self.coupling, self.kept)

    def match(self, name: str, number: int, teacher: Tensor, student: Tensor) -> Match | None:
        """Where the student's feature lies in the teacher's; None where both are of one shape.

        Args:
            name: The module.
            number: Which of its calls.
            teacher, student: What it hands out in the one and in the other.

        Raises:
            InputError: The plan does not say, with the reason.
        """
        before, after = list(teacher.shape), list(student.shape)
        shapes = f"the teacher's {name!r} hands out {before}, the student's {after}"
        differing = [dim for dim in range(min(len(before), len(after))) if before[dim] != after[dim]]
        if len(before) != len(after) or len(differing) > 1:
            raise InputError(f"{shapes}: they differ by more than channels", "name features that differ by channels")
        if not differing:
            return None
        (dim,) = differing
        layout = self.coupling.layouts.get(self.nodes[name, number].name)
        block = layout.block_of(dim) if isinstance(layout, Layout) else None
        if block is None:
            raise InputError(f"{shapes}: dim {dim} holds no channels that the plan knows", "name another feature")
        if covered(block) != (dim,):
            raise InputError(
                f"{shapes}: its channels lie on several dims together", "name the layer before they are split"
            )
        keep = np.flatnonzero(~self.gone[self.coupling.channel_of[block.ravel()]])
        if keep.size != after[dim]:
            raise InputError(
                f"{shapes}, but the plan leaves {keep.size} of its {before[dim]} channels",
                "pass the plan that cut this student from this teacher (several: in order)",
            )
        return Match(dim, torch.from_numpy(keep), self._factors(name, dim, keep, before[dim]))

    def _factors(self, name: str, dim: int, keep: Ids, size: int) -> Tensor | None:
        """What the cut multiplied the rows of the module's own weight by."""
        factors = self.kept.factors.get(f"{name}.weight")
        if factors is None or factors[1].size != size:
            return None
        return torch.from_numpy(factors[1][keep])


class _Tapped(nn.Module):
    """A model that answers with what some of its modules hand out, call by call."""

    def __init__(self, teacher: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.teacher, self.names = teacher, names

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        with listening(self.teacher, self.names, "teacher") as features:
            self.teacher(*args, **kwargs)
        return tuple(feature for calls in features.values() for feature in calls)


def _captured(teacher: nn.Module, names: tuple[str, ...], call: Inputs) -> Program:
    tapped = _Tapped(teacher, names)
    try:
        with torch.autocast(call.tensors()[0].device.type, enabled=False):
            return capture(tapped, call)
    except CaptureError as error:
        fact = error.fact.replace(type(tapped).__name__, f"the teacher ({type(teacher).__name__})")
        raise InputError(f"the channels of features cannot be followed: {fact}", "leave features= out") from error


def _check_sizes(teacher: nn.Module, kept: Kept) -> None:
    """Whether the plan was made for a model like the teacher.

    Raises:
        InputError: The teacher has a tensor in another size.
    """
    tensors = named_tensors(teacher)
    way_out = "pass the model that the student was cut from as the teacher, or name no features"
    for (name, dim), (size, _) in kept.positions.items():
        if name not in tensors:
            continue  # a bias that an earlier cut made
        has = tensors[name].shape
        whole = has[dim] if dim < len(has) else 0
        if not whole or size % whole:  # of a grouped weight all groups' columns are counted
            raise InputError(
                f"the plan was made for {name} of {size} on dim {dim}, the teacher's is {list(has)}", way_out
            )


def _gone(coupling: Coupling, kept: Kept) -> Bools:
    """Which channels the cuts remove, `[n_channels]`."""
    gone = np.zeros(coupling.n_channels, np.bool_)
    for (name, dim), (size, positions) in kept.positions.items():
        axis = coupling.axes.get((f"{HELD}{name}", dim))
        if axis is not None and axis.ids.size == size:
            removed = np.ones(size, np.bool_)
            removed[positions] = False
            gone[coupling.channel_of[axis.ids.ravel()[removed]]] = True
    return gone
