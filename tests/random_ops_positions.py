"""Ops that read positions by number, in windows or by frequency: each on feature maps `x`, `y` and a dim `d`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.random_ops_pointwise import Function
from tests.random_ops_space import in_depth

A = torch.ops.aten


def picks(x: Tensor, d: int) -> Tensor:
    """Numbers of positions of `d`, the same whatever x holds."""
    return torch.arange(x.shape[d] - 1, -1, -1)


def at(x: Tensor, d: int, index: Tensor) -> list[Tensor | None]:
    """The index list that has `index` on dim `d`."""
    return [None] * d + [index]


def flat(x: Tensor) -> Tensor:
    """`[b, c, h, w] -> [b, c]`."""
    return x.mean((2, 3))


def turned(x: Tensor) -> Tensor:
    """Pairs of pixels as complex numbers, `[b, c, h, w // 2]`."""
    return torch.view_as_complex(x[..., : x.shape[3] // 2 * 2].unflatten(3, (-1, 2)).contiguous())


def back(z: Tensor) -> Tensor:
    """Complex pixels as pairs."""
    return torch.view_as_real(z).flatten(3)


INDEXED: dict[str, Function] = {
    "aten.index.Tensor": lambda x, y, d: A.index.Tensor(x, at(x, d, picks(x, d))),
    "aten._unsafe_index.Tensor": lambda x, y, d: A._unsafe_index.Tensor(x, at(x, d, torch.tensor([1, 0, 1]))),
    "aten.index_put.default": lambda x, y, d: A.index_put.default(x, at(x, d, torch.tensor([1])), y.narrow(d, 0, 1)),
    "aten._unsafe_index_put.default": lambda x, y, d: A._unsafe_index_put.default(
        x, at(x, d, torch.tensor([1, 0])), y.narrow(d, 0, 2), True
    ),
    "aten.gather.default": lambda x, y, d: y.gather(d, x.argsort(d)),
    "aten.take_along_dim.default": lambda x, y, d: A.take_along_dim.default(y, y.argmax(d, keepdim=True), d) + x,
    "aten.take.default": lambda x, y, d: x + x.take(torch.tensor([0, 3])).sum(),
    "aten.scatter.src": lambda x, y, d: A.scatter.src(x, d, x.argsort(d), y),
    "aten.scatter.value": lambda x, y, d: x + A.scatter.value(y, d, y.argmax(d, keepdim=True), 0.5) * 0,
    "aten.scatter.reduce": lambda x, y, d: A.scatter.reduce(x, d, x.argsort(d), y, reduce="add"),
    "aten.scatter.value_reduce": lambda x, y, d: A.scatter.value_reduce(
        x, d, x.argmax(d, keepdim=True), 0.5, reduce="multiply"
    ),
    "aten.scatter_add.default": lambda x, y, d: x.scatter_add(d, x.argsort(d), y),
    "aten.scatter_reduce.two": lambda x, y, d: x.scatter_reduce(d, x.argsort(d), y, "amax"),
    "aten.index_add.default": lambda x, y, d: x.index_add(d, torch.tensor([1, 0]), y.narrow(d, 0, 2)),
    "aten.index_copy.default": lambda x, y, d: x.index_copy(d, torch.tensor([1]), y.narrow(d, 0, 1)),
    "aten.index_fill.int_Scalar": lambda x, y, d: A.index_fill.int_Scalar(x, d, torch.tensor([1]), 0.25),
    "aten.index_fill.int_Tensor": lambda x, y, d: A.index_fill.int_Tensor(x, d, torch.tensor([1]), x.new_ones(())),
    "aten.masked_scatter.default": lambda x, y, d: x.masked_scatter((picks(x, 3) > 0), y),
    "aten.repeat_interleave.self_Tensor": lambda x, y, d: A.repeat_interleave.self_Tensor(
        x, torch.tensor([1] * (x.shape[d] - 1) + [2]), d, output_size=x.shape[d] + 1
    ),
    "aten.one_hot.default": lambda x, y, d: x * F.one_hot((x > 0).long(), 2)[..., 1],
    "aten.bucketize.Tensor": lambda x, y, d: x.clamp(-1, 1) * (A.bucketize.Tensor(x, x.new_tensor([-1.0, 1.0])) == 1),
    "aten.isin.Tensor_Tensor": lambda x, y, d: x + A.isin.Tensor_Tensor((x > 9).long(), torch.ones(1).long()),
    "aten.searchsorted.Tensor": lambda x, y, d: (
        x.clamp(-1, 1) * (torch.searchsorted(x.new_tensor([-1.0, 1.0]), x.contiguous()) == 1)
    ),
}

WINDOWS: dict[str, Function] = {
    "aten.im2col.default": lambda x, y, d: F.unfold(x, 2, padding=d % 2).unflatten(
        2, (-1, x.shape[3] + 2 * (d % 2) - 1)
    ),
    "aten.col2im.default": lambda x, y, d: F.fold(F.unfold(x, 2), x.shape[2:], 2),
    "aten.unfold.default": lambda x, y, d: x.unfold(d, 2, 1).amax(-1),
    "aten.as_strided.default": lambda x, y, d: x.clone().as_strided(x.shape, x.contiguous().stride()),
    "aten.grid_sampler.default": lambda x, y, d: F.grid_sample(x, _grid(x), align_corners=False),
    "aten.grid_sampler_2d.default": lambda x, y, d: A.grid_sampler_2d.default(x, _grid(x), 0, 1, False),
    "aten.grid_sampler_3d.default": lambda x, y, d: in_depth(
        x, y, lambda deep: A.grid_sampler_3d.default(deep, _deep_grid(deep), 0, 1, False)
    ),
    "aten.affine_grid_generator.default": lambda x, y, d: F.grid_sample(
        x, F.affine_grid(_affine(x), list(x.shape), align_corners=False), align_corners=False
    ),
    "aten.max_unpool2d.default": lambda x, y, d: F.max_unpool2d(
        *F.max_pool2d(x, 2, return_indices=True), [2, 2], output_size=x.shape[2:]
    ),
    "aten.max_unpool3d.default": lambda x, y, d: in_depth(
        x,
        y,
        lambda deep: F.max_unpool3d(*F.max_pool3d(deep, 2, return_indices=True), [2, 2, 2], output_size=deep.shape[2:]),
    ),
}


def _affine(x: Tensor) -> Tensor:
    return x.new_tensor([[0.8, 0.1, 0.0], [-0.1, 0.9, 0.1]]).expand(x.shape[0], 2, 3)


def _grid(x: Tensor) -> Tensor:
    return flat(x)[:, :1, None, None].sigmoid() * x.new_ones(1, 3, 4, 2)


def _deep_grid(x: Tensor) -> Tensor:
    return x.mean((1, 2, 3, 4))[:, None, None, None, None].sigmoid() * x.new_ones(1, 2, 3, 4, 3)


SPECTRAL: dict[str, Function] = {
    "aten.fft_fft.default": lambda x, y, d: torch.fft.fft(x, dim=d).abs(),
    "aten.fft_ifft.default": lambda x, y, d: back(torch.fft.ifft(x, dim=d).resolve_conj()),
    "aten.fft_rfft.default": lambda x, y, d: torch.fft.rfft(x, dim=d).abs(),
    "aten.fft_irfft.default": lambda x, y, d: torch.fft.irfft(x, dim=d),
    "aten.fft_hfft.default": lambda x, y, d: torch.fft.hfft(x, dim=d),
    "aten.fft_ihfft.default": lambda x, y, d: torch.fft.ihfft(x, dim=d).abs(),
    "aten.fft_fft2.default": lambda x, y, d: torch.fft.fft2(x).abs(),
    "aten.fft_ifft2.default": lambda x, y, d: torch.fft.ifft2(x).abs(),
    "aten.fft_fftn.default": lambda x, y, d: torch.fft.fftn(x, dim=(2, 3)).abs(),
    "aten.fft_ifftn.default": lambda x, y, d: torch.fft.ifftn(x, dim=(d,)).abs(),
    "aten.fft_irfft2.default": lambda x, y, d: torch.fft.irfft2(x),
    "aten.fft_rfft2.default": lambda x, y, d: torch.fft.irfft2(torch.fft.rfft2(x) * 2, s=x.shape[2:]),
    "aten.fft_rfftn.default": lambda x, y, d: torch.fft.rfftn(x, dim=(2, 3)).abs(),
    "aten.fft_irfftn.default": lambda x, y, d: torch.fft.irfftn(x, dim=(2, 3)),
    "aten.fft_fftshift.default": lambda x, y, d: torch.fft.fftshift(x, d),
    "aten.fft_ifftshift.default": lambda x, y, d: torch.fft.ifftshift(x, (d,)),
    "aten.view_as_complex.default": lambda x, y, d: (turned(x) * turned(y)).abs(),
    "aten.view_as_real.default": lambda x, y, d: back(turned(x) * turned(y)),
    "aten.real.default": lambda x, y, d: A.real.default(turned(x) * turned(y)),
    "aten.imag.default": lambda x, y, d: A.imag.default(turned(x) * turned(y)),
    "aten._conj.default": lambda x, y, d: back(A._conj.default(turned(x)).resolve_conj()),
    "aten.conj.default": lambda x, y, d: A.conj.default(turned(x)).abs(),
    "aten.resolve_conj.default": lambda x, y, d: back(A.resolve_conj.default(turned(x))),
    "aten.complex.default": lambda x, y, d: A.complex.default(x, y).abs(),
    "aten.polar.default": lambda x, y, d: A.real.default(A.polar.default(x.abs(), y)),
}

PLANES: dict[str, Function] = {
    "aten.tril.default": lambda x, y, d: x.tril(d - 2),
    "aten.triu.default": lambda x, y, d: x.triu(),
    "aten.diagonal.default": lambda x, y, d: x + x.diagonal(0, 2, 3).mean(-1)[..., None, None],
    "aten.diagonal_copy.default": lambda x, y, d: x + A.diagonal_copy.default(x, 0, 2, 3).mean(-1)[..., None, None],
    "aten.diag_embed.default": lambda x, y, d: torch.diag_embed(x.mean(3)),
    "aten.rot90.default": lambda x, y, d: torch.rot90(x, 1, (2, 3)),
    "aten.fliplr.default": lambda x, y, d: A.fliplr.default(x),
    "aten.flipud.default": lambda x, y, d: A.flipud.default(x.transpose(0, d)).transpose(0, d),
    "aten.outer.default": lambda x, y, d: x * torch.outer(flat(x).mean(1), flat(y).mean(0))[:, :, None, None],
    "aten.ger.default": lambda x, y, d: x * A.ger.default(flat(x).mean(1), flat(y).mean(0))[:, :, None, None],
    "aten.broadcast_tensors.default": lambda x, y, d: _sum(A.broadcast_tensors.default([x, flat(y)[:, :, None, None]])),
    "aten.vstack.default": lambda x, y, d: torch.vstack((x.transpose(0, 1), y.transpose(0, 1))).transpose(0, 1),
    "aten.hstack.default": lambda x, y, d: torch.hstack((x, y)),
    "aten.dstack.default": lambda x, y, d: torch.dstack((x, y)),
    "aten.column_stack.default": lambda x, y, d: torch.column_stack((x, y)),
    "aten.unsafe_chunk.default": lambda x, y, d: torch.cat(A.unsafe_chunk.default(x, 2, d)[::-1], d),
    "aten.unsafe_split.Tensor": lambda x, y, d: torch.cat(A.unsafe_split.Tensor(x, 2, d)[::-1], d),
    "aten.split_copy.Tensor": lambda x, y, d: torch.cat(A.split_copy.Tensor(x, 2, d)[::-1], d),
    "aten.unsafe_split_with_sizes.default": lambda x, y, d: torch.cat(
        A.unsafe_split_with_sizes.default(x, [1, x.shape[d] - 1], d)[::-1], d
    ),
    "aten.split_with_sizes_copy.default": lambda x, y, d: torch.cat(
        A.split_with_sizes_copy.default(x, [1, x.shape[d] - 1], d)[::-1], d
    ),
    "aten.tensor_split.indices": lambda x, y, d: torch.cat(torch.tensor_split(x, (1,), d)[::-1], d),
    "aten.unbind_copy.int": lambda x, y, d: torch.stack(A.unbind_copy.int(x, d)[::-1], d),
    "aten.narrow_copy.default": lambda x, y, d: A.narrow_copy.default(x, d, 1, 2),
    "aten.slice_copy.Tensor": lambda x, y, d: A.slice_copy.Tensor(x, d, 1),
    "aten.select_copy.int": lambda x, y, d: x * A.select_copy.int(x, d, 1).unsqueeze(d),
}


def _sum(pair: list[Tensor]) -> Tensor:
    return pair[0] * pair[1]


def _square(x: Tensor) -> Tensor:
    """A small matrix that rests on all of x."""
    return torch.eye(2, dtype=x.dtype) * (1 + x.mean().square())


READ: dict[str, Function] = {
    "aten.det.default": lambda x, y, d: x * A.det.default(_square(x)),
    "aten.linalg_det.default": lambda x, y, d: x * torch.linalg.det(_square(x)),
    "aten.linalg_norm.default": lambda x, y, d: x / (1 + torch.linalg.norm(flat(x))),
    "aten.linalg_matrix_norm.default": lambda x, y, d: x / (1 + torch.linalg.matrix_norm(flat(x), 1)),
    "aten.linalg_matrix_norm.str_ord": lambda x, y, d: x / (1 + torch.linalg.matrix_norm(flat(x))),
    "aten.frobenius_norm.dim": lambda x, y, d: x / (1 + A.frobenius_norm.dim(flat(x), [0, 1])),
    "aten.nuclear_norm.default": lambda x, y, d: x / (1 + A.nuclear_norm.default(flat(x))),
    "aten.kron.default": lambda x, y, d: x + A.kron.default(flat(x), flat(x)).mean(),
    "aten.block_diag.default": lambda x, y, d: x + A.block_diag.default([flat(x), flat(y)]).mean(),
    "aten.diag.default": lambda x, y, d: x + torch.diag(flat(x)[:1, 0]).mean(),
    "aten.histc.default": lambda x, y, d: x + A.histc.default(x * 0, 3, -1.0, 1.0).mean(),
    "aten.cross_entropy_loss.default": lambda x, y, d: x * F.cross_entropy(flat(x), flat(y).softmax(1)),
    "aten.nll_loss.default": lambda x, y, d: x * A.nll_loss.default(flat(x), torch.zeros(x.shape[0]).long()),
    "aten.nll_loss_nd.default": lambda x, y, d: x * F.nll_loss(flat(x), torch.zeros(x.shape[0]).long()),
    "aten.nll_loss2d.default": lambda x, y, d: x * A.nll_loss2d.default(x, torch.zeros(x[:, 0].shape).long()),
    "aten.mse_loss.default": lambda x, y, d: x * F.mse_loss(x, y.tanh()),
    "aten.l1_loss.default": lambda x, y, d: x * F.l1_loss(x, y.tanh()),
    "aten.smooth_l1_loss.default": lambda x, y, d: x * F.smooth_l1_loss(x, y.tanh()),
    "aten.huber_loss.default": lambda x, y, d: x * F.huber_loss(x, y.tanh()),
    "aten.kl_div.default": lambda x, y, d: x * A.kl_div.default(x, y.sigmoid()),
    "aten.binary_cross_entropy.default": lambda x, y, d: x * F.binary_cross_entropy(x.sigmoid(), y.sigmoid()),
    "aten.binary_cross_entropy_with_logits.default": lambda x, y, d: (
        x * F.binary_cross_entropy_with_logits(x, y.sigmoid())
    ),
    "aten.soft_margin_loss.default": lambda x, y, d: x * F.soft_margin_loss(x, y.detach().tanh()),
    "aten.cosine_embedding_loss.default": lambda x, y, d: (
        x * (1 + F.cosine_embedding_loss(flat(x), flat(y).tanh(), x.new_ones(x.shape[0])))
    ),
    "aten.triplet_margin_loss.default": lambda x, y, d: x * F.triplet_margin_loss(flat(x), flat(y), flat(y).tanh()),
    "aten.margin_ranking_loss.default": lambda x, y, d: x * A.margin_ranking_loss.default(x, y.tanh(), y.sigmoid()),
}

POSITIONS: dict[str, Function] = INDEXED | WINDOWS | SPECTRAL | PLANES | READ
