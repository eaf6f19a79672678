"""Products of two tensors: matmul, bmm, einsum and their like, as equations (`contraction.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from surgery.calls import Call, KnownCall, Value
from surgery.known import Known
from surgery.layout import Layout, Shape
from surgery.registry import rule
from surgery.rules.contraction import Equation, Side, contract, known_product


def matmul_equation(left: Shape, right: Shape) -> Equation | None:
    """`[..., n, c] @ [..., c, m]`; batch dims are counted from the end."""
    if len(left) < 2 or len(right) < 2:
        return None
    batch = "abdefghijkl"[: max(len(left), len(right)) - 2]
    one, other = (batch[len(batch) - (len(shape) - 2) :] for shape in (left, right))
    return Equation(one + "nc", other + "cm", batch + "nm")


def product(call: Call, equation: Equation, left: Value, right: Value) -> Layout:
    """The product of two operands."""
    sides = Side.of(call, equation, left, equation.left), Side.of(call, equation, right, equation.right)
    return Layout(call.shape, contract(call, equation, *sides).blocks)


@rule("aten.bmm.default")
def bmm(call: Call, input: Value, mat2: Value) -> Layout:
    """`x [b, n, c] @ y [b, c, m]`."""
    return product(call, Equation("bnc", "bcm", "bnm"), input, mat2)


@bmm.known
def _known_bmm(call: KnownCall, input: Known, mat2: Known) -> Known:
    return known_product(call, Equation("bnc", "bcm", "bnm"), input, mat2)


@rule("aten.einsum.default")
def einsum(call: Call, equation: str, tensors: list[Value], path: Any = None) -> Layout:
    """Two operands with labels written out; anything else is held."""
    parsed = _parsed(equation, [v.shape for v in tensors])
    if parsed is None:
        call.hold_all(tensors, f"einsum {equation} has no rule")
        return Layout(call.shape)
    return product(call, parsed, *tensors)


@einsum.known
def _known_einsum(call: KnownCall, equation: str, tensors: list[Known], path: Any = None) -> Known:
    parsed = _parsed(equation, [k.shape for k in tensors])
    return known_product(call, parsed, *tensors) if parsed is not None else Known.anything(call.shape)


def _parsed(equation: str, shapes: Sequence[Shape]) -> Equation | None:
    """An einsum of two operands, its ellipsis (if any) in the place of batch dims."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != 2 or not arrow:
        return None
    spare = [c for c in "ABCDEFGHIJ" if c not in equation]
    made = []
    for term, shape in zip(terms, shapes, strict=True):
        missing = len(shape) - len(term.replace("...", ""))
        made.append(term.replace("...", "".join(spare[len(spare) - missing :]) if missing else ""))
    longest = max(len(s) - len(t.replace("...", "")) for s, t in zip(shapes, terms, strict=True))
    output = output.replace("...", "".join(spare[len(spare) - longest :]) if longest else "")
    found = Equation(made[0], made[1], output)
    return found if found.plain and set(output) <= set(found.left + found.right) else None


@rule("aten._grouped_mm.default", "transformers.grouped_mm_fallback.default")
def grouped_product(call: Call, input: Value, **operands: Any) -> Layout:
    """`x [t, c], w [experts, c, m] -> [t, m]`: every token by the weight of its expert; which one is data."""
    weight, *others = [operand for operand in operands.values() if isinstance(operand, Value)]
    call.hold_all(others, f"{call.name} reads it")
    if input.layout.rank != 2 or weight.layout.rank != 3:
        call.hold_all([input, weight], f"{call.name} of these shapes has no rule")
        return Layout(call.shape)
    tokens = call.hold(input.layout, [0], f"{call.name} counts its positions")
    return product(call, EXPERTS, Value(input.node, tokens, input.parameter), weight)


EXPERTS = Equation("tc", "ecm", "tm")


@grouped_product.known
def _known_grouped_product(call: KnownCall, input: Known, **operands: Any) -> Known:
    weight = next(operand for operand in operands.values() if isinstance(operand, Known))
    if len(input.shape) != 2 or len(weight.shape) != 3 or input.everything:
        return Known.anything(call.shape)
    return known_product(call, EXPERTS, input, weight)
