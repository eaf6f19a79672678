"""Convolutions: `x [b, g·i, ...], w [g·o, i, ...] -> [b, g·o, ...]`, transposed `w [g·i, o, ...]`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from surgery.calls import Call, KnownCall, Value
from surgery.coupling import KERNEL, Orientation
from surgery.known import Known, Memo, Pattern
from surgery.layout import Ids, Layout
from surgery.pieces import AT_ONCE, pieces
from surgery.registry import rule


def oriented(weight: Tensor, conv_groups: int, orientation: Orientation) -> Tensor:
    """A weight as `[conv_groups, outputs per group, inputs per group, kernel elements]`."""
    kernel = math.prod(weight.shape[2:])
    if orientation == "out_in":
        return weight.reshape(conv_groups, weight.shape[0] // conv_groups, weight.shape[1], kernel)
    grouped = weight.reshape(conv_groups, weight.shape[0] // conv_groups, weight.shape[1], kernel)
    return grouped.transpose(1, 2)


def _pads(padding: Any, kernel: list[int]) -> bool:
    """Whether zero padding is laid around the input."""
    if isinstance(padding, str):
        return padding == "same" and any(k > 1 for k in kernel)
    return any(p > 0 for p in padding)


def _convolve(
    call: Call,
    input: Value,
    weight: Value,
    bias: Value | None,
    conv_groups: int,
    orientation: Orientation,
    borders: bool,
) -> Layout:
    """Tie the input's channels with the weight's, hand out the weight's output channels."""
    rank = input.layout.rank
    batched = rank == weight.layout.rank
    dim = 1 if batched else 0
    in_dim, out_dim = (1, 0) if orientation == "out_in" else (0, 1)
    layout, ids = call.channels(input, dim)
    call.only(Value(input.node, layout), [dim, 0] if batched else [dim], f"{call.name} slides over it")
    outer = tuple(b for b in layout.blocks if batched and b.shape[0] > 1)
    w = call.only(weight, [0, 1], KERNEL)
    w = _apart(call, w)
    rows, columns = _axis(w, 0), _axis(w, 1)
    bias_ids = _axis(bias.layout, 0) if bias is not None else None
    n_out = call.shape[dim]
    if conv_groups == 1:
        inputs, outputs = (columns, rows) if orientation == "out_in" else (rows, columns)
        _couple(call, ids, inputs, "the weight's input channels are fixed")
    elif orientation == "out_in":
        inputs, outputs = ids, rows
    else:
        follows = columns is not None or (weight.shape[1] == 1 and rows is not None)
        inputs, outputs = rows, call.fresh(n_out) if follows else None
        _couple(call, ids, rows, "the weight's input channels are fixed")
    if conv_groups > 1:
        # position j of a grouped weight's dim 1 is another channel in each of its groups
        inner, inner_dim = (inputs, in_dim) if orientation == "out_in" else (outputs, out_dim)
        if inner is not None and columns is None and (weight.shape[1] > 1 or rows is None):
            call.pin(inner, "the weight's input channels are fixed")
        elif inner is not None:
            call.delegate(Value(weight.node, w, weight.parameter), inner_dim, inner.reshape(conv_groups, -1))
        elif columns is not None:
            call.pin(columns, f"{call.name} meets channels that are fixed")
        sides = [side.reshape(conv_groups, -1) for side in (inputs, outputs) if side is not None]
        if len(sides) == 2 and all(side.shape[1] == 1 for side in sides):
            call.tie(*sides)  # depthwise: a channel in is a channel out
        elif sides:
            call.uniform(*sides, rows_stay=len(sides) == 1)
    _couple(call, outputs, bias_ids, "the bias cannot shrink", needed=bias is not None)
    if ids is not None or inputs is not None:
        channels = ids if ids is not None else inputs
        assert channels is not None
        call.use(
            input,
            dim,
            channels.reshape(conv_groups, -1),
            rows=outputs.reshape(conv_groups, -1) if outputs is not None else None,
            weight=weight,
            orientation=orientation,
            bias=bias,
            borders=borders,
        )
    elif outputs is not None and (conv_groups == 1 or orientation == "out_in"):
        call.produce(weight, 0 if orientation == "out_in" else 1)  # of what nobody can take away, such as one channel
    return Layout(call.shape, (*outer, *call.placed(outputs, len(call.shape), dim)))


def _apart(call: Call, layout: Layout) -> Layout:
    """A (computed) weight whose two channel dims share a block cannot be cut on either."""
    shared = [b for b in layout.blocks if b.shape[0] > 1 and b.shape[1] > 1]
    return call.hold(layout, [0, 1], "the weight's rows and columns are entangled") if shared else layout


def _axis(layout: Layout, dim: int) -> Ids | None:
    block = layout.block_of(dim)
    return None if block is None else block.ravel()


def _couple(call: Call, ids: Ids | None, others: Ids | None, reason: str, *, needed: bool = True) -> None:
    """Tie two sides of one dim; a side that is untracked holds the other."""
    if ids is not None and others is not None:
        call.tie(ids, others)
    elif needed and ids is not None:
        call.pin(ids, reason)
    elif others is not None:
        call.pin(others, f"{call.name} meets channels that are fixed")


@rule(
    "aten.conv1d.default",
    "aten.conv2d.default",
    "aten.conv3d.default",
    "aten.conv1d.padding",
    "aten.conv2d.padding",
    "aten.conv3d.padding",
    sizes=("groups",),
)
def convolution(
    call: Call,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Layout:
    """`x [b, g·i, ...], w [g·o, i, k...], bias [g·o]`. Stride and dilation move no channel; padding is a border."""
    borders = _pads(padding, list(weight.shape[2:]))
    return _convolve(call, input, weight, bias, groups, "out_in", borders)


@convolution.known
def _known_convolution(
    call: KnownCall,
    input: Known,
    weight: Known,
    bias: Known | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Known:
    borders = _pads(padding, list(weight.shape[2:]))
    dim = 1 if len(input.shape) == len(weight.shape) else 0
    return contracted(call, input, dim, weight, bias, groups, "out_in", borders)


@rule(
    "aten.conv_transpose1d.default",
    "aten.conv_transpose2d.input",
    "aten.conv_transpose3d.input",
    sizes=("groups",),
)
def transposed_convolution(
    call: Call,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Layout:
    """`x [b, g·i, ...], w [g·i, o, k...], bias [g·o]`. Every kernel or stride above 1 makes a border."""
    borders = any(k > 1 for k in weight.shape[2:]) or any(s > 1 for s in stride) or any(p > 0 for p in output_padding)
    return _convolve(call, input, weight, bias, groups, "in_out", borders)


@transposed_convolution.known
def _known_transposed_convolution(
    call: KnownCall,
    input: Known,
    weight: Known,
    bias: Known | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Known:
    borders = any(k > 1 for k in weight.shape[2:]) or any(s > 1 for s in stride) or any(p > 0 for p in output_padding)
    dim = 1 if len(input.shape) == len(weight.shape) else 0
    return contracted(call, input, dim, weight, bias, groups, "in_out", borders)


def contracted(
    call: KnownCall,
    input: Known,
    dim: int,
    weight: Known,
    bias: Known | None,
    conv_groups: int,
    orientation: Orientation,
    borders: bool,
) -> Known:
    """An output channel is constant where its row has no weight on what varies (nor, at a border, on what is not 0).

    The value is `bias + sum of weight · constant`, over the kernel.
    """
    if not weight.everything:
        return Known.anything(call.shape)
    value, constant = input.along(dim)
    value = value.to("cpu", call.dtype)
    pattern = pattern_of(weight, conv_groups, orientation, call.memo)
    steady = constant & (value == 0) if borders else constant
    varies = _rows_on(pattern, ~steady)
    if bias is not None:
        bias_value, bias_constant = (array.expand(varies.numel()) for array in bias.along(0))
        varies = varies | ~bias_constant
    if bool(varies.all()):
        return Known.anything(call.shape)
    out = torch.zeros(varies.numel(), dtype=call.dtype)
    constants = torch.where(constant, value, 0.0)
    rows = (~varies & _rows_on(pattern, constants != 0)).nonzero()[:, 0]
    if rows.numel():
        full = oriented(weight.full(), conv_groups, orientation)  # (g, o, i, k)
        added = full.reshape(-1, *full.shape[2:])[rows].sum(-1, dtype=call.dtype).cpu()  # (rows, i)
        out[rows] = (added * constants.reshape(conv_groups, -1)[rows // full.shape[1]]).sum(-1)
    if bias is not None:
        out += torch.where(varies, 0.0, bias_value.to("cpu", call.dtype))
    shape = [-1 if d == dim else 1 for d in range(len(call.shape))]
    return Known.of(call.shape, out.reshape(shape), varies.reshape(shape))


def _rows_on(pattern: Pattern, inputs: Tensor) -> Tensor:
    """Which of all rows read any of these inputs `[g * i]`; `[g * o]`."""
    return torch.from_numpy(pattern.rows_on(inputs.numpy().reshape(pattern.columns.shape)).reshape(-1))


def leads_last(weight: Known, lead: int) -> Known:
    """A weight `[experts, out, in]` with its leading dims behind the others, as those of a kernel lie."""
    if not lead:
        return weight
    rank = len(weight.shape)
    order = (*range(lead, rank), *range(lead))
    return weight.map(lambda array: array.permute(order), tuple(weight.shape[d] for d in order))


def pattern_of(weight: Known, conv_groups: int, orientation: Orientation, memo: Memo) -> Pattern:
    """Where a known weight is not zero; found once and remembered in `memo`."""
    value = weight.value
    key = (value.data_ptr(), value.shape, value.stride(), value.dtype, weight.shape, conv_groups, orientation)
    if key not in memo:
        full = oriented(weight.full(), conv_groups, orientation)
        # the tensor stays alive, and its address its own
        memo[key] = (value, _pattern(full))
    pattern: Pattern = memo[key][1]
    return pattern


def _pattern(full: Tensor) -> Pattern:
    """The pattern of `[g, o, i, k]`; a large one is looked at in pieces."""
    if full.shape[0] == 1 and full.numel() > AT_ONCE:
        stretches = (_any_element(rows).cpu().numpy() for rows in pieces(full[0]))
        return Pattern.of_rows(stretches, (full.shape[1], full.shape[2]))
    found = torch.empty(full.shape[0] * full.shape[1], full.shape[2], dtype=torch.bool)
    done = 0
    for rows in pieces(full.flatten(0, 1)):
        found[done : (done := done + rows.shape[0])] = _any_element(rows)
    return Pattern.of(found.reshape(full.shape[:-1]).numpy())


def _any_element(rows: Tensor) -> Tensor:
    """`[rows, i, k] -> [rows, i]`, fast: a sum of magnitudes is zero only where each is."""
    if rows.shape[-1] == 1:
        return rows.squeeze(-1) != 0 if rows.is_complex() else rows.squeeze(-1).bool()
    return rows.abs().sum(-1) != 0 if rows.is_floating_point() else (rows != 0).any(-1)
