"""What running a program on unit ids found: axes, ties, pins, rectangles, uses; and the channels that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from surgery.layout import Bools, Ids, Layout, distinct


@dataclass(frozen=True)
class Axis:
    """One dimension of one parameter or buffer.

    Attributes:
        name: The canonical name of the tensor (`"conv1.weight"`); tied tensors share one axis.
        dim: Which dim of it.
        ids: Unit ids, `[size]`; or `[conv_groups, size]` where the weight of a grouped convolution holds the channels
            of each group in its own rows, so that position j means another channel in each.
    """

    name: str
    dim: int
    ids: Ids

    def __str__(self) -> str:
        return f"{self.name}:{self.dim}"


KERNEL = "a convolution's kernel"
UNUSED = "the model does not read it in this forward"
STRUCTURAL = (KERNEL, UNUSED)
"""Reasons of pins on dims that nobody would call channels; reports leave them out."""


@dataclass(frozen=True)
class Pin:
    """Units that must stay, and why."""

    ids: Ids
    reason: str
    node: str


@dataclass(frozen=True)
class Uniform:
    """Rows of units that share their row index: each `arrays[k]` is `[rows, columns_k]`.

    A row is gone from all arrays or from none, and every surviving row keeps the same number of columns, at least one.
    Which columns may differ per row. With `rows_stay` no row may go.
    """

    arrays: tuple[Ids, ...]
    rows_stay: bool
    node: str


@dataclass(frozen=True)
class Outer:
    """Units on a grid, each there where both its row and its column are: query heads that share a key head.

    Attributes:
        cells: `[a, b, ...]`.
        rows, columns: The two that each cell stands for, broadcast to the cells.
        node: Where it came about.
    """

    cells: Ids
    rows: Ids
    columns: Ids
    node: str


@dataclass(frozen=True)
class Copies:
    """Units that are laid out several times: a key head that serves several query heads.

    Attributes:
        copies: `[..., times, ...]`, units of their own.
        originals: What each is a copy of; as large.
        dim: The dim along which the copies of one unit lie.
        node: Where it came about.
    """

    copies: Ids
    originals: Ids
    dim: int
    node: str


class LedgerError(Exception):
    """The ledger refuses what a rule writes down: a second run is not like the first."""


Orientation = Literal["out_in", "in_out"]


@dataclass(frozen=True)
class Use:
    """A place where channels are consumed for good: a contraction with a weight or with each other, or a sum over them.

    Attributes:
        node: The op's node.
        operand: The node whose value is consumed; None where no node holds it, and nothing is known of it.
        dims: The dims of it along which the channels lie, in the order of `ids`.
        ids: `[conv_groups, inputs per group]`, the channels in the order in which they arrive.
        rows: `[conv_groups, outputs per group]`, the channels that read them; None where every reader counts.
        weight: The weight's node; None for a plain sum over the channels, where only exact zeros may go.
        orientation: `out_in` for weights `[out, in / conv_groups, ...]`, `in_out` for `[in, out / conv_groups, ...]`.
        lead: So many dims of the weight come before these two (experts); it counts as read where any of them reads.
        bias: The bias' node, or None.
        borders: Whether a constant other than zero meets a border here (zero padding, transposed kernels).
        partner: Where two activations are contracted, the other one's node and dims: what is zero in it is not read.
        part: Which output of the operand's node, and which positions of its dim 0 (the hidden states of layers).
    """

    node: str
    operand: str | None
    dims: tuple[int, ...]
    ids: Ids
    rows: Ids | None = None
    weight: str | None = None
    orientation: Orientation = "out_in"
    lead: int = 0
    bias: str | None = None
    borders: bool = False
    partner: tuple[str, tuple[int, ...]] | None = None
    part: tuple[int, tuple[int, ...]] | None = None

    @property
    def weight_dims(self) -> tuple[int, int]:
        """The weight's dim that hands channels out, and the one that reads them."""
        return (self.lead, self.lead + 1) if self.orientation == "out_in" else (self.lead + 1, self.lead)


@dataclass(frozen=True)
class NormSite:
    """One norm by a mean over channels that a cut can make up for.

    Attributes:
        node: The op that averages (`mean`, or `rms_norm` itself).
        gain: The gain's name.
        offset: What the code adds to the gain: 1 in `x * (1 + weight)`.
        eps_node: The op that takes eps, and the name of its argument.
        eps: Its value as the code has it; None stands for the dtype's own.
        module: Path of the module that holds eps.
        attribute: Its attribute.
        value: The eps that is added.
        power: With n′ of n channels left the gain is to be `(n / n′) ** power` of itself: a half for root mean squares.
    """

    node: str
    gain: str
    offset: int
    eps_node: str
    eps_argument: str
    module: str
    attribute: str
    eps: float | None
    value: float
    power: float = 0.5


@dataclass(frozen=True)
class NormUse:
    """A mean over channels `[n]`: zeros may go where its gain and its eps take up the new width."""

    site: NormSite
    ids: Ids


@dataclass(frozen=True)
class ScaledUse:
    """An attention without an explicit scale: it divides by the root of the width of its queries.

    Attributes:
        node: The attention's node.
        query: The node of its queries.
        ids: The queries' units, `[heads, width]`.
    """

    node: str
    query: str
    ids: Ids


@dataclass
class Ledger:
    """What the rules write down while a program runs on unit ids (mutable; `close` makes a Coupling of it)."""

    n_ids: int = 0
    axes: dict[tuple[str, int], Axis] = field(default_factory=dict)
    layouts: dict[str, Layout | tuple[Layout, ...]] = field(default_factory=dict)
    ties: list[tuple[Ids, Ids]] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)
    uniforms: list[Uniform] = field(default_factory=list)
    outers: list[Outer] = field(default_factory=list)
    copies: list[Copies] = field(default_factory=list)
    norms: list[NormUse] = field(default_factory=list)
    scaled: list[ScaledUse] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    producers: list[tuple[str, int]] = field(default_factory=list)
    unruled: dict[str, list[str]] = field(default_factory=dict)
    anonymous: list[tuple[str, str, Ids]] = field(default_factory=list)
    flags: Bools = field(default_factory=lambda: np.zeros(0, bool))

    def fresh(self, size: int) -> Ids:
        """`size` new ids."""
        self.n_ids += size
        return np.arange(self.n_ids - size, self.n_ids, dtype=np.int64)

    def scratch(self) -> Bools:
        """Room for a flag per unit, all False; whoever sets any clears them again."""
        if self.flags.size < self.n_ids:
            self.flags = np.zeros(2 * self.n_ids, bool)
        return self.flags

    def close(self) -> Coupling:
        """Find the channels: the connected components of the ties."""
        kind = np.int32 if self.n_ids < 2**31 else np.int64  # what scipy counts in: nothing is copied
        left, right = (_joined([pair[side] for pair in self.ties], kind) for side in (0, 1))
        graph = coo_array((np.ones(left.size, np.int8), (left, right)), shape=(self.n_ids, self.n_ids))
        n_channels, channel = connected_components(graph, directed=False) if self.n_ids else (0, np.empty(0, np.int64))
        return Coupling(
            channel_of=channel.astype(np.int64),
            n_channels=int(n_channels),
            axes=self.axes,
            layouts=self.layouts,
            pins=tuple(self.pins),
            uniforms=tuple(self.uniforms),
            outers=tuple(self.outers),
            copies=tuple(self.copies),
            norms=tuple(self.norms),
            scaled=tuple(self.scaled),
            uses=tuple(self.uses),
            producers=tuple(self.producers),
            unruled={op: tuple(nodes) for op, nodes in self.unruled.items()},
            anonymous=tuple(self.anonymous),
        )


def _joined(arrays: Sequence[Ids], kind: type[np.integer[Any]]) -> npt.NDArray[Any]:
    flat = [array.ravel() for array in arrays] or [np.empty(0, np.int64)]
    return np.concatenate(flat, dtype=kind, casting="same_kind")


@dataclass(frozen=True)
class Coupling:
    """Channels (sets of coupled units) over the axes of a program.

    Attributes:
        channel_of: The channel of every unit id, `[n_ids]`.
        n_channels: How many there are.
        axes: Every tracked dimension of a parameter or buffer, by (name, dim).
        layouts: The layout of every value of the program, by node name.
        producers: Tables that hand channels out without contracting any: the table's node, and the dim.
        anonymous: Ids that belong to no parameter: `(the node that made them, what they are, ids)`.
        unruled: Ops without a rule that tracked units reached, with their nodes.
    """

    channel_of: Ids
    n_channels: int
    axes: Mapping[tuple[str, int], Axis]
    layouts: Mapping[str, Layout | tuple[Layout, ...]]
    pins: tuple[Pin, ...]
    uniforms: tuple[Uniform, ...]
    outers: tuple[Outer, ...]
    copies: tuple[Copies, ...]
    norms: tuple[NormUse, ...]
    scaled: tuple[ScaledUse, ...]
    uses: tuple[Use, ...]
    producers: tuple[tuple[str, int], ...]
    unruled: Mapping[str, tuple[str, ...]]
    anonymous: tuple[tuple[str, str, Ids], ...]

    @cached_property
    def pin_of(self) -> Ids:
        """For every channel the index of the first pin that holds it, or -1, `[n_channels]`."""
        first = np.full(self.n_channels, -1, np.int64)
        for index in range(len(self.pins) - 1, -1, -1):
            first[self.channel_of[self.pins[index].ids]] = index
        return first

    @cached_property
    def incidence(self) -> tuple[Ids, Ids]:
        """Which channels live on which axes: `(position among the axes, channel)` of every pair, each once."""
        channels = [self.channel_of[axis.ids].ravel() for axis in self.axes.values()]
        axes = np.repeat(np.arange(len(channels)), [each.size for each in channels])
        pairs = distinct(axes * self.n_channels + np.concatenate([*channels, np.empty(0, np.int64)]))
        return np.divmod(pairs, max(self.n_channels, 1))

    @cached_property
    def group_of(self) -> Ids:
        """The group of every channel: channels that live on the same axes are one group, `[n_channels]`."""
        generator = np.random.default_rng(0)
        axes, channels = self.incidence
        signature = np.zeros(self.n_channels, np.uint64)
        np.add.at(signature, channels, generator.integers(1, 2**63, len(self.axes), dtype=np.uint64)[axes])
        # channels on the same axes but consumed side by side (the halves of a chunk) come apart where only one is tied
        _, groups = np.unique(signature, return_inverse=True)
        return groups.astype(np.int64)

    @cached_property
    def following(self) -> Bools:
        """Channels on no axis that only say whether a head or a copy is there: they go with it, `[n_channels]`."""
        made = np.zeros(self.n_channels, bool)
        for _, kind, ids in self.anonymous:
            made[self.channel_of[ids]] |= kind != "channels"
        following: Bools = made & self.virtual
        return following

    @cached_property
    def reported(self) -> Bools:
        """Channels that are worth a person's time: on some parameter's axis, and no mere extent, `[n_channels]`."""
        structural = np.array([pin.reason in STRUCTURAL for pin in self.pins] + [False])
        reported: Bools = ~self.virtual & ~structural[self.pin_of]
        return reported

    @cached_property
    def virtual(self) -> Bools:
        """Channels on no axis of any parameter, `[n_channels]`."""
        real = np.zeros(self.n_channels, bool)
        for axis in self.axes.values():
            real[self.channel_of[axis.ids]] = True
        return ~real
