"""Ops that move, join, take apart and select positions: each on feature maps `x`, `y` of one shape and a dim `d`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.random_ops_pointwise import Function

A = torch.ops.aten


def gated(x: Tensor, gate: Callable[[Tensor], Tensor]) -> Tensor:
    """`x` times what becomes of its channels' means, `[b, c] -> [b, c]`."""
    return x * gate(x.mean((2, 3)))[:, :, None, None]


DIMS: dict[str, Function] = {
    "aten.permute.default": lambda x, y, d: F.silu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    "aten.permute_copy.default": lambda x, y, d: A.permute_copy.default(x, [0, 1, 3, 2]),
    "aten.transpose.int": lambda x, y, d: x.transpose(1, d).tanh().transpose(1, d),
    "aten.swapaxes.default": lambda x, y, d: x.swapaxes(1, d).tanh().swapaxes(d, 1),
    "aten.swapdims.default": lambda x, y, d: x.swapdims(-1, d).tanh().swapdims(d, -1),
    "aten.t.default": lambda x, y, d: gated(x, lambda m: m.t().tanh().t()),
    "aten.numpy_T.default": lambda x, y, d: gated(x, lambda m: A.numpy_T.default(m.T.tanh())),
    "aten.mT.default": lambda x, y, d: x.mT,
    "aten.adjoint.default": lambda x, y, d: A.adjoint.default(x),
    "aten.movedim.int": lambda x, y, d: x.movedim(1, -1).tanh().movedim(-1, 1),
    "aten.movedim.intlist": lambda x, y, d: x.movedim((1, 2), (2, 1)).tanh().movedim((2, 1), (1, 2)),
    "aten.moveaxis.int": lambda x, y, d: x.moveaxis(1, 0).tanh().moveaxis(0, 1),
    "aten.moveaxis.intlist": lambda x, y, d: x.moveaxis((1, 3), (3, 1)).tanh().moveaxis((1, 3), (3, 1)),
    "aten.unsqueeze.default": lambda x, y, d: x.unsqueeze(d).tanh().flatten(d - 1, d),
    "aten.squeeze.default": lambda x, y, d: gated(x, lambda m: m[:, :, None].squeeze().tanh()),
    "aten.squeeze.dim": lambda x, y, d: gated(x, lambda m: m[:, None].tanh().squeeze(1)),
    "aten.squeeze.dims": lambda x, y, d: gated(x, lambda m: m[:, None, :, None].tanh().squeeze((1, -1))),
    "aten.flip.default": lambda x, y, d: x.flip(d),
    "aten.roll.default": lambda x, y, d: x.roll(1, d),
}

VIEWS: dict[str, Function] = {
    "aten.view.default": lambda x, y, d: x.clone().view(x.shape[0], -1, x.shape[3]).tanh().view(x.shape),
    "aten.reshape.default": lambda x, y, d: x.transpose(2, 3).reshape(x.shape),
    "aten._unsafe_view.default": lambda x, y, d: _reshaped(x, A._unsafe_view.default),
    "aten.view_copy.default": lambda x, y, d: _reshaped(x, A.view_copy.default),
    "aten.flatten.using_ints": lambda x, y, d: x.flatten(2).tanh().view(x.shape),
    "aten.unflatten.int": lambda x, y, d: x.unflatten(1, (-1, 2)).cumsum(2).flatten(1, 2),
    "aten.ravel.default": lambda x, y, d: x.ravel().tanh().view(x.shape),
    "aten.view_as.default": lambda x, y, d: x.clone().flatten(2).view_as(y),
    "aten.reshape_as.default": lambda x, y, d: x.flatten(2).reshape_as(y),
    "aten.expand.default": lambda x, y, d: x + x.mean((2, 3), keepdim=True).expand(-1, -1, *x.shape[2:]).tanh(),
    "aten.expand_as.default": lambda x, y, d: x.mean(d, keepdim=True).expand_as(y).tanh() + x,
    "aten.broadcast_to.default": lambda x, y, d: x * y.mean(d, keepdim=True).broadcast_to(x.shape).tanh(),
    "aten.repeat.default": lambda x, y, d: x[:, :, ::2, ::2].repeat(1, 2, 1, 2),
    "aten.tile.default": lambda x, y, d: x[:, :, ::2].tile(2 if d == 2 else 1, 1, 1)[:, : 2 * x.shape[1]],
    "aten.repeat_interleave.self_int": lambda x, y, d: x[:, :, ::2, ::2].repeat_interleave(2, d),
    "aten.channel_shuffle.default": lambda x, y, d: F.channel_shuffle(x, 2),
    # contiguous: for others its fake version fails where its kernel does not
    "aten.native_channel_shuffle.default": lambda x, y, d: A.native_channel_shuffle.default(x.contiguous(), 2),
    "aten.pixel_shuffle.default": lambda x, y, d: F.pixel_shuffle(x, 2),
    "aten.pixel_unshuffle.default": lambda x, y, d: F.pixel_unshuffle(x, 2),
}

JOINED: dict[str, Function] = {
    "aten.cat.default": lambda x, y, d: torch.cat((x, y), d),
    "aten.concat.default": lambda x, y, d: A.concat.default([y, x], d),
    "aten.concatenate.default": lambda x, y, d: A.concatenate.default([x, y], d),
    "aten.stack.default": lambda x, y, d: torch.stack((x, y), d).amax(d),
    "aten.chunk.default": lambda x, y, d: torch.cat(x.chunk(2, d)[::-1], d),
    "getitem": lambda x, y, d: x.chunk(2, d)[0] + y.chunk(2, d)[1],
    "aten.tensor_split.sections": lambda x, y, d: torch.cat(A.tensor_split.sections(x, 2, d)[::-1], d),
    "aten.split.Tensor": lambda x, y, d: torch.cat(A.split.Tensor(x, 2, d)[::-1], d),
    "aten.split.sizes": lambda x, y, d: torch.cat(A.split.sizes(x, [2, x.shape[d] - 2], d)[::-1], d),
    "aten.split_with_sizes.default": lambda x, y, d: torch.cat(x.split([1, x.shape[1] - 1], 1)[::-1], 1),
    "aten.unbind.int": lambda x, y, d: torch.stack(x.unbind(d)[::-1], d),
}

SELECTED: dict[str, Function] = {
    "aten.slice.Tensor": lambda x, y, d: x[:, 1:4] if d == 1 else x[..., 1:],
    "aten.narrow.default": lambda x, y, d: A.narrow.default(x, d, 1, 2),
    "aten.select.int": lambda x, y, d: x * x.select(d, 1).unsqueeze(d),
    "aten.index_select.default": lambda x, y, d: x.index_select(d, torch.tensor([1, 0, 1])),
    "aten.slice_scatter.default": lambda x, y, d: A.slice_scatter.default(x, y.narrow(d, 0, 2), d, 1, 3),
    "aten.select_scatter.default": lambda x, y, d: A.select_scatter.default(x, y.select(d, 0), d, 1),
}


def _reshaped(x: Tensor, view: Callable[..., Tensor]) -> Tensor:
    b, _, h, w = x.shape
    return view(view(x.contiguous(), [b, -1, h * w]).tanh(), [b, -1, h, w])


MOVEMENT: dict[str, Function] = DIMS | VIEWS | JOINED | SELECTED
