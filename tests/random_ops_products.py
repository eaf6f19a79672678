"""Products of two feature maps `x` and `y`, their channels (`d` is 1) or their pixels contracted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.random_ops_pointwise import Function


def _like(x: Tensor, flat: Tensor) -> Tensor:
    """`[b, c, h · w] -> [b, c, h, w]`."""
    return flat.unflatten(2, x.shape[2:])


def _bmm(x: Tensor, y: Tensor, d: int) -> Tensor:
    xs, ys = x.flatten(2), y.flatten(2)
    if d == 1:
        return _like(x, torch.bmm(xs, torch.bmm(xs.mT, ys).softmax(-1).mT))
    return _like(x, torch.bmm(torch.bmm(xs, ys.mT).mul(0.2).softmax(-1), ys))


def _baddbmm(x: Tensor, y: Tensor, d: int) -> Tensor:
    xs, ys = x.flatten(2), y.flatten(2)
    if d == 1:
        return _like(x, torch.baddbmm(xs, ys, torch.bmm(xs.mT, ys).tanh()))
    return _like(x, torch.baddbmm(xs, torch.bmm(xs, ys.mT).tanh(), ys))


def _einsum(x: Tensor, y: Tensor, d: int) -> Tensor:
    if d == 1:
        return torch.einsum("bhg,bcgw->bchw", torch.einsum("bchw,bcgw->bhg", x, y).tanh(), y)
    return torch.einsum("bchg,bcgw->bchw", torch.einsum("bchw,bcgw->bchg", x, y).tanh(), y)


def _attention(x: Tensor, y: Tensor, d: int) -> Tensor:
    if d == 1:
        xs, ys = x.flatten(2).mT, y.flatten(2).mT
        return _like(x, F.scaled_dot_product_attention(xs, ys, xs).mT)
    if d == 2:
        return _like(x, F.scaled_dot_product_attention(x.flatten(2), y.flatten(2), y.flatten(2), scale=0.2))
    return F.scaled_dot_product_attention(x, y, x, is_causal=True)


PRODUCTS: dict[str, Function] = {
    "aten.bmm.default": _bmm,
    "aten.baddbmm.default": _baddbmm,
    "aten.einsum.default": _einsum,
    "aten.scaled_dot_product_attention.default": _attention,
}
