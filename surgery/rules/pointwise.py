"""Pointwise ops: operands are tied position by position. One shared rule; PyTorch's own tag finds most of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known
from surgery.layout import Ids, Layout, Shape, covered
from surgery.registry import POINTWISE, Rule, rule
from surgery.rules.copies import laid_out
from surgery.rules.grids import gridded


def merge(call: Call, operands: Sequence[Layout], shape: Shape) -> Layout:
    """Broadcast the operands as torch does and tie what meets: the layout of a pointwise result.

    A dim that one operand tracks and another has untracked at full size cannot shrink, and is held.
    """
    if len(operands) == 1 and operands[0].shape == shape:
        return operands[0]
    rank = len(shape)
    lifted = [layout if layout.rank == rank else _lift(layout, rank) for layout in operands]
    for dim in range(rank):
        tracked = [layout.block_of(dim) is not None for layout in lifted]
        fixed = [layout.shape[dim] > 1 and not t for layout, t in zip(lifted, tracked, strict=True)]
        if any(tracked) and any(fixed):
            reason = f"{call.name} meets an operand whose dim {dim} cannot shrink"
            lifted = [call.hold(layout, [dim], reason) for layout in lifted]
    for one in range(len(lifted)):
        for other in range(len(lifted)):
            lifted[one] = gridded(call, lifted[one], lifted[other])
    merged: list[Ids] = []
    for layout in lifted:
        for block in layout.blocks:
            merged = _join(call, merged, block)
    return Layout(shape, tuple(merged))


def _lift(layout: Layout, rank: int) -> Layout:
    missing = (1,) * (rank - layout.rank)
    return Layout(missing + layout.shape, tuple(block.reshape(missing + block.shape) for block in layout.blocks))


def _join(call: Call, merged: list[Ids], block: Ids) -> list[Ids]:
    """Add a block to disjoint ones, tying it to those that it overlaps."""
    mine = set(covered(block))
    apart = [other for other in merged if mine.isdisjoint(covered(other))]
    touching = [other for other in merged if not mine.isdisjoint(covered(other))]
    for other in touching:
        # the widest block stays; where neither contains the other, what is not shared is held
        widest = max((block, other), key=lambda ids: len(covered(ids)))
        narrow = other if widest is block else block
        strangers = [d for d in covered(narrow) if d not in covered(widest)]
        if strangers:
            held = call.hold(Layout(tuple(narrow.shape), (narrow,)), strangers, f"{call.name} crosses two joint blocks")
            if not held.blocks:
                block = widest
                continue
            narrow = held.blocks[0]
        _meet(call, widest, narrow)
        block = widest
    return [*apart, block]


def _meet(call: Call, widest: Ids, narrow: Ids) -> None:
    """Tie units that meet; where rows in front all meet the same columns (heads, one gain), each may go on its own."""
    missing = [d for d in covered(widest) if narrow.shape[d] == 1]
    if not missing or missing[-1] > covered(narrow)[0]:
        call.tie(widest, narrow)
        return
    shape = [size if d in missing else 1 for d, size in enumerate(widest.shape)]
    call.outer(call.fresh(math.prod(shape), "rows").reshape(shape), narrow, widest)


def _operands(arguments: dict[str, Any]) -> list[Value]:
    found: list[Value] = []
    for argument in arguments.values():
        found += [v for v in (argument if isinstance(argument, list | tuple) else [argument]) if isinstance(v, Value)]
    return found


def _loose(call: Call, value: Value, others: Sequence[Value]) -> Layout:
    """An operand as it was before `expand` laid it out for the units of another: for as many as are left."""
    shape = list(value.shape)
    for dim in value.layout.stretched:
        place = dim - value.layout.rank
        for other in (one for one in others if one.layout.rank >= -place):
            block = other.layout.block_of(other.layout.rank + place)
            if block is not None and len(covered(block)) == 1 and value.layout.block_of(dim) is None:
                laid_out(call, value, dim, other.layout, other.layout.rank + place)
                shape[dim] = 1
    return Layout(tuple(shape), value.layout.blocks)


def _pointwise(call: Call, **arguments: Any) -> Any:
    """Any number of operands of any broadcastable shapes; every output (`frexp` has two) is as large."""
    values = _operands(arguments)
    if len(values) > 1 and any(value.layout.stretched for value in values):
        merged = merge(call, [_loose(call, value, values) for value in values], call.shape)
    else:
        merged = merge(call, [value.layout for value in values], call.shape)
    return merged if len(call.shapes) == 1 else (merged,) * len(call.shapes)


def _known_pointwise(call: KnownCall, **arguments: Any) -> Any:
    known = [a for a in arguments.values() if isinstance(a, Known)]
    if any(k.nothing for k in known):  # of such an operand not even the dtype is known
        return call.anything()
    values = {key: a.widened(call.dtype) if isinstance(a, Known) else a for key, a in arguments.items()}
    varies = known[0].varies
    for other in known[1:]:
        varies = varies | other.varies
    if call.target._schema.is_mutable:  # writes into its first operand, which has to be as large as all together
        values["input"] = values["input"].expand(
            torch.broadcast_shapes(*(values[k].shape for k in _tensors(arguments)))
        )
    answer = run(call.target, values)
    if isinstance(answer, tuple):
        return tuple(Known.of(call.shape, one, varies) for one in answer)
    return Known.of(call.shape, answer, varies)


def _tensors(arguments: dict[str, Any]) -> list[str]:
    return [key for key, argument in arguments.items() if isinstance(argument, Known)]


def run(target: Any, arguments: dict[str, Any]) -> Any:
    """Call an op with its arguments by name, on the CPU; an in-place op works on a copy.

    Stretched tensors are laid out in full: some kernels (`_weight_norm_interface`) read past their strides.
    """
    named = {("self" if key == "input" else key): value for key, value in arguments.items()}
    named = {key: value.contiguous() if isinstance(value, torch.Tensor) else value for key, value in named.items()}
    ordered = [named[argument.name] for argument in target._schema.arguments if not argument.kwarg_only]
    keyword = {argument.name: named[argument.name] for argument in target._schema.arguments if argument.kwarg_only}
    if "device" in keyword and keyword["device"] is not None:
        keyword["device"] = torch.device("cpu")
    if target._schema.is_mutable:
        ordered = [a.clone() if isinstance(a, torch.Tensor) else a for a in ordered]
    return target(*ordered, **keyword)


POINTWISE.append(Rule(_pointwise, frozenset(), False, ("pointwise",), _known_pointwise))

_UNTAGGED = (
    "hardswish.default log_sigmoid.default rsub.Tensor absolute.default negative.default true_divide.Scalar "
    "divide.Tensor divide.Scalar divide.Tensor_mode divide.Scalar_mode subtract.Tensor subtract.Scalar "
    "masked_fill.Tensor floor_divide.default floor_divide.Scalar special_expit.default special_erf.default "
    "greater.Tensor greater.Scalar less.Tensor less.Scalar __and__.Tensor __and__.Scalar __or__.Tensor __or__.Scalar "
    "greater_equal.Tensor greater_equal.Scalar less_equal.Tensor less_equal.Scalar not_equal.Tensor not_equal.Scalar "
    "arctan.default arctan2.default arcsin.default arccos.default fix.default isclose.default isreal.default "
    "special_expm1.default"
).split()
"""Pointwise ops that PyTorch does not tag as such."""


@rule(*(f"aten.{op}" for op in _UNTAGGED))
def untagged(call: Call, **arguments: Any) -> Any:
    """Any number of operands of any broadcastable shapes."""
    return _pointwise(call, **arguments)


untagged.known(_known_pointwise)


@rule("aten.copy.default")
def copy(call: Call, input: Value, src: Value, non_blocking: bool = False) -> Layout:
    """The values of `src` in the place of the input's."""
    return merge(call, [input.layout, src.layout], call.shape)


@copy.known
def _known_copy(call: KnownCall, input: Known, src: Known, non_blocking: bool = False) -> Known:
    lead = (1,) * (len(call.shape) - len(src.shape))
    return src.map(lambda array: array.reshape(lead + tuple(array.shape)), call.shape)


@rule("aten.fill.Scalar", "aten.fill.Tensor", "aten.zero.default")
def fill(call: Call, input: Value, value: Any = 0.0) -> Layout:
    """One number everywhere."""
    return input.layout


@fill.known
def _known_fill(call: KnownCall, input: Known, value: Any = 0.0) -> Known:
    ones = [1] * len(call.shape)
    if isinstance(value, Known):
        return Known(call.shape, value.value.reshape(ones), value.varies.reshape(ones))
    return Known.of(call.shape, torch.full(ones, value, dtype=call.dtype), torch.zeros(ones, dtype=torch.bool))


def _absorbing(a: Known, dtype: torch.dtype) -> torch.Tensor:
    """Where a product is 0 because this factor is 0, whatever the other is."""
    return ~a.varies & (a.widened(dtype) == 0)


@rule("aten.mul.Tensor", "aten.mul.Scalar", "aten.multiply.Tensor", "aten.multiply.Scalar")
def multiply(call: Call, input: Value, other: Any) -> Layout:
    """`input * other`, broadcast."""
    merged: Layout = _pointwise(call, input=input, other=other)
    return merged


@multiply.known
def _known_multiply(call: KnownCall, input: Known, other: Any) -> Known:
    plain = _known_pointwise(call, input=input, other=other)
    zero = torch.zeros((), dtype=torch.bool)
    for factor in (input, other):
        if isinstance(factor, Known):
            zero = zero | _absorbing(factor, call.dtype)
        elif factor == 0:
            zero = torch.ones_like(zero)
    return Known(
        call.shape, torch.where(zero, torch.zeros((), dtype=plain.value.dtype), plain.value), plain.varies & ~zero
    )


@rule("aten.where.self", "aten.where.ScalarSelf", "aten.where.ScalarOther", "aten.where.Scalar")
def where(call: Call, condition: Value, input: Any, other: Any) -> Layout:
    """`condition ? input : other`, broadcast."""
    merged: Layout = _pointwise(call, condition=condition, input=input, other=other)
    return merged


@where.known
def _known_where(call: KnownCall, condition: Known, input: Any, other: Any) -> Known:
    first, second = (
        (side.widened(call.dtype), side.varies) if isinstance(side, Known) else _number(side, call.dtype)
        for side in (input, other)
    )
    same = (first[0] == second[0]) & ~first[1] & ~second[1]
    chosen = condition.value.bool()
    picked = ~condition.varies & torch.where(chosen, ~first[1], ~second[1])
    return Known.of(call.shape, torch.where(chosen, first[0], second[0]), ~(same | picked))


def _number(number: float, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(number, dtype=dtype if isinstance(number, float) else None), torch.tensor(False)


@rule(
    "aten.to.dtype",
    "aten.to.device",
    "aten.to.dtype_layout",
    "aten.to.other",
    "aten._to_copy.default",
    "aten.type_as.default",
)
def cast(call: Call, input: Value, other: Value | None = None, **_: Any) -> Layout:
    """A move to another dtype or device (or to those of another tensor): the same units."""
    if isinstance(other, Value):
        call.accounted += other.layout.blocks
    return input.layout


@cast.known
def _known_cast(
    call: KnownCall, input: Known, dtype: torch.dtype | None = None, other: Known | None = None, **_: Any
) -> Known:
    if isinstance(other, Known) and other.nothing:  # its dtype is not known: only 0 and 1 are the same in all of them
        return Known(call.shape, input.value, input.varies | ((input.value != 0) & (input.value != 1)))
    dtype = other.value.dtype if isinstance(other, Known) else dtype
    if dtype is None or dtype.is_floating_point or dtype.is_complex:
        if input.value.is_complex():
            return Known.anything(call.shape)
        return input  # floating-point constants are followed in the precision of the pass
    return Known.of(call.shape, input.value.to("cpu", dtype), input.varies)


@rule(
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.alias.default",
    "aten.lift_fresh_copy.default",
    "aten.lift_fresh.default",
    "aten.detach_.default",
    "aten.requires_grad_.default",
)
def same(call: Call, input: Value, **_: Any) -> Layout:
    """The same tensor again."""
    return input.layout


@same.known
def _known_same(call: KnownCall, input: Known, **_: Any) -> Known:
    return input


@rule(
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.alpha_dropout.default",
    "aten.feature_alpha_dropout.default",
)
def dropout(call: Call, input: Value, p: float, train: bool) -> Layout:
    """Pointwise; the identity in eval mode."""
    return input.layout


@dropout.known
def _known_dropout(call: KnownCall, input: Known, p: float, train: bool) -> Known:
    return Known.anything(call.shape) if train and p > 0 else input


@rule("aten.outer.default", "aten.ger.default")
def outer(call: Call, input: Value, vec2: Value) -> Layout:
    """`x [n], y [m] -> [n, m]`."""
    rows = tuple(block[:, None] for block in input.layout.blocks)
    columns = tuple(block[None, :] for block in vec2.layout.blocks)
    return Layout(call.shape, rows + columns)


@outer.known
def _known_outer(call: KnownCall, input: Known, vec2: Known) -> Known:
    """A product; zero where one factor is."""
    if not (input.value.is_floating_point() and vec2.value.is_floating_point()):
        return Known.anything(call.shape)
    value = input.widened(call.dtype)[:, None] * vec2.widened(call.dtype)[None, :]
    zero = _absorbing(input, call.dtype)[:, None] | _absorbing(vec2, call.dtype)[None, :]
    varies = input.varies[:, None] | vec2.varies[None, :]
    return Known.of(call.shape, value.where(~zero, 0.0), varies & ~zero)


@rule("aten.broadcast_tensors.default")
def broadcast_tensors(call: Call, tensors: list[Value]) -> tuple[Layout, ...]:
    """All as large as all together: what is stretched lies where the others' units do."""
    merged = merge(call, [value.layout for value in tensors], call.shape)
    return (merged,) * len(call.shapes)


@broadcast_tensors.known
def _known_broadcast_tensors(call: KnownCall, tensors: list[Known]) -> tuple[Known, ...]:
    def lifted(array: torch.Tensor) -> torch.Tensor:
        return array.reshape((1,) * (len(call.shape) - array.dim()) + tuple(array.shape))

    return tuple(known.map(lifted, call.shape) for known in tensors)


@rule("aten.prelu.default", "aten.rrelu.default")
def prelu(call: Call, input: Value, weight: Any = None, **_: Any) -> Layout:
    """x [b, c, ...], weight [c] or [1]."""
    if not isinstance(weight, Value):
        return input.layout
    rank = input.layout.rank
    placed = tuple(b.reshape([-1 if d == min(1, rank - 1) else 1 for d in range(rank)]) for b in weight.layout.blocks)
    size = weight.shape[0] if weight.shape else 1
    shape = tuple(size if d == min(1, rank - 1) else 1 for d in range(rank))
    return merge(call, [input.layout, Layout(shape, placed)], call.shape)


@prelu.known
def _known_prelu(call: KnownCall, input: Known, weight: Any = None, **_: Any) -> Known:
    if not isinstance(weight, Known) or input.nothing:
        return Known.anything(call.shape)
    rank = len(call.shape)
    slope = weight.widened(call.dtype).reshape([-1 if d == min(1, rank - 1) else 1 for d in range(rank)])
    value = input.widened(call.dtype)
    return Known.of(call.shape, torch.where(value > 0, value, value * slope), input.varies | weight.varies.any())
