"""Normalisations: batch statistics frozen (batch_norm in eval) leave channels apart; the others read them together."""

from __future__ import annotations

from typing import Any

import torch

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known
from surgery.layout import Layout
from surgery.registry import rule
from surgery.rules.pointwise import merge


def _beside(value: Value | None, rank: int, dim: int) -> list[Layout]:
    """A per-channel tensor `[c]` as an operand of rank `rank` on `dim`."""
    if value is None:
        return []
    shape = tuple(value.shape[0] if d == dim else 1 for d in range(rank))
    return [Layout(shape, tuple(b.reshape(shape) for b in value.layout.blocks))]


def _shaped(known: Known | None, call: KnownCall, default: float) -> Any:
    rank = len(call.shape)
    dim = min(1, rank - 1)
    if known is None:
        return torch.tensor(default, dtype=call.dtype), torch.tensor(False)
    shape = [-1 if d == dim else 1 for d in range(rank)]
    return known.widened(call.dtype).reshape(shape), known.varies.reshape(shape)


@rule("aten.batch_norm.default")
def batch_norm(
    call: Call,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    training: bool,
    **_: Any,
) -> Layout:
    """x [b, c, ...], weight [c], bias [c], mean [c], variance [c]: each channel on its own."""
    rank = input.layout.rank
    layout = input.layout
    if training or running_mean is None:
        others = [d for d in range(rank) if d != 1]
        layout = call.hold(layout, others, "batch_norm averages over this dim")
    stats = [layout, *(x for v in (weight, bias, running_mean, running_var) for x in _beside(v, rank, 1))]
    return merge(call, stats, call.shape)


@batch_norm.known
def _known_batch_norm(
    call: KnownCall,
    input: Known,
    weight: Known | None,
    bias: Known | None,
    running_mean: Known | None,
    running_var: Known | None,
    training: bool,
    eps: float = 1e-5,
    **_: Any,
) -> Known:
    gain, gain_varies = _shaped(weight, call, 1.0)
    shift, shift_varies = _shaped(bias, call, 0.0)
    if training or running_mean is None or running_var is None:
        if input.everything:
            return _standardised(call, input, gain, shift, gain_varies | shift_varies, eps)
        return _of_shift(call, input, gain, shift, gain_varies | shift_varies)
    mean, mean_varies = _shaped(running_mean, call, 0.0)
    variance, variance_varies = _shaped(running_var, call, 1.0)
    off = ~gain_varies & (gain == 0)  # a gain of 0 leaves the shift, whatever comes in
    value = (input.widened(call.dtype) - mean) * torch.rsqrt(variance + eps) * gain + shift
    varies = shift_varies | (~off & (input.varies | mean_varies | variance_varies | gain_varies))
    return Known.of(call.shape, torch.where(off, shift, value), varies)


def _standardised(call: KnownCall, input: Known, gain: Any, shift: Any, unknown: Any, eps: float) -> Known:
    """Everything is known (a weight that is standardised in forward): compute it."""
    full = input.full().to("cpu", call.dtype)
    dims = [d for d in range(full.dim()) if d != 1]
    variance, mean = torch.var_mean(full, dims, correction=0, keepdim=True)
    return Known.of(call.shape, (full - mean) * torch.rsqrt(variance + eps) * gain + shift, unknown)


def _of_shift(call: KnownCall, input: Known, gain: Any, shift: Any, unknown: Any) -> Known:
    """Normalised by its own statistics, a channel that does not vary becomes its shift; so does one of gain 0."""
    dim = min(1, len(call.shape) - 1)
    _, constant = input.along(dim)
    shape = [-1 if d == dim else 1 for d in range(len(call.shape))]
    steady = constant.reshape(shape) | (gain == 0)
    value = shift.expand(torch.broadcast_shapes(shift.shape, steady.shape))
    return Known.of(call.shape, value, ~steady | unknown)


@rule("aten.instance_norm.default")
def instance_norm(
    call: Call,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    use_input_stats: bool,
    **_: Any,
) -> Layout:
    """x [b, c, ...], weight [c], bias [c]: each channel on its own, over space."""
    rank = input.layout.rank
    layout = input.layout
    if use_input_stats:
        layout = call.hold(layout, range(2, rank), "instance_norm averages over this dim")
    stats = [layout, *(x for v in (weight, bias, running_mean, running_var) for x in _beside(v, rank, 1))]
    return merge(call, stats, call.shape)


@instance_norm.known
def _known_instance_norm(
    call: KnownCall, input: Known, weight: Known | None, bias: Known | None, use_input_stats: bool, **others: Any
) -> Known:
    if not use_input_stats:
        frozen: Known = _known_batch_norm(call, input, weight, bias, training=False, **others)
        return frozen
    gain, gain_varies = _shaped(weight, call, 1.0)
    shift, shift_varies = _shaped(bias, call, 0.0)
    return _of_shift(call, input, gain, shift, gain_varies | shift_varies)


@rule("aten.layer_norm.default")
def layer_norm(
    call: Call, input: Value, normalized_shape: list[int], weight: Value | None, bias: Value | None, **_: Any
) -> Layout:
    """x [..., n], weight [n], bias [n]: averages over the last dims, which therefore stay."""
    return _mixed_last(call, input, normalized_shape, [weight, bias])


@rule("aten.rms_norm.default", sizes=("normalized_shape",))
def rms_norm(call: Call, input: Value, normalized_shape: list[int], weight: Value | None, **_: Any) -> Layout:
    """x [..., n], weight [n]: averages over the last dims, of which zeros may go, made up for in weight and eps."""
    if len(normalized_shape) == 1 and weight is not None and call.normalize(input, input.layout.rank - 1):
        return merge(call, [input.layout, weight.layout], call.shape)
    return _mixed_last(call, input, normalized_shape, [weight])


def _mixed_last(call: Call, input: Value, normalized_shape: list[int], others: list[Value | None]) -> Layout:
    rank = input.layout.rank
    dims = range(rank - len(normalized_shape), rank)
    layout = call.fix(input.layout, dims, f"{call.name} averages over this axis")
    for other in others:
        call.hold_all(other, f"{call.name} averages over this axis")
    return Layout(call.shape, layout.blocks)


@rms_norm.known
def _known_rms_norm(
    call: KnownCall, input: Known, normalized_shape: list[int], weight: Known | None, **_: Any
) -> Known:
    """Zeros stay zero."""
    known: Known = _known_layer_norm(call, input, normalized_shape, weight)
    zero = ~input.varies & (input.value == 0)
    return Known(known.shape, torch.where(zero, 0.0, known.value), known.varies & ~zero)


@layer_norm.known
def _known_layer_norm(
    call: KnownCall,
    input: Known,
    normalized_shape: list[int],
    weight: Known | None,
    bias: Known | None = None,
    **_: Any,
) -> Known:
    """Statistics mix all channels, so the output varies, but where a gain of 0 leaves the shift."""
    if weight is None:
        return Known.anything(call.shape)
    gain = weight.widened(call.dtype)
    shift = bias.widened(call.dtype) if bias is not None else torch.zeros((), dtype=call.dtype)
    varies = ~(~weight.varies & (gain == 0))
    if bias is not None:
        varies = varies | bias.varies
    lead = (1,) * (len(call.shape) - gain.dim())
    value = shift.expand(torch.broadcast_shapes(gain.shape, shift.shape))
    return Known.of(call.shape, value.reshape(lead + tuple(value.shape)), varies.reshape(lead + tuple(varies.shape)))


@rule("aten.group_norm.default")
def group_norm(call: Call, input: Value, num_groups: int, weight: Value | None, bias: Value | None, **_: Any) -> Layout:
    """x [b, c, ...], weight [c], bias [c]: averages over the channels of each group, which therefore stay."""
    call.hold_all([weight, bias], "group_norm averages over this axis")
    layout = call.fix(input.layout, range(1, input.layout.rank), "group_norm averages over this axis")
    return Layout(call.shape, layout.blocks)


@group_norm.known
def _known_group_norm(
    call: KnownCall, input: Known, num_groups: int, weight: Known | None, bias: Known | None, **_: Any
) -> Known:
    if weight is None:
        return Known.anything(call.shape)
    gain, gain_varies = _shaped(weight, call, 1.0)
    shift, shift_varies = _shaped(bias, call, 0.0)
    off = ~gain_varies & (gain == 0)
    return Known.of(call.shape, shift.expand(torch.broadcast_shapes(shift.shape, off.shape)), ~off | shift_varies)


@rule("aten._weight_norm.default")
def weight_norm(call: Call, v: Value, g: Value, dim: int = 0) -> Layout:
    """`g · v / |v|`, the norm over all dims but `dim` (-1: over all): those are read, and `dim` is tied."""
    normed = [d for d in range(v.layout.rank) if d != dim]
    layout = call.hold(v.layout, normed, "weight_norm takes a norm over this axis")
    return merge(call, [layout, g.layout], call.shape)


@rule("aten._weight_norm_interface.default")
def weight_norm_interface(call: Call, v: Value, g: Value, dim: int = 0) -> tuple[Layout, ...]:
    """`_weight_norm` with the norms as a second output."""
    layout = weight_norm.couple(call, v, g, dim)
    return layout, g.layout


@rule("aten.cosine_similarity.default", "aten.pairwise_distance.default", "aten.cdist.default")
def similarity(call: Call, x1: Value, x2: Value, **_: Any) -> Layout:
    """Distances read everything along their dim."""
    call.hold_all([x1, x2], f"{call.name} reads whole vectors")
    return Layout(call.shape)
