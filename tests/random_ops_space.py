"""Pools, pads and resampling on one, two and three dims: a feature map is read as lines, or as a map of depth 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.random_ops_pointwise import Function

A = torch.ops.aten


def on_lines(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """`[b, c, h, w]` as `[b·h, c, w]`, and back."""
    lines = function(x.transpose(1, 2).flatten(0, 1))
    back: Tensor = lines.unflatten(0, (-1, x.shape[2])).transpose(1, 2)
    return back


def in_depth(x: Tensor, y: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Two maps as one of depth 2, `[b, c, 2, h, w]`, and back with the depth over the rows."""
    return function(torch.stack((x, y), 2)).flatten(2, 3)


def one(function: Callable[..., Any], *settings: Any, **more: Any) -> Function:
    """An op on one dim."""
    return lambda x, y, d: on_lines(x, lambda lines: _first(function(lines, *settings, **more)))


def two(function: Callable[..., Any], *settings: Any, **more: Any) -> Function:
    """An op on two dims."""
    return lambda x, y, d: _first(function(x, *settings, **more))


def three(function: Callable[..., Any], *settings: Any, **more: Any) -> Function:
    """An op on three dims."""
    return lambda x, y, d: in_depth(x, y, lambda deep: _first(function(deep, *settings, **more)))


def _first(answer: Any) -> Tensor:
    return answer[0] if isinstance(answer, tuple) else answer  # type: ignore[no-any-return]


POOLS: dict[str, Function] = {
    "aten.max_pool1d.default": one(F.max_pool1d, 2),
    "aten.max_pool2d.default": two(F.max_pool2d, 3, 2, 1),
    "aten.max_pool3d.default": three(F.max_pool3d, 2, 2, 1),
    "aten.max_pool1d_with_indices.default": one(F.max_pool1d, 3, 1, 1, return_indices=True),
    "aten.max_pool2d_with_indices.default": two(F.max_pool2d, 2, 2, return_indices=True),
    "aten.max_pool3d_with_indices.default": three(F.max_pool3d, (1, 2, 2), return_indices=True),
    "aten.adaptive_max_pool1d.default": one(F.adaptive_max_pool1d, 3),
    "aten.adaptive_max_pool2d.default": two(F.adaptive_max_pool2d, (3, 2)),
    "aten.adaptive_max_pool3d.default": three(F.adaptive_max_pool3d, (1, 3, 2)),
    "aten.avg_pool1d.default": one(F.avg_pool1d, 3, 2, 1),
    "aten.avg_pool2d.default": two(F.avg_pool2d, 3, 1, 1),
    "aten.avg_pool3d.default": three(F.avg_pool3d, 2, 2, 1, ceil_mode=True, divisor_override=3),
    "aten.adaptive_avg_pool1d.default": one(F.adaptive_avg_pool1d, 3),
    "aten.adaptive_avg_pool2d.default": two(F.adaptive_avg_pool2d, (3, None)),
    "aten.adaptive_avg_pool3d.default": three(F.adaptive_avg_pool3d, (1, 3, 2)),
    "aten._adaptive_avg_pool2d.default": two(A._adaptive_avg_pool2d.default, [3, 2]),
    "aten._adaptive_avg_pool3d.default": three(A._adaptive_avg_pool3d.default, [1, 3, 2]),
}

RESAMPLED: dict[str, Function] = {
    "aten.upsample_nearest1d.vec": one(A.upsample_nearest1d.vec, None, [1.5]),
    "aten.upsample_nearest2d.vec": two(A.upsample_nearest2d.vec, None, [0.5, 1.5]),
    "aten.upsample_nearest3d.vec": three(A.upsample_nearest3d.vec, None, [1.0, 1.5, 0.5]),
    "aten.upsample_nearest1d.default": one(A.upsample_nearest1d.default, [5]),
    "aten.upsample_nearest2d.default": two(A.upsample_nearest2d.default, [5, 7]),
    "aten.upsample_nearest3d.default": three(A.upsample_nearest3d.default, [1, 5, 7]),
    "aten._upsample_nearest_exact1d.vec": one(A._upsample_nearest_exact1d.vec, None, [1.5]),
    "aten._upsample_nearest_exact2d.vec": two(A._upsample_nearest_exact2d.vec, None, [0.5, 1.5]),
    "aten._upsample_nearest_exact3d.vec": three(A._upsample_nearest_exact3d.vec, None, [1.0, 1.5, 0.5]),
    "aten.upsample_linear1d.vec": one(A.upsample_linear1d.vec, None, False, [1.5]),
    "aten.upsample_bilinear2d.vec": two(A.upsample_bilinear2d.vec, [5, 7], True, None),
    "aten.upsample_trilinear3d.vec": three(A.upsample_trilinear3d.vec, None, False, [1.0, 1.5, 0.5]),
    "aten.upsample_bicubic2d.vec": two(A.upsample_bicubic2d.vec, None, False, [0.7, 1.5]),
    "aten.upsample_linear1d.default": one(A.upsample_linear1d.default, [5], True),
    "aten.upsample_bilinear2d.default": two(A.upsample_bilinear2d.default, [5, 7], False),
    "aten.upsample_trilinear3d.default": three(A.upsample_trilinear3d.default, [1, 5, 7], False),
    "aten.upsample_bicubic2d.default": two(A.upsample_bicubic2d.default, [5, 7], True),
    "aten._upsample_bilinear2d_aa.vec": two(A._upsample_bilinear2d_aa.vec, [5, 4], True, None),
    "aten._upsample_bicubic2d_aa.vec": two(A._upsample_bicubic2d_aa.vec, None, False, [0.7, 0.5]),
    "aten._upsample_bilinear2d_aa.default": two(A._upsample_bilinear2d_aa.default, [5, 4], False),
    "aten._upsample_bicubic2d_aa.default": two(A._upsample_bicubic2d_aa.default, [5, 4], False),
}

PADS: dict[str, Function] = {
    "aten.pad.default": lambda x, y, d: F.pad(x, (0, 0) * (3 - d) + (1, 2), value=0.75),
    "aten.constant_pad_nd.default": lambda x, y, d: A.constant_pad_nd.default(x, [0, 0] * (3 - d) + [1, 0], -0.5),
    "aten.reflection_pad1d.default": one(A.reflection_pad1d.default, [1, 2]),
    "aten.reflection_pad2d.default": two(A.reflection_pad2d.default, [1, 0, 0, 1]),
    "aten.reflection_pad3d.default": three(A.reflection_pad3d.default, [1, 1, 0, 1, 1, 0]),
    "aten.replication_pad1d.default": one(A.replication_pad1d.default, [1, 2]),
    "aten.replication_pad2d.default": two(A.replication_pad2d.default, [1, 0, 0, 1]),
    "aten.replication_pad3d.default": three(A.replication_pad3d.default, [1, 1, 0, 1, 0, 0]),
}

SPACE: dict[str, Function] = POOLS | RESAMPLED | PADS
