"""Pools, pads and resampling: every argument that can change a constant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.samples.sample import Plain, Sample

A = torch.ops.aten
ALL = (0, 1, 2)
SHAPES = {1: (2, 6, 9), 2: (2, 6, 8, 9), 3: (2, 5, 4, 6, 5)}
OTHERS = {1: (3, 6, 7), 2: (3, 6, 6, 10), 3: (1, 5, 6, 4, 7)}


def sliding(
    name: str, dims: int, function: Callable[[Tensor], Any], reason: str, found: tuple[int, ...] = ALL
) -> Sample:
    """An op on the last `dims` dims that treats every channel alone."""
    return Sample(
        name, function, {"x": SHAPES[dims]}, free="x0 x1", held=(reason,), found=found, resized={"x": OTHERS[dims]}
    )


MAX = (
    sliding("max_pool1d", 1, lambda x: F.max_pool1d(x, 3, 2, 1), "max_pool1d slides over it"),
    sliding("max_pool2d", 2, lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), "max_pool2d slides over it"),
    sliding("max_pool2d, dilated", 2, lambda x: F.max_pool2d(x, 2, 1, 1, 2), "max_pool2d slides over it"),
    sliding("max_pool3d", 3, lambda x: F.max_pool3d(x, 2, 2, 1), "max_pool3d slides over it"),
    sliding(
        "max_pool1d with indices",
        1,
        lambda x: A.max_pool1d_with_indices.default(x, [3], [2], [1])[0],
        "max_pool1d_with",
    ),
    sliding("max_pool2d with indices", 2, lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True), "max_pool2d_with"),
    sliding("max_pool3d with indices", 3, lambda x: F.max_pool3d(x, 2, return_indices=True), "max_pool3d_with_indices"),
    sliding("adaptive_max_pool1d", 1, lambda x: F.adaptive_max_pool1d(x, 4), "adaptive_max_pool1d slides over it"),
    sliding("adaptive_max_pool2d", 2, lambda x: F.adaptive_max_pool2d(x, (3, 4)), "adaptive_max_pool2d slides over it"),
    sliding("adaptive_max_pool3d", 3, lambda x: F.adaptive_max_pool3d(x, 3), "adaptive_max_pool3d slides over it"),
    sliding(
        "max_pool2d behind an explicit zero pad",
        2,
        lambda x: F.max_pool2d(F.pad(x, (1, 1, 0, 0)), 3),
        "max_pool2d slides over it",
        (0,),
    ),
)

AVERAGE = (
    sliding("avg_pool1d", 1, lambda x: F.avg_pool1d(x, 3), "avg_pool1d slides over it"),
    sliding("avg_pool1d, padded", 1, lambda x: F.avg_pool1d(x, 3, 2, 1), "avg_pool1d slides over it", (0,)),
    sliding("avg_pool2d", 2, lambda x: F.avg_pool2d(x, (2, 3), 2), "avg_pool2d slides over it"),
    sliding("avg_pool2d, ceil_mode", 2, lambda x: F.avg_pool2d(x, 5, 3, ceil_mode=True), "avg_pool2d slides over it"),
    sliding("avg_pool2d, padded", 2, lambda x: F.avg_pool2d(x, 3, 2, (0, 1)), "avg_pool2d slides over it", (0,)),
    sliding(
        "avg_pool2d, padded, ceil_mode",
        2,
        lambda x: F.avg_pool2d(x, 4, 3, 1, ceil_mode=True),
        "avg_pool2d slides",
        (0,),
    ),
    sliding(
        "avg_pool2d, padding not counted",
        2,
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        "avg_pool2d slides over it",
    ),
    sliding(
        "avg_pool2d with a divisor", 2, lambda x: F.avg_pool2d(x, 3, divisor_override=2), "avg_pool2d slides over it"
    ),
    sliding(
        "avg_pool2d with a divisor, padded",
        2,
        lambda x: F.avg_pool2d(x, 3, 1, 1, divisor_override=2),
        "avg_pool2d slides over it",
        (0,),
    ),
    sliding(
        "avg_pool2d with a divisor, padding not counted",
        2,
        lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False, divisor_override=9),
        "avg_pool2d slides over it",
        (0,),
    ),
    sliding(
        "avg_pool2d with a divisor, ceil_mode",
        2,
        lambda x: F.avg_pool2d(x, 5, 3, ceil_mode=True, divisor_override=2),
        "avg_pool2d slides over it",
        (0,),
    ),
    sliding("avg_pool3d", 3, lambda x: F.avg_pool3d(x, 2, divisor_override=3), "avg_pool3d slides over it"),
    sliding("adaptive_avg_pool1d", 1, lambda x: F.adaptive_avg_pool1d(x, 4), "adaptive_avg_pool1d slides over it"),
    sliding(
        "adaptive_avg_pool2d", 2, lambda x: F.adaptive_avg_pool2d(x, (3, None)), "adaptive_avg_pool2d slides over it"
    ),
    sliding("adaptive_avg_pool3d", 3, lambda x: F.adaptive_avg_pool3d(x, 3), "adaptive_avg_pool3d slides over it"),
    sliding(
        "_adaptive_avg_pool2d", 2, lambda x: A._adaptive_avg_pool2d.default(x, [3, 2]), "_adaptive_avg_pool2d slides"
    ),
    sliding("_adaptive_avg_pool3d", 3, lambda x: A._adaptive_avg_pool3d.default(x, [3, 2, 2]), "_adaptive_avg_pool3d"),
    sliding("lp_pool2d", 2, lambda x: F.lp_pool2d(x, 2, 3, 2), "avg_pool2d slides over it"),
    Sample(
        "avg_pool2d unbatched",
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        {"x": (6, 8, 9)},
        free="x0",
        held=("avg_pool2d slides over it",),
        found=(0,),
        pattern="x0",
        along=0,
    ),
    Sample(
        "max_pool2d of a view of a vector",
        lambda x: F.max_pool2d(x.view(3, 6, 2, 4), 2),
        {"x": (3, 48)},
        free="x0 x1:6",
    ),
)

_UP = (
    ("nearest1d.vec", 1, lambda x: A.upsample_nearest1d.vec(x, None, [1.5])),
    ("nearest2d.vec", 2, lambda x: A.upsample_nearest2d.vec(x, None, [2.0, 1.5])),
    ("nearest3d.vec", 3, lambda x: A.upsample_nearest3d.vec(x, None, [2.0, 1.5, 1.0])),
    ("nearest1d", 1, lambda x: A.upsample_nearest1d.default(x, [5])),
    ("nearest2d", 2, lambda x: A.upsample_nearest2d.default(x, [5, 11])),
    ("nearest3d", 3, lambda x: A.upsample_nearest3d.default(x, [5, 3, 7])),
    ("linear1d.vec", 1, lambda x: A.upsample_linear1d.vec(x, None, False, [1.5])),
    ("bilinear2d.vec", 2, lambda x: A.upsample_bilinear2d.vec(x, [5, 11], True, None)),
    ("trilinear3d.vec", 3, lambda x: A.upsample_trilinear3d.vec(x, None, False, [2.0, 1.5, 1.0])),
    ("bicubic2d.vec", 2, lambda x: A.upsample_bicubic2d.vec(x, None, False, [0.7, 1.5])),
    ("linear1d", 1, lambda x: A.upsample_linear1d.default(x, [5], True)),
    ("bilinear2d", 2, lambda x: A.upsample_bilinear2d.default(x, [5, 11], False)),
    ("trilinear3d", 3, lambda x: A.upsample_trilinear3d.default(x, [5, 3, 7], False)),
    ("bicubic2d", 2, lambda x: A.upsample_bicubic2d.default(x, [5, 11], True)),
)
_EXACT = (
    ("exact1d.vec", 1, lambda x: A._upsample_nearest_exact1d.vec(x, None, [1.5])),
    ("exact2d.vec", 2, lambda x: A._upsample_nearest_exact2d.vec(x, None, [2.0, 1.5])),
    ("exact3d.vec", 3, lambda x: A._upsample_nearest_exact3d.vec(x, None, [2.0, 1.5, 1.0])),
    ("bilinear2d_aa.vec", 2, lambda x: A._upsample_bilinear2d_aa.vec(x, [5, 4], True, None)),
    ("bicubic2d_aa.vec", 2, lambda x: A._upsample_bicubic2d_aa.vec(x, None, False, [0.7, 0.5])),
    ("bilinear2d_aa", 2, lambda x: A._upsample_bilinear2d_aa.default(x, [5, 4], False)),
    ("bicubic2d_aa", 2, lambda x: A._upsample_bicubic2d_aa.default(x, [5, 4], False)),
)

RESAMPLING = (
    *(sliding(f"upsample {name}", dims, function, "upsample") for name, dims, function in _UP),
    *(sliding(f"upsample {name}", dims, function, "_upsample") for name, dims, function in _EXACT),
    sliding(
        "interpolate", 2, lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), "upsample_bilinear2d slides"
    ),
    sliding(
        "interpolate by area", 2, lambda x: F.interpolate(x, size=(3, 4), mode="area"), "adaptive_avg_pool2d slides"
    ),
)

SPACE = {"x": (2, 6, 4, 5)}
OTHER: Mapping[str, tuple[int, ...]] = {"x": (3, 6, 5, 4)}


def padded(name: str, function: Callable[[Tensor], Tensor], found: tuple[int, ...], *held: str) -> Sample:
    free = "x0 x1" if held else "x0 x1 x2 x3"
    return Sample(name, function, SPACE, free=free, held=held, found=found, resized=OTHER)


PADS = (
    padded("pad with zeros", lambda x: F.pad(x, (1, 2, 0, 1)), (0,)),
    padded("pad with another number", lambda x: F.pad(x, (1, 2, 0, 1), value=0.75), (1,)),
    padded("pad by nothing", lambda x: F.pad(x, (0, 0, 0, 0)), ALL),
    Sample(
        "pad that crops", lambda x: F.pad(x, (-1, 0, 0, -2)), SPACE, free="x0 x1", held=("pad changes it",), found=ALL
    ),
    padded("constant_pad_nd", lambda x: A.constant_pad_nd.default(x, [1, 0], -0.5), (2,)),
    padded("reflect", lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"), ALL, "pad changes it (reflect)"),
    padded("replicate", lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"), ALL, "pad changes it (replicate)"),
    padded("circular", lambda x: F.pad(x, (1, 2, 2, 1), mode="circular"), ALL, "pad changes it (circular)"),
    padded(
        "reflection_pad2d",
        lambda x: A.reflection_pad2d.default(x, [1, 2, 2, 1]),
        ALL,
        "reflection_pad2d slides over it",
    ),
    padded(
        "replication_pad2d", lambda x: A.replication_pad2d.default(x, [1, 2, 2, 1]), ALL, "replication_pad2d slides"
    ),
    sliding("reflection_pad1d", 1, lambda x: A.reflection_pad1d.default(x, [1, 2]), "reflection_pad1d slides over it"),
    sliding(
        "replication_pad1d", 1, lambda x: A.replication_pad1d.default(x, [1, 2]), "replication_pad1d slides over it"
    ),
    sliding(
        "reflection_pad3d", 3, lambda x: A.reflection_pad3d.default(x, [1, 2] * 3), "reflection_pad3d slides over it"
    ),
    sliding(
        "replication_pad3d", 3, lambda x: A.replication_pad3d.default(x, [1] * 6), "replication_pad3d slides over it"
    ),
    Sample(
        "pad channels with zeros",
        lambda x: F.pad(x, (0, 0, 0, 0, 2, 3)),
        SPACE,
        free="x0 x1 x2 x3",
        found=(0, 1, 2, 3, 4, 8, 9, 10),
        resized=OTHER,
    ),
    Sample(
        "option A's shortcut",
        lambda x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 3)),
        {"x": (2, 6, 4, 6)},
        free="x0 x1 x2:2 x3:3",
        found=(0, 1, 2, 3, 4, 5, 9, 10, 11),
    ),
    Sample(
        "pad channels by copies",
        lambda x: F.pad(x, (1, 1), mode="replicate"),
        {"x": (2, 3, 6)},
        free="x0 x1",
        held=("pad changes it (replicate)",),
        pattern="x2",
        along=2,
    ),
    Sample(
        "crop channels",
        lambda x: F.pad(x, (0, 0, 0, 0, -1, 2)),
        SPACE,
        free="x0 x2 x3",
        held=("pad changes it (constant)",),
        found=(0, 1, 5, 6),
    ),
    Sample(
        "pad columns of a multi-head view",
        lambda x: F.pad(x.view(3, 2, 4), (1, 0)),
        {"x": (3, 8)},
        free="x0 x1:2",
    ),
    Sample("pad untracked channels", lambda x: F.pad(x, (0, 0, 1, 1)), {"x": Plain((2, 6, 3))}),
)

GRID = torch.rand(1, 3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2.4 - 1.2
READ = "its values are positions"

SAMPLED = (
    Sample(
        "grid_sample",
        lambda x, g: F.grid_sample(x, g.expand(2, 3, 4, 2), align_corners=False),
        {"x": (2, 6, 5, 7), "g": GRID},
        free="x1",
        held=("grid_sampler samples it", READ),
        found=(0,),
    ),
    Sample(
        "grid_sample, border",
        lambda x, g: A.grid_sampler_2d.default(x, g, 0, 1, True),
        {"x": (1, 6, 5, 7), "g": GRID},
        free="x1",
        held=("grid_sampler_2d samples it", READ),
        found=ALL,
    ),
    Sample(
        "grid_sample in three dims",
        lambda x, t: F.grid_sample(
            x, F.affine_grid(t, [2, 3, 3, 3, 3], align_corners=False), "nearest", "reflection", False
        ),
        {"x": (2, 6, 4, 5, 7), "t": (2, 3, 4)},
        free="x1",
        held=("grid_sampler samples it", "affine_grid makes positions of it"),
        found=ALL,
    ),
    Sample(
        "grid_sampler_3d",
        lambda x, t: A.grid_sampler_3d.default(x, F.affine_grid(t, [2, 3, 3, 3, 3], align_corners=True), 0, 0, True),
        {"x": (2, 6, 4, 5, 7), "t": (2, 3, 4)},
        free="x1",
        held=("grid_sampler_3d samples it", "affine_grid makes positions of it"),
        found=(0,),
    ),
    sliding(
        "max_unpool2d",
        2,
        lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), [2, 2], output_size=x.shape[-2:]),
        "max_pool2d_with",
        (0,),
    ),
    sliding(
        "max_unpool3d",
        3,
        lambda x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), [2, 2, 2], output_size=x.shape[-3:]),
        "max_pool3d_with",
        (0,),
    ),
)

SAMPLES = (*MAX, *AVERAGE, *RESAMPLING, *PADS, *SAMPLED)
