"""Grids: a tensor with units of its own for rows and for columns meets one that has a unit for every pair of them."""

from __future__ import annotations

from functools import reduce

import numpy as np

from surgery.calls import Call
from surgery.layout import Ids, Layout, covered


def gridded(call: Call, layout: Layout, other: Layout) -> Layout:
    """A layout whose blocks on single dims are one joint block where the other operand has one.

    A bias `[heads, width]` has a unit for every head and one for every position of the width; queries viewed as
    `[..., heads, width]` have one for every pair. Each pair is there where its head and its position are.

    Args:
        call: The op where they meet.
        layout: The one with units for rows and columns.
        other: The other operand's layout, of the same rank.
    """
    for joint in other.blocks:
        dims = set(covered(joint))
        parts = [block for block in layout.blocks if set(covered(block)) < dims]
        if len(parts) < 2:
            continue
        whole = np.broadcast_shapes(*(part.shape for part in parts)) == joint.shape
        *lead, last = parts
        rows: Ids = reduce(call.outer, lead)
        cells = call.outer(rows, last, joint if whole else None)
        rest = tuple(block for block in layout.blocks if not any(block is part for part in parts))
        layout = Layout(layout.shape, (*rest, cells), layout.stretched)
    return layout
