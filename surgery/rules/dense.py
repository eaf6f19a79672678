"""Dense contractions with one weight: linear, addmm, and matmul where the weight is two-dimensional."""

from __future__ import annotations

from typing import Any

from surgery.calls import Call, KnownCall, Value
from surgery.coupling import Orientation
from surgery.known import Known
from surgery.layout import Ids, Layout
from surgery.registry import rule
from surgery.rules.contraction import Equation, known_product
from surgery.rules.convolution import contracted
from surgery.rules.copies import laid_out
from surgery.rules.pointwise import merge
from surgery.rules.products import matmul_equation, product


def _contract(call: Call, input: Value, weight: Value, bias: Value | None, orientation: Orientation) -> Layout:
    """`... i, o i, o -> ... o` (or `i o` where the weight is the other way round)."""
    last = input.layout.rank - 1
    layout, ids = call.channels(input, last)
    w = weight.layout
    if any(block.shape[0] > 1 and block.shape[1] > 1 for block in w.blocks):
        w = call.hold(w, [0, 1], "the weight's rows and columns are entangled")
    first, second = (None if (b := w.block_of(d)) is None else b.ravel() for d in (0, 1))
    outputs, inputs = (first, second) if orientation == "out_in" else (second, first)
    if ids is None and last in layout.stretched:
        laid_out(call, input, last, w, 1 if orientation == "out_in" else 0)
    else:
        _tie_sides(call, ids, inputs, "the weight's inputs are fixed")
    channels = ids if ids is not None else inputs
    if channels is not None:
        call.use(
            input,
            last,
            channels.reshape(1, -1),
            rows=None if outputs is None else outputs.reshape(1, -1),
            weight=weight,
            orientation=orientation,
            bias=bias if bias is not None and bias.shape == call.shape[-1:] else None,
        )
    elif outputs is not None:
        call.produce(weight, 0 if orientation == "out_in" else 1)  # of what nobody can take away, such as one number
    outer = tuple(b for b in layout.blocks if b.shape[last] == 1)
    product = Layout(call.shape, (*outer, *call.placed(outputs, len(call.shape), len(call.shape) - 1)))
    return product if bias is None else merge(call, [product, bias.layout], call.shape)


def _tie_sides(call: Call, one: Ids | None, other: Ids | None, reason: str) -> None:
    if one is not None and other is not None:
        call.tie(one, other)
    elif one is not None:
        call.pin(one, f"{call.name}: {reason}")
    elif other is not None:
        call.pin(other, f"{call.name} meets channels that are fixed")


@rule("aten.linear.default")
def linear(call: Call, input: Value, weight: Value, bias: Value | None) -> Layout:
    """`x [..., i], w [o, i], b [o] -> [..., o]`."""
    if weight.layout.rank != 2:
        return _unruled(call, input, weight, bias)
    return _contract(call, input, weight, bias, "out_in")


@linear.known
def _known_linear(call: KnownCall, input: Known, weight: Known, bias: Known | None) -> Known:
    if len(weight.shape) != 2 or (bias is not None and len(bias.shape) != 1):
        return Known.anything(call.shape)
    return contracted(call, input, len(input.shape) - 1, weight, bias, 1, "out_in", False)


@rule("aten.addmm.default")
def addmm(call: Call, input: Value, mat1: Value, mat2: Value, beta: float = 1, alpha: float = 1) -> Layout:
    """`b [o] + x [n, i] @ w [i, o]`."""
    if beta != 1 or alpha != 1:
        return _unruled(call, input, mat1, mat2)
    return _contract(call, mat1, mat2, input, "in_out")


@addmm.known
def _known_addmm(call: KnownCall, input: Known, mat1: Known, mat2: Known, beta: float = 1, alpha: float = 1) -> Known:
    if beta != 1 or alpha != 1 or len(input.shape) != 1 or not mat2.everything:
        return Known.anything(call.shape)
    return contracted(call, mat1, 1, mat2, input, 1, "in_out", False)


@rule("aten.matmul.default", "aten.mm.default")
def matmul(call: Call, input: Value, **others: Any) -> Layout:
    """`x [..., i] @ w [i, o]`, or a product of two activations `[..., n, c] @ [..., c, m]`."""
    (other,) = others.values()
    if other.layout.rank == 2 and input.layout.rank >= 2:
        return _contract(call, input, other, None, "in_out")
    equation = matmul_equation(input.shape, other.shape)
    return _unruled(call, input, other) if equation is None else product(call, equation, input, other)


@matmul.known
def _known_matmul(call: KnownCall, input: Known, **others: Any) -> Known:
    (other,) = others.values()
    if len(other.shape) == 2 and len(input.shape) >= 2 and other.everything:
        return contracted(call, input, len(input.shape) - 1, other, None, 1, "in_out", False)
    equation = matmul_equation(input.shape, other.shape)
    return Known.anything(call.shape) if equation is None else known_product(call, equation, input, other)


@rule("aten.baddbmm.default")
def baddbmm(call: Call, input: Value, batch1: Value, batch2: Value, beta: float = 1, alpha: float = 1) -> Layout:
    """`beta · input + alpha · x [b, n, c] @ y [b, c, m]`."""
    return merge(call, [product(call, Equation("bnc", "bcm", "bnm"), batch1, batch2), input.layout], call.shape)


@baddbmm.known
def _known_baddbmm(call: KnownCall, **_: Any) -> Known:
    return Known.anything(call.shape)


def _unruled(call: Call, *operands: Value | None) -> Layout:
    call.hold_all([o for o in operands if o is not None], f"{call.name} of these shapes has no rule yet")
    return Layout(call.shape)
