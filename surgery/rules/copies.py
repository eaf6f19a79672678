"""Copies: channels that are laid out several times, and each copy may go (key heads that serve several query heads)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from surgery.calls import Call, Value
from surgery.coupling import Copies
from surgery.layout import Ids, Layout, covered, on_dim


def copied(call: Call, block: Ids, dim: int, times: int, rows: Sequence[int]) -> Ids:
    """A block with every unit `times` over along `dim` (of size 1 in it), as units of their own.

    A copy goes with its original. Single copies of a row may go, too, as long as all rows keep equally many.

    Args:
        call: The op.
        block: The originals.
        dim: Where the copies lie.
        times: How many there are.
        rows: The dims of the block whose positions are copied as wholes (heads).
    """
    originals = np.broadcast_to(block, [times if d == dim else size for d, size in enumerate(block.shape)])
    if set(covered(block)) <= set(rows):
        cells = call.fresh(originals.size, "copies").reshape(originals.shape)
    else:
        shape = [times if d == dim else size if d in rows else 1 for d, size in enumerate(block.shape)]
        cells = call.outer(call.fresh(math.prod(shape), "copies").reshape(shape), originals)
    call.ledger.copies.append(Copies(cells, originals, dim, call.node))
    tables = [_as_rows(ids, rows) for ids in (cells, block)]
    call.uniform(*tables, call.fresh(tables[0].shape[0], "rows")[:, None], rows_stay=False)
    return cells


def laid_out(call: Call, value: Value, dim: int, layout: Layout, own: int | None = None) -> None:
    """Note that what `expand` laid out along `dim` of a value met the rows that `layout` has on `own` (`dim` itself).

    It is laid out as often as rows are left.
    """
    rows = layout.block_of(dim if own is None else own)
    if dim in value.layout.stretched and rows is not None and len(covered(rows)) == 1:
        ids = on_dim(rows.ravel(), value.layout.rank, dim)
        call.ledger.copies.append(Copies(ids, ids, dim, value.node))


def _as_rows(ids: Ids, rows: Sequence[int]) -> Ids:
    first = np.moveaxis(ids, tuple(rows), tuple(range(len(rows))))
    return first.reshape(math.prod(first.shape[: len(rows)]), -1)
