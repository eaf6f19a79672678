"""Every op that has a rule, as a step of random nets: it takes feature maps and gives one back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.random_builder import Builder, Gene, Skip
from tests.random_ops_layers import LAYERS
from tests.random_ops_movement import MOVEMENT
from tests.random_ops_pointwise import POINTWISE, Function
from tests.random_ops_positions import POSITIONS
from tests.random_ops_products import PRODUCTS
from tests.random_ops_reductions import REDUCTIONS
from tests.random_ops_space import SPACE

FUNCTIONS: dict[str, Function] = POINTWISE | MOVEMENT | REDUCTIONS | SPACE | POSITIONS | PRODUCTS

OPS = (*FUNCTIONS, *LAYERS)
"""The names of all ops that an `op` gene can add."""

NEVER_DRAWN = {
    "aten.rand_like.default": "a model that draws random numbers in eval mode is refused",
    "aten.randn_like.default": "a model that draws random numbers in eval mode is refused",
    "aten.sym_size.int": "shapes are captured as plain numbers",
    "aten.sym_numel.default": "shapes are captured as plain numbers",
    "aten.sym_stride.int": "shapes are captured as plain numbers",
    "aten.sym_storage_offset.default": "shapes are captured as plain numbers",
    "aten.item.default": "a number that is data cannot be captured but as a position",
    "aten.lift_fresh.default": "the recorder writes it down as lift_fresh_copy",
    "aten._grouped_mm.default": "experts with their tokens sorted: no step on feature maps",
    "transformers.grouped_mm_fallback.default": "an op of the transformers package",
    "aten._assert_tensor_metadata.default": "it hands nothing out",
}
"""Ops with a rule that no captured random net can show, each with the reason."""


class Op(nn.Module):
    """One op on a feature map and another of the same shape (made of the first where there is none), along a dim."""

    def __init__(self, name: str, dim: int) -> None:
        super().__init__()
        self.name, self.dim = name, dim

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return FUNCTIONS[self.name](x, torch.cos(x) if y is None else y, self.dim)

    def extra_repr(self) -> str:
        return f"{self.name}, dim={self.dim}"


def gene_of(name: str, dim: int = 0) -> Gene:
    """The gene that adds this op, along the dim of this number."""
    index = OPS.index(name)
    return Gene("op", seed=5, numbers=(index % 12, index // 12 % 12, index // 144, dim, 0, 0, 0, 0))


def add_op(b: Builder, g: Gene) -> None:
    """Numbers 0 to 2 say which op, the others along which dim, with which other map, to how many channels."""
    n = g.numbers
    wire = b.take(g, 4)
    x = b.values[wire]
    name = OPS[(n[0] + 12 * n[1] + 144 * n[2]) % len(OPS)]
    if name in LAYERS:
        c = x.shape[1]
        try:
            module = LAYERS[name](c, (c, 6, 8, 5)[n[3] % 4], x)
        except ValueError as error:
            raise Skip from error
        b.call(g, module, wire)
        return
    other = b.partner(wire, n[4], lambda mine, its: mine.shape == its.shape)
    b.call(g, Op(name, (3, 1, 2)[n[3] % 3]), *((wire,) if other == wire else (wire, other)))
