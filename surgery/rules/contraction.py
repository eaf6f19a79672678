"""Contractions of two tensors as equations over labelled dims: `"bhnd,bhmd->bhnm"`; matmul, bmm, einsum and their like.

A label of both operands that is not in the output is contracted. Every block is laid over all labels of the equation,
so that what follows is broadcasting:

* contracted channels are tied, and read by what they are contracted into;
* where a contraction swallows the columns of `[rows, columns]` (the width of heads), the rows go on as units of their
  own, each gone from both operands, the output and whatever it meets there, or from none;
* rows of one operand that meet `[rows, columns]` of the other (attention weights and values) are read by those columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgery.calls import Call, KnownCall, Value
from surgery.coupling import Orientation
from surgery.known import Known
from surgery.layout import Ids, Layout, covered
from surgery.rules.copies import laid_out
from surgery.rules.grids import gridded


@dataclass(frozen=True)
class Equation:
    """Labels of the dims of two operands and of their product."""

    left: str
    right: str
    output: str

    @property
    def every(self) -> str:
        """All labels, those of the output first."""
        return self.output + "".join(c for c in dict.fromkeys(self.left + self.right) if c not in self.output)

    @property
    def contracted(self) -> list[int]:
        """Positions in `every` of the labels of both operands that the output lacks."""
        return [i for i, c in enumerate(self.every) if c in self.left and c in self.right and c not in self.output]

    @property
    def summed(self) -> list[int]:
        """Positions in `every` of the labels of one operand that the output lacks."""
        return [i for i, c in enumerate(self.every) if (c in self.left) != (c in self.right) and c not in self.output]

    @property
    def plain(self) -> bool:
        """Whether no operand has a label twice."""
        return all(len(set(labels)) == len(labels) for labels in (self.left, self.right, self.output))

    def lifted(self, array: Any, labels: str) -> Any:
        """An array over one operand's dims as an array over all labels (numpy or torch)."""
        order = sorted(range(len(labels)), key=lambda d: self.every.index(labels[d]))
        array = array.transpose(order) if isinstance(array, np.ndarray) else array.permute(order)
        sizes = dict(zip((labels[d] for d in order), array.shape, strict=True))
        return array.reshape([sizes.get(c, 1) for c in self.every])


@dataclass
class Side:
    """One operand, its blocks laid over all labels (mutable: dims get held on the way).

    Attributes:
        value: The operand; None where no node holds it.
        labels: Its labels.
        layout: Its layout over `every`.
    """

    call: Call
    equation: Equation
    value: Value | None
    labels: str
    layout: Layout

    @staticmethod
    def of(call: Call, equation: Equation, value: Value, labels: str, layout: Layout | None = None) -> Side:
        """An operand under its labels; `layout` in the place of its own."""
        layout = layout or value.layout
        for block in layout.blocks:  # rows and columns in another order are no rectangle of the same columns
            dims = covered(block)
            order = [equation.every.index(labels[d]) for d in dims]
            if order != sorted(order):
                layout = call.hold(layout, dims[1:], f"{call.name} takes its dims in another order")
        sizes = {
            c: 1 if d in layout.stretched and c in equation.output else s
            for d, (c, s) in enumerate(zip(labels, layout.shape, strict=True))
        }
        shape = tuple(sizes.get(c, 1) for c in equation.every)
        blocks = tuple(equation.lifted(block, labels) for block in layout.blocks)
        return Side(call, equation, value, labels, Layout(shape, blocks))

    def hold(self, dims: Sequence[int], reason: str) -> None:
        """These dims keep their size."""
        self.layout = self.call.hold(self.layout, dims, reason)

    def block_of(self, dim: int) -> Ids | None:
        """The block that covers a label."""
        return self.layout.block_of(dim)

    def fixed(self, dim: int) -> bool:
        """Whether the operand has this dim at a size that cannot shrink."""
        return self.layout.shape[dim] > 1 and self.block_of(dim) is None

    def replace(self, block: Ids, *others: Ids) -> None:
        """Put other blocks in the place of one."""
        kept = tuple(other for other in self.layout.blocks if other is not block)
        self.layout = Layout(self.layout.shape, kept + others)

    def dims(self, labels: Sequence[int]) -> tuple[int, ...]:
        """The operand's own dims of these labels."""
        return tuple(self.labels.index(self.equation.every[d]) for d in labels)


def contract(call: Call, equation: Equation, left: Side, right: Side, *, weights: bool = True) -> Layout:
    """The layout of the product, over all labels of the output; dims that both operands only broadcast have size 1.

    With `weights` a side may be a weight, whose zeros are looked up.
    """
    sides = (left, right)
    if weights:
        _hand_out(call, equation, sides)
    for one, other in (sides, sides[::-1]):
        one.layout = gridded(call, one.layout, other.layout)
    for side in sides:
        side.hold(equation.summed, f"{call.name} adds it up")
        for block in side.layout.blocks:
            dims = covered(block)
            free = [d for d in dims if d not in equation.contracted and _only_in(equation, side, d)]
            if free and any(d in equation.contracted for d in dims):
                entangled = [d for d in dims if d in equation.contracted]
                side.hold(entangled, f"{call.name}: what is contracted is entangled with what is not")
    for dim in equation.contracted:
        _contract_one(call, equation, left, right, dim, weights)
    for dim in range(len(equation.output)):
        for one, other in (sides, sides[::-1]):
            if other.fixed(dim) and one.block_of(dim) is not None:
                one.hold([dim], f"{call.name} meets an operand whose dim cannot shrink")
    for one, other in (sides, sides[::-1]):
        _note_copies(call, equation, one, other)
    shape = tuple(max(a, b) for a, b in zip(left.layout.shape, right.layout.shape, strict=True))
    n = len(equation.output)
    blocks = _side_by_side(call, equation, left, right)
    return Layout(shape[:n], tuple(b.reshape(b.shape[:n]) for b in blocks))


def _hand_out(call: Call, equation: Equation, sides: Sequence[Side]) -> None:
    """What a weight has at a position of a label that goes on makes all that comes of that position."""
    for side in sides:
        if side.value is None or not side.value.settled:
            continue
        for dim, label in enumerate(side.labels):
            block = side.value.layout.block_of(dim)
            if label in equation.output and block is not None and covered(block) == (dim,):
                call.produce(side.value, dim)


def _note_copies(call: Call, equation: Equation, stretched: Side, other: Side) -> None:
    """Where one position was laid out for every row of the other operand, it is laid out as often as rows are left."""
    value = stretched.value
    for own in value.layout.stretched if value is not None else ():
        assert value is not None, "it has a layout"
        laid_out(call, value, own, other.layout, equation.every.index(stretched.labels[own]))


def _only_in(equation: Equation, side: Side, dim: int) -> bool:
    label = equation.every[dim]
    other = equation.right if side.labels == equation.left else equation.left
    return label not in other


def _contract_one(call: Call, equation: Equation, left: Side, right: Side, dim: int, weights: bool) -> None:
    """Tie what is contracted along one label, and record who reads it."""
    for one, other in ((left, right), (right, left)):
        if one.fixed(dim) and other.block_of(dim) is not None:
            other.hold([dim], f"{call.name} meets an operand whose dim cannot shrink")
    x, y = left.block_of(dim), right.block_of(dim)
    if x is None or y is None:
        return
    others = [d for d in equation.contracted if d != dim and (x.shape[d] > 1) != (y.shape[d] > 1)]
    for side in (left, right):
        side.hold(others, f"{call.name} contracts it together with another dim")
    for one, other in ((left, right), (right, left)):
        mine, theirs = one.block_of(dim), other.block_of(dim)
        assert mine is not None, "only other dims were held"
        assert theirs is not None, "only other dims were held"
        apart = [d for d in covered(mine) if d not in equation.contracted and theirs.shape[d] == 1]
        one.hold(
            [d for d in apart if other.fixed(d) or other.block_of(d) is not None],
            f"{call.name} joins it to a dim that cannot shrink",
        )
    x, y = left.block_of(dim), right.block_of(dim)
    assert x is not None, "only other dims were held"
    assert y is not None, "only other dims were held"
    _read(call, equation, left, right, x, y, weights)


def _read(call: Call, equation: Equation, left: Side, right: Side, x: Ids, y: Ids, weights: bool) -> None:
    swallowed = [d for d in covered(x) if d in equation.contracted]
    heads_x, heads_y = ([d for d in covered(b) if d not in equation.contracted] for b in (x, y))
    if not heads_x and not heads_y:
        _read_by_columns(call, equation, left, right, x, y, swallowed, weights)
        return
    # the wider side has the rows; the other may lack them (one key head for all query heads)
    wide, narrow, heads = (left, right, heads_x) if len(heads_x) >= len(heads_y) else (right, left, heads_y)
    strangers = [d for d in (heads_y if wide is left else heads_x) if d not in heads]
    if strangers:
        narrow.hold(strangers, f"{call.name} crosses two joint blocks")
        x, y = (side.block_of(swallowed[0]) for side in (left, right))  # type: ignore[assignment]
    cells, columns = (x, y) if wide is left else (y, x)
    table = _table(cells, heads, swallowed)
    rows = _rows_of(call, table)
    shape = [cells.shape[d] if d in heads else 1 for d in range(cells.ndim)]
    call.uniform(table, rows[:, None], rows_stay=False)
    if columns.shape == cells.shape:
        call.tie(cells, columns)
    else:
        call.outer(rows.reshape(shape), columns, cells)
    partner = None
    if narrow.value is not None:
        partner = narrow.value.node, narrow.dims([d for d in (*heads, *swallowed) if columns.shape[d] > 1])
    call.use(wide.value, wide.dims([*heads, *swallowed]), table, rows=rows[:, None], partner=partner)
    narrow.replace(columns)
    narrow.layout = Layout(
        tuple(1 if d in heads else s for d, s in enumerate(narrow.layout.shape)), narrow.layout.blocks
    )
    wide.replace(cells, rows.reshape(shape))


def _read_by_columns(
    call: Call, equation: Equation, left: Side, right: Side, x: Ids, y: Ids, swallowed: list[int], weights: bool
) -> None:
    """Channels without rows: a plain contraction, of an activation and a weight or of two activations."""
    call.tie(x, y)
    side, other = (right, left) if weights and _is_weight(left) and not _is_weight(right) else (left, right)
    orientation = _orientation(equation, other, swallowed) if weights else None
    ids = x.reshape(1, -1)
    assert other.value is not None, "only rows of an attention have no node of their own"
    partner = other.value.node, other.dims(swallowed)
    if orientation is not None:
        lead = len(other.labels) - 2
        rows = other.block_of(equation.every.index(other.labels[lead if orientation == "out_in" else lead + 1]))
        readers = rows.reshape(1, -1) if rows is not None and len(covered(rows)) == 1 else None
        call.use(
            side.value,
            side.dims(swallowed),
            ids,
            rows=readers,
            weight=other.value,
            orientation=orientation,
            lead=lead,
            partner=partner,
        )
    else:
        call.use(side.value, side.dims(swallowed), ids, partner=partner)
    for one, block in ((left, x), (right, y)):
        one.replace(block)


def _is_weight(side: Side) -> bool:
    return side.value is not None and side.value.parameter is not None


def _orientation(equation: Equation, side: Side, swallowed: list[int]) -> Orientation | None:
    """How a side's last two dims lie, were it a weight: the contracted one first or last."""
    if len(swallowed) != 1 or len(side.labels) < 2:
        return None
    label = equation.every[swallowed[0]]
    if side.labels[-1] == label and side.labels[-2] in equation.output:
        return "out_in"
    return "in_out" if side.labels[-2] == label and side.labels[-1] in equation.output else None


def _table(block: Ids, heads: Sequence[int], columns: Sequence[int]) -> Ids:
    """A block as `[rows, columns]`."""
    order = (*heads, *columns, *(d for d in range(block.ndim) if d not in heads and d not in columns))
    return block.transpose(order).reshape(math.prod(block.shape[d] for d in heads), -1)


def _rows_of(call: Call, table: Ids) -> Ids:
    """New units for the rows of a table; equal rows (of a head that the batch repeats) share one, `[rows]`."""
    _, first, which = np.unique(table, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    return call.fresh(first.size, "rows")[order[which.reshape(-1)]]


def _side_by_side(call: Call, equation: Equation, left: Side, right: Side) -> tuple[Ids, ...]:
    """The blocks of the product: what both bring to one dim is tied, or rows of one meet columns of the other."""
    merged = list(left.layout.blocks)
    for block in right.layout.blocks:
        for other in [m for m in merged if set(covered(m)) & set(covered(block))]:
            merged = [m for m in merged if m is not other]
            block = _meet(call, equation, left, right, other, block)
        merged.append(block)
    return tuple(merged)


def _meet(call: Call, equation: Equation, left: Side, right: Side, mine: Ids, theirs: Ids) -> Ids:
    """Two blocks that share labels, as one."""
    a, b = set(covered(mine)), set(covered(theirs))
    if a == b:
        call.tie(mine, theirs)
        return mine
    if not a <= b and not b <= a:
        strangers = sorted(b - a)
        layout = call.hold(Layout(tuple(theirs.shape), (theirs,)), strangers, f"{call.name} crosses two joint blocks")
        (theirs,) = layout.blocks
        b = set(covered(theirs))
        if a == b:
            call.tie(mine, theirs)
            return mine
    rows, table, side = (mine, theirs, left) if a < b else (theirs, mine, right)
    heads = covered(rows)
    wide = _table(table, heads, [d for d in covered(table) if d not in heads])
    lead = _table(rows, heads, [])
    call.uniform(lead, wide, rows_stay=False)
    call.use(side.value, side.dims(heads) if side.value is not None else (), lead, rows=wide)
    return table


def known_product(call: KnownCall, equation: Equation, left: Known, right: Known) -> Known:
    """A product is zero where one side is zero all along what is contracted, and known where both are.

    Along numbers that add to one, what is constant stays what it is.
    """
    n = len(equation.output)
    if left.everything and right.everything and math.prod(left.shape) * math.prod(right.shape) <= 1 << 24:
        one, other, made = (_letters(equation, text) for text in (equation.left, equation.right, equation.output))
        full = torch.einsum(f"{one},{other}->{made}", *(k.full().to("cpu", call.dtype) for k in (left, right)))
        return Known.of(call.shape, full, torch.zeros([1] * n, dtype=torch.bool))
    dims = equation.contracted
    zero = torch.zeros([1] * n, dtype=torch.bool)
    value = torch.zeros([1] * n, dtype=call.dtype)
    varies = torch.ones([1] * n, dtype=torch.bool)
    for known, labels in ((left, equation.left), (right, equation.right)):
        lifted = equation.lifted(~known.varies & (known.value == 0), labels)
        lifted = _along_all(lifted, [*dims, *equation.summed])
        zero = zero | lifted.reshape(lifted.shape[:n])
    for (known, labels), (mean, other) in (
        ((right, equation.right), (left, equation.left)),
        ((left, equation.left), (right, equation.right)),
    ):
        if (
            len(dims) == 1
            and not equation.summed
            and mean.total is not None
            and other[mean.total] == equation.every[dims[0]]
        ):
            number = equation.lifted(known.widened(call.dtype), labels)
            first = number.narrow(dims[0], 0, 1)
            same = _along_all(~equation.lifted(known.varies, labels) & (number == first), dims)
            steady = same.reshape(same.shape[:n])
            value = torch.where(steady, first.reshape(first.shape[:n]), value)
            varies = varies & ~steady
    return Known.of(call.shape, torch.where(zero, 0.0, value), varies & ~zero)


def _along_all(flags: Tensor, dims: Sequence[int]) -> Tensor:
    for dim in dims:
        flags = flags.all(dim, keepdim=True)
    return flags


def _letters(equation: Equation, labels: str) -> str:
    return "".join(chr(ord("a") + equation.every.index(c)) for c in labels)
