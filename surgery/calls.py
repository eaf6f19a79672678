"""What a rule sees of one op in the program, and what it may write down about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from surgery.coupling import Ledger, NormSite, NormUse, Orientation, Outer, Pin, Uniform, Use
from surgery.known import Known, Memo
from surgery.layout import Ids, Layout, Shape, covered, on_dim


@dataclass(frozen=True)
class Value:
    """An operand.

    Attributes:
        node: The node that made it.
        layout: Its layout.
        parameter: The parameter's name where it is one.
        settled: Whether it is made of parameters alone, whatever the input.
        numbers: Its positions by number, where it is a list of them that the code wrote down; None for all else.
    """

    node: str
    layout: Layout
    parameter: str | None = None
    settled: bool = False
    numbers: tuple[int, ...] | None = None

    @property
    def shape(self) -> Shape:
        """The tensor's shape."""
        return self.layout.shape


def short_name(target: Any) -> str:
    """`layer_norm` of `aten.layer_norm.default`; of what is no such op, all of it."""
    parts = str(target).split(".")
    return parts[1] if len(parts) > 1 else parts[0]


class Call:
    """One op, as a coupling rule sees it.

    Attributes:
        node: The node's name.
        op: The op overload's name.
        shape: The output's shape (of the first output where there are several).
        shapes: The shapes of all outputs.
        ledger: Where ties, pins and uses are written.
        accounted: Id arrays that this call has used, pinned or the like; the engine checks that none is lost.
        tied: Pairs of id arrays that this call has tied: one side is no more lost than the other.
        norm: Where the op averages for a norm that a cut can make up for, that norm.
        idle: Whether the op only reduces and nothing comes of the answer: it reads nobody and holds nobody.
    """

    norm: NormSite | None = None
    idle: bool = False

    def __init__(self, node: str, op: str, shapes: Sequence[Shape], ledger: Ledger) -> None:
        self.node, self.op, self.shapes, self.ledger = node, op, tuple(shapes), ledger
        self.accounted: list[Ids] = []
        self.tied: list[tuple[Ids, Ids]] = []

    @property
    def shape(self) -> Shape:
        """The (first) output's shape."""
        return self.shapes[0]

    @property
    def name(self) -> str:
        """The op's short name, for reasons: `layer_norm`."""
        return short_name(self.op)

    def tie(self, a: Ids, b: Ids) -> None:
        """Units at the same positions can only be removed together."""
        left, right = np.broadcast_arrays(a, b)
        if left is not right:
            self.ledger.ties.append((left, right))
        self.tied.append((left, right))

    def apart(self, a: Ids, b: Ids) -> bool:
        """Whether some of these units, position by position, are known to be of different channels: none at first."""
        return False

    def pin(self, ids: Ids, reason: str) -> None:
        """These units must stay."""
        if ids.size:
            self.accounted.append(ids)
            if not self.idle:
                self.ledger.pins.append(Pin(ids.ravel(), reason, self.node))

    def hold(self, layout: Layout, dims: Iterable[int], reason: str) -> Layout:
        """These dims keep their size: pinned, or (inside a joint block) whole rows go or stay."""
        blocks = list(layout.blocks)
        for dim in dims:
            for index, block in enumerate(blocks):
                if block.shape[dim] == 1:
                    continue
                if covered(block) == (dim,):
                    self.pin(block, reason)
                    del blocks[index]
                else:
                    first = block.take([0], axis=dim)
                    self.tie(block, first)
                    blocks[index] = first
                break
        return Layout(layout.shape, tuple(blocks), layout.stretched)

    def fix(self, layout: Layout, dims: Iterable[int], reason: str) -> Layout:
        """As `hold`, where the output has the same dims: pinned units flow on, and later ties know the reason."""
        held = self.hold(layout, dims, reason)
        kept = [b for b in layout.blocks if len(covered(b)) == 1 and not any(b is h for h in held.blocks)]
        return Layout(layout.shape, (*held.blocks, *kept))

    def hold_all(self, value: Value | Sequence[Value] | Any, reason: str) -> None:
        """Pin every unit of an operand (or of each operand in a list); anything else is ignored."""
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, Value):
                for block in one.layout.blocks:
                    self.pin(block, reason)

    def only(self, value: Value, dims: Iterable[int], reason: str) -> Layout:
        """The operand's layout with every dim held but `dims`."""
        keep = {d % value.layout.rank for d in dims}
        return self.hold(value.layout, [d for d in range(value.layout.rank) if d not in keep], reason)

    def uniform(self, *arrays: Ids, rows_stay: bool) -> None:
        """Every surviving row keeps as many columns as the others (see `Uniform`)."""
        self.ledger.uniforms.append(Uniform(arrays, rows_stay, self.node))
        self.accounted += arrays

    def fresh(self, size: int, kind: str = "channels") -> Ids:
        """New units that belong to no parameter; `kind` says what they are, where an op makes several."""
        ids = self.ledger.fresh(size)
        self.ledger.anonymous.append((self.node, kind, ids))
        return ids

    def delegate(self, value: Value, dim: int, ids: Ids) -> None:
        """A grouped weight's `dim`: its position j means `ids[g, j]` in group g. Its own unit ids are not used.

        Where the weight is computed, or its dim answers to other channels already, the groups must agree.
        """
        placeholder = value.layout.block_of(dim)
        if placeholder is None:
            return
        own = placeholder.ravel()
        axis = self.ledger.axes.get((value.parameter, dim)) if value.parameter else None
        if axis is None or (axis.ids.ndim == 1 and not np.array_equal(axis.ids, own)):
            self.tie(ids, own[None, :])
        elif axis.ids.ndim == 2 and axis.ids.shape == ids.shape:
            self.tie(axis.ids, ids)
        elif axis.ids.ndim == 2:
            self.pin(axis.ids, f"{axis.name} is used with different conv_groups")
            self.pin(ids, f"{axis.name} is used with different conv_groups")
        else:
            self.ledger.axes[(axis.name, dim)] = type(axis)(axis.name, dim, ids)
        self.accounted.append(own)

    def use(
        self,
        operand: Value | None,
        dims: int | tuple[int, ...],
        ids: Ids,
        *,
        rows: Ids | None = None,
        weight: Value | None = None,
        orientation: Orientation = "out_in",
        lead: int = 0,
        bias: Value | None = None,
        borders: bool = False,
        partner: tuple[str, tuple[int, ...]] | None = None,
        part: tuple[int, tuple[int, ...]] | None = None,
    ) -> None:
        """Record that `operand`'s channels `ids` `[conv_groups, n]` along `dims` are consumed here (see `Use`)."""
        self.accounted.append(ids)
        if self.idle:
            return
        self.ledger.uses.append(
            Use(
                node=self.node,
                operand=operand.node if operand else None,
                dims=(dims,) if isinstance(dims, int) else dims,
                ids=ids,
                rows=rows,
                weight=weight.node if weight else None,
                orientation=orientation,
                lead=lead,
                bias=bias.node if bias else None,
                borders=borders,
                partner=partner,
                part=part,
            )
        )

    def normalize(self, operand: Value, dim: int) -> bool:
        """Record that a norm averages over `dim`, where its gain and eps can make up for zeros that go."""
        block = operand.layout.block_of(dim)
        if self.norm is None or block is None or covered(block) != (dim,):
            return False
        self.use(operand, dim, block.reshape(1, -1))
        self.ledger.norms.append(NormUse(self.norm, block.ravel()))
        return True

    def outer(self, rows: Ids, columns: Ids, cells: Ids | None = None) -> Ids:
        """Units (new ones, if none are given), each there where its row and its column are; both are broadcast."""
        shape = np.broadcast_shapes(rows.shape, columns.shape)
        cells = self.fresh(int(np.prod(shape)), "cells").reshape(shape) if cells is None else cells
        self.ledger.outers.append(
            Outer(cells, np.broadcast_to(rows, shape), np.broadcast_to(columns, shape), self.node)
        )
        self.accounted += [rows, columns]
        return cells

    def produce(self, table: Value, dim: int) -> None:
        """Record that `table`'s `dim` hands channels out, as an embedding's does: masking zeroes it there."""
        self.ledger.producers.append((table.node, dim))

    def channels(self, value: Value, dim: int) -> tuple[Layout, Ids | None]:
        """The operand with `dim` a block of its own (`[size]`, or None if untracked).

        Where the dim is part of a joint block, positions along the block's other dims are tied.
        """
        layout = value.layout
        block = layout.block_of(dim)
        if block is not None and len(covered(block)) > 1:
            others = [d for d in covered(block) if d != dim]
            layout = self.hold(layout, others, f"{self.name} treats all positions of dim {others[0]} alike")
            block = layout.block_of(dim)
        return layout, None if block is None else block.ravel()

    def rows_of(self, block: Ids, dim: int, *, rows_stay: bool) -> None:
        """The positions of `dim` of a joint block are rows that keep equal numbers of columns."""
        self.uniform(np.moveaxis(block, dim, 0).reshape(block.shape[dim], -1), rows_stay=rows_stay)

    def placed(self, ids: Ids | None, rank: int, dim: int) -> tuple[Ids, ...]:
        """`ids` as the blocks of a layout that tracks `dim` only."""
        return () if ids is None or ids.size < 2 else (on_dim(ids, rank, dim),)


class KnownCall:
    """One op, as the constant side of a rule sees it.

    Attributes:
        dtype: The precision in which constants are computed.
        target: The op itself.
        arguments: All its arguments by name, tensors as `Known`.
        memo: What was found of the program's weights before.
    """

    def __init__(
        self, target: Any, arguments: dict[str, Any], shapes: Sequence[Shape], dtype: torch.dtype, memo: Memo
    ) -> None:
        self.target, self.arguments, self.shapes, self.dtype, self.memo = target, arguments, tuple(shapes), dtype, memo

    @property
    def shape(self) -> Shape:
        """The (first) output's shape."""
        return self.shapes[0]

    @property
    def name(self) -> str:
        """The op's short name: `layer_norm`."""
        return short_name(self.target)

    def anything(self) -> Any:
        """Every output varies."""
        outputs = tuple(Known.anything(shape) for shape in self.shapes)
        return outputs[0] if len(outputs) == 1 else outputs
