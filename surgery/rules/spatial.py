"""Pools, pads and resampling: space changes, channels pass; what they do to a constant is their second answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known
from surgery.layout import Layout
from surgery.registry import rule
from surgery.rules.pointwise import merge

# ops whose every output is a weighted mean (weights adding to 1) or a maximum of inputs of its own channel
_KEEPING = (
    "max_pool1d.default max_pool2d.default max_pool3d.default max_pool1d_with_indices.default "
    "max_pool2d_with_indices.default max_pool3d_with_indices.default "
    "adaptive_max_pool1d.default adaptive_max_pool2d.default adaptive_max_pool3d.default "
    "adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_avg_pool3d.default "
    "_adaptive_avg_pool2d.default _adaptive_avg_pool3d.default "
    "upsample_nearest1d.vec upsample_nearest2d.vec upsample_nearest3d.vec "
    "upsample_nearest1d.default upsample_nearest2d.default upsample_nearest3d.default "
    "_upsample_nearest_exact1d.vec _upsample_nearest_exact2d.vec _upsample_nearest_exact3d.vec "
    "upsample_linear1d.vec upsample_bilinear2d.vec upsample_trilinear3d.vec upsample_bicubic2d.vec "
    "upsample_linear1d.default upsample_bilinear2d.default upsample_trilinear3d.default upsample_bicubic2d.default "
    "_upsample_bilinear2d_aa.vec _upsample_bicubic2d_aa.vec _upsample_bilinear2d_aa.default "
    "_upsample_bicubic2d_aa.default"
).split()

_SPATIAL_DIMS = {"1d": 1, "2d": 2, "3d": 3}


def _spatial_dims(op: str, rank: int) -> range:
    count = next((n for mark, n in _SPATIAL_DIMS.items() if mark in op), 1)
    return range(rank - count, rank)


@rule(*(f"aten.{op}" for op in _KEEPING), sizes=())
def pool(call: Call, input: Value, **_: Any) -> Any:
    """x [b, c, ...]: every channel on its own; a constant stays what it is."""
    return _per_channel(call, input)


def _per_channel(call: Call, input: Value) -> Any:
    layout = call.hold(input.layout, _spatial_dims(call.op, input.layout.rank), f"{call.name} slides over it")
    outputs = tuple(Layout(shape, layout.blocks) for shape in call.shapes)
    return outputs[0] if len(outputs) == 1 else outputs


def flattened(known: Known, dims: Sequence[int]) -> Known:
    """Dims along which anything changes become varying, and shrink to one position."""
    value, varies = known.value, known.varies
    for dim in dims:
        if value.shape[dim] > 1 or varies.shape[dim] > 1:
            first = value.narrow(dim, 0, 1)
            varies = varies.any(dim, keepdim=True) | (value != first).any(dim, keepdim=True)
            value = first
    return Known(known.shape, value, varies)


@pool.known
def _known_pool(call: KnownCall, input: Known, **_: Any) -> Any:
    flat = flattened(input, _spatial_dims(str(call.target), len(input.shape)))
    outputs = (Known(call.shape, flat.value, flat.varies), *(Known.anything(shape) for shape in call.shapes[1:]))
    return outputs[0] if len(outputs) == 1 else outputs


@rule("aten.avg_pool1d.default", "aten.avg_pool2d.default", "aten.avg_pool3d.default")
def avg_pool(call: Call, input: Value, **_: Any) -> Layout:
    """x [b, c, ...]: the mean of a window; padding that is counted makes a border."""
    layout: Layout = _per_channel(call, input)
    return layout


@avg_pool.known
def _known_avg_pool(
    call: KnownCall,
    input: Known,
    kernel_size: list[int],
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    **_: Any,
) -> Known:
    dims = _spatial_dims(str(call.target), len(input.shape))
    flat = flattened(input, dims)
    padded = any(p > 0 for p in (padding if isinstance(padding, list | tuple) else [padding]))
    value, varies = flat.value, flat.varies
    if divisor_override is not None:
        window = math.prod(kernel_size) if len(kernel_size) == len(dims) else kernel_size[0] ** len(dims)
        value = value.to(call.dtype) * (window / divisor_override)
        varies = varies | ((value != 0) if padded or ceil_mode else torch.tensor(False))
    elif padded and count_include_pad:
        varies = varies | (value != 0)
    return Known(call.shape, value, varies)


@rule("aten.pad.default", "aten.constant_pad_nd.default", sizes=("pad",))
def pad(call: Call, input: Value, pad: list[int], mode: str = "constant", value: float | None = None) -> Layout:
    """Space grows; padded channels get ids without a parameter, and their number is a size in the code."""
    rank = input.layout.rank
    layout = input.layout
    amounts = _amounts(pad, rank)
    for dim, (before, after) in amounts.items():
        block = layout.block_of(dim)
        if block is None or (before == 0 and after == 0):
            continue
        if mode != "constant" or sum(size > 1 for size in block.shape) > 1 or min(before, after) < 0:
            layout = call.hold(layout, [dim], f"pad changes it ({mode})")
            continue
        padded = torch.cat(
            [torch.from_numpy(x) for x in (call.fresh(before), block.ravel(), call.fresh(after))]
        ).numpy()
        others = tuple(b for b in layout.blocks if b is not block)
        layout = Layout(layout.shape, (*others, *call.placed(padded, rank, dim)))
    return Layout(call.shape, layout.blocks)


def _amounts(pad: list[int], rank: int) -> dict[int, tuple[int, int]]:
    """How much is added before and after, by dim: `pad` starts at the last dim."""
    return {rank - 1 - i: (int(pad[2 * i]), int(pad[2 * i + 1])) for i in range(len(pad) // 2)}


@pad.known
def _known_pad(
    call: KnownCall, input: Known, pad: list[int], mode: str = "constant", value: float | None = None
) -> Known:
    """A constant stays one where the pad is the same number, or copies of it."""
    known, filling = input, float(value or 0.0)
    for dim, (before, after) in _amounts(pad, len(input.shape)).items():
        if before <= 0 and after <= 0 and known.value.shape[dim] == known.varies.shape[dim] == 1:
            continue
        if mode == "constant" and known.value.shape[dim] == known.varies.shape[dim] == 1 and dim != 1:
            differs = known.value != filling
            known = Known(known.shape, known.value, known.varies | differs)
        elif mode == "constant":
            grow = [0, 0] * (len(input.shape) - 1 - dim) + [before, after]
            held = known.held(dim)
            known = Known(
                known.shape,
                torch.nn.functional.pad(held.widened(call.dtype), grow, value=filling),
                torch.nn.functional.pad(held.varies, grow, value=False),
            )
        else:
            known = flattened(known, [dim])
    return Known(call.shape, known.value, known.varies)


@rule(
    "aten.reflection_pad1d.default",
    "aten.reflection_pad2d.default",
    "aten.reflection_pad3d.default",
    "aten.replication_pad1d.default",
    "aten.replication_pad2d.default",
    "aten.replication_pad3d.default",
)
def copying_pad(call: Call, input: Value, padding: list[int]) -> Layout:
    """Space grows by copies of what is there."""
    layout: Layout = _per_channel(call, input)
    return layout


@copying_pad.known
def _known_copying_pad(call: KnownCall, input: Known, padding: list[int]) -> Known:
    flat = flattened(input, _spatial_dims(str(call.target), len(input.shape)))
    return Known(call.shape, flat.value, flat.varies)


@rule("aten.grid_sampler.default", "aten.grid_sampler_2d.default", "aten.grid_sampler_3d.default")
def grid_sampler(call: Call, input: Value, grid: Value, **_: Any) -> Layout:
    """`x [b, c, h, w], grid [b, h', w', 2] -> [b, c, h', w']`: the grid is read, channels pass."""
    call.hold_all(grid, "its values are positions")
    layout = call.hold(input.layout, [d for d in range(input.layout.rank) if d != 1], f"{call.name} samples it")
    return Layout(call.shape, layout.blocks)


@grid_sampler.known
def _known_grid_sampler(call: KnownCall, input: Known, padding_mode: int, **_: Any) -> Known:
    """A weighted mean of one channel; outside the picture it is zero, where zeros are padded."""
    flat = flattened(input, [d for d in range(len(input.shape)) if d != 1])
    return Known(call.shape, flat.value, flat.varies | (flat.value != 0) if padding_mode == 0 else flat.varies)


@rule("aten.affine_grid_generator.default", sizes=("size",))
def affine_grid(call: Call, theta: Value, **_: Any) -> Layout:
    """Positions made of a matrix: it is read."""
    call.hold_all(theta, "affine_grid makes positions of it")
    return Layout(call.shape)


@rule("aten.max_unpool2d.default", "aten.max_unpool3d.default")
def max_unpool(call: Call, input: Value, indices: Value, **_: Any) -> Layout:
    """`x [b, c, h, w], indices [b, c, h, w]`: every channel on its own."""
    dims = _spatial_dims(call.op, input.layout.rank)
    held = [call.hold(v.layout, dims, f"{call.name} spreads it over space") for v in (input, indices)]
    return Layout(call.shape, merge(call, held, input.shape).blocks)


@max_unpool.known
def _known_max_unpool(call: KnownCall, input: Known, **_: Any) -> Known:
    """Zeros lie between: only zero stays what it is."""
    flat = flattened(input, _spatial_dims(str(call.target), len(input.shape)))
    return Known(call.shape, flat.value, flat.varies | (flat.value != 0))
