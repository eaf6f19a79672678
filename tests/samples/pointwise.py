"""Pointwise ops: every one that PyTorch tags (called on tensors of one shape), and the ways in which operands meet."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch._ops import OpOverload

import surgery.rules  # noqa: F401  # fills the rule table
from surgery.registry import POINTWISE, find_rule
from tests.samples.sample import PATTERN, Plain, Sample

A = torch.ops.aten

X = (2, 5, 3)
"""The operands' shape in the samples that are made from PyTorch's tags."""


def tagged() -> Iterator[OpOverload]:
    """The pointwise overloads that take tensors and, otherwise, only what has a default."""
    for name in sorted({schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("aten::")}):
        packet = getattr(A, name.removeprefix("aten::"), None)
        for overload in packet.overloads() if packet is not None else ():
            op = getattr(packet, overload)
            needed = [a for a in op._schema.arguments if not a.has_default_value()]
            tensors = all(str(a.type) == "Tensor" for a in (*needed, *op._schema.returns))
            tensors &= not any(a.is_out for a in op._schema.arguments)
            if tensors and torch.Tag.pointwise in op.tags and find_rule(op) is POINTWISE[0]:
                yield op


def of_one_shape(op: OpOverload) -> Sample | None:
    """The op on tensors of one shape, of the first dtype that it takes; None where it takes none."""
    names = [a.name for a in op._schema.arguments if not a.has_default_value()]
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float64, torch.int64, torch.bool):
        numbers = [torch.randn(X, generator=generator, dtype=torch.float64) for _ in names]
        operands = [(n * 3).abs().to(dtype) if dtype is torch.int64 else n.to(dtype) for n in numbers]
        try:
            op(*[operand.clone() for operand in operands])
        except (RuntimeError, NotImplementedError):
            continue
        keys = "xyzuvw"[: len(names)]
        halves = torch.full((len(PATTERN),), 0.5).to(dtype)
        answer = op(torch.tensor(PATTERN).to(dtype), *[halves for _ in names[1:]])
        finite = (answer[0] if isinstance(answer, tuple) else answer).isfinite()
        return Sample(
            str(op),
            op,
            dict(zip(keys, operands, strict=True)),
            free=" ".join(f"{key}{dim}" for key in keys for dim in range(len(X))),
            found=tuple(finite.nonzero()[:, 0].tolist()),
            sparse={key: torch.full(X, 0.5).to(operands[0].dtype) for key in keys[1:]},
        )
    return None


TAGGED = tuple(sample for op in tagged() if (sample := of_one_shape(op)) is not None)

MEETING = (
    Sample(
        "add, operands of different ranks",
        lambda x, y: x + y,
        {"x": (2, 6, 5), "y": (6, 1)},
        free="x0 x1 x2 y0",
        found=(0, 1, 2),
        sparse={"y": torch.ones(6, 1, dtype=torch.float64)},
        resized={"x": (3, 6, 4)},
    ),
    Sample(
        "add, an operand that is not tracked",
        lambda x, y: x + y,
        {"x": (2, 6, 5, 3), "y": Plain((6, 1, 3))},
        free="x0 x2",
        held=("add meets an operand whose dim 1 cannot shrink", "add meets an operand whose dim 3 cannot shrink"),
    ),
    Sample(
        "a mask of one channel times many",
        lambda x, m: x * m,
        {"x": (2, 6, 5, 3), "m": Plain((2, 1, 5, 3))},
        free="x1",
        held=tuple(f"mul meets an operand whose dim {dim} cannot shrink" for dim in (0, 2, 3)),
        found=(0,),
    ),
    Sample(
        "add a tensor to itself, flipped",
        lambda x: x + x.flip(1),
        {"x": (2, 6, 5)},
        free="x0 x1:3 x2",
    ),
    Sample(
        "add rows of a multi-head view",
        lambda x, y: x.view(2, 3, 4) + y,
        {"x": (2, 12), "y": (3, 1)},
        free="x0 x1:3 y0",
    ),
    Sample(
        "add columns of a multi-head view",
        lambda x, y: x.view(2, 3, 4) + y,
        {"x": (2, 12), "y": (4,)},
        free="x0 x1 y0",
    ),
    Sample(
        "add two joint blocks that cross: all is one channel, and one has to stay",
        lambda x, y: x.view(3, 4, 5) + y.view(3, 4, 5),
        {"x": (12, 5), "y": (3, 20)},
    ),
    Sample(
        "add, operands whose joint blocks lie on different dims",
        lambda x, y: x.view(3, 4, 1, 5) + y.view(1, 4, 6, 1),
        {"x": (12, 5), "y": (24,)},
        free="x0:4 x1 y0:4",
    ),
    Sample("add with a factor", lambda x, y: torch.add(x, y, alpha=3), {"x": (2, 5), "y": (1, 5)}, free="x0 x1 y1"),
    Sample(
        "add a positional embedding",
        lambda x, p: x + p,
        {"x": (2, 4, 6), "p": (1, 4, 6)},
        free="x0 x1 x2 p1 p2",
        found=(),
        pattern="x2",
        along=2,
    ),
    Sample(
        "mul, one side 0",
        lambda x, y: x * y,
        {"x": (2, 6, 5), "y": (2, 6, 1)},
        free="x0 x1 x2 y0 y1",
        found=(0, 1, 2, 5),
        sparse={"y": torch.ones(2, 6, 1, dtype=torch.float64) * torch.tensor([1, 1, 1, 1, 1, 0]).reshape(1, 6, 1)},
    ),
    Sample("mul by 0", lambda x: x * 0, {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2, 3, 4, 5)),
    Sample("mul by 2", lambda x: A.mul.Scalar(x, 2), {"x": (2, 6, 5)}, free="x0 x1 x2", found=(0, 1, 2)),
    Sample("multiply", A.multiply.Tensor, {"x": (2, 5), "y": (5,)}, free="x0 x1 y0"),
    Sample("multiply by 3", lambda x: A.multiply.Scalar(x, 3), {"x": (2, 5)}, free="x0 x1", found=(0, 1, 2)),
    Sample(
        "in place",
        lambda x, y: x.clone().add_(y).mul_(y).relu_().clamp_(max=1.5),
        {"x": (2, 6, 5), "y": (6, 1)},
        free="x0 x1 x2 y0",
        found=(0, 1, 2),
        sparse={"y": torch.ones(6, 1, dtype=torch.float64)},
    ),
    Sample(
        "where",
        torch.where,
        {"c": torch.arange(12).reshape(2, 6, 1) % 5 > 2, "x": (2, 6, 5), "y": (6, 1)},
        free="c0 c1 x0 x1 x2 y0",
    ),
    Sample(
        "where, both sides equal",
        lambda x, y: torch.where(x > 0, y, y),
        {"x": (2, 6), "y": (2, 6)},
        free="x0 x1 y0 y1",
        found=(0, 1, 2),
        pattern="y1",
    ),
    Sample(
        "where x > 0: 1, -1",
        lambda x: torch.where(x > 0, 1.0, -1.0),
        {"x": (2, 6)},
        free="x0 x1",
        found=(0, 1, 2),
    ),
    Sample("where, a number first", lambda x: torch.where(x > 0, 2.0, x), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample("where, a number last", lambda x: torch.where(x > 0, x, 2.0), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample(
        "masked_fill",
        lambda x, m: x.masked_fill(m, -5.0),
        {"x": (2, 6, 5), "m": torch.arange(10).reshape(2, 1, 5) % 3 > 0},
        free="x0 x1 x2 m0 m2",
    ),
    Sample(
        "masked_fill with a tensor",
        lambda x, m, v: x.masked_fill(m, v),
        {"x": (2, 6, 5), "m": torch.arange(6).reshape(6, 1) % 3 > 0, "v": torch.tensor(3.0, dtype=torch.float64)},
        free="x0 x1 x2 m0",
    ),
)

SLOPES = (
    Sample(
        "prelu", F.prelu, {"x": (2, 6, 5), "w": (6,)}, free="x0 x1 x2 w0", found=(0, 1, 2), resized={"x": (2, 6, 3)}
    ),
    Sample("prelu of matrices", F.prelu, {"x": (2, 6), "w": (6,)}, free="x0 x1 w0", found=(0, 1, 2)),
    Sample("prelu with one slope", F.prelu, {"x": (2, 6, 5), "w": (1,)}, free="x0 x1 x2", found=(0, 1, 2)),
    Sample("prelu of a vector", F.prelu, {"x": (6,), "w": (1,)}, free="x0", found=(0, 1, 2), pattern="x0", along=0),
    Sample(
        "prelu, slopes that are not tracked",
        F.prelu,
        {"x": (2, 6, 5), "w": Plain((6,))},
        free="x0 x2",
        held=("prelu meets an operand whose dim 1 cannot shrink",),
    ),
    Sample("rrelu", F.rrelu, {"x": (2, 6, 5)}, free="x0 x1 x2"),
)

SAME = (
    Sample("dropout", lambda x: F.dropout(x, 0.5, training=False), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample("dropout2d", lambda x: F.dropout2d(x, 0.5, False), {"x": (2, 6, 3, 4)}, free="x0 x1 x2 x3", found=(0, 1, 2)),
    Sample("alpha_dropout", lambda x: F.alpha_dropout(x, 0.5), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample(
        "feature_alpha_dropout",
        lambda x: F.feature_alpha_dropout(x, 0.5),
        {"x": (2, 6, 3)},
        free="x0 x1 x2",
        found=(0, 1, 2),
    ),
    Sample(
        "clone, contiguous, detach",
        lambda x: A.detach.default(A.alias.default(A.contiguous.default(x.clone()))),
        {"x": (2, 6)},
        free="x0 x1",
        found=(0, 1, 2),
    ),
    Sample(
        "detach in place",
        lambda x: A.requires_grad_.default(A.detach_.default(A.lift_fresh_copy.default(x)), False),
        {"x": (2, 6)},
        free="x0 x1",
        found=(0, 1, 2),
    ),
    Sample("lift_fresh", A.lift_fresh.default, {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample("to int", lambda x: x.to(torch.int32), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample("to float32 and back", lambda x: x.float().double(), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample("to bool", lambda x: x.bool(), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample(
        "to other",
        A.to.other,
        {"x": (2, 6), "y": torch.arange(3)},
        free="x0 x1 y0",
        found=(0, 1, 2),
    ),
    Sample(
        "type_as, of an input",
        lambda x, y: (x * 2).type_as(y > 0),
        {"x": (2, 6), "y": Plain((3,))},
        free="x0 x1",
        found=(0, 1, 2),
    ),
    Sample("type_as", lambda x, y: x.type_as(y), {"x": (2, 6), "y": (3,)}, free="x0 x1 y0", found=(0, 1, 2)),
    Sample("to a device", lambda x: A.to.device(x, "cpu", torch.float64), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample("to a layout", lambda x: A.to.dtype_layout(x, device="cpu"), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample("_to_copy", A._to_copy.default, {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2)),
    Sample(
        "copy",
        lambda x, y: A.copy.default(y, x),
        {"x": (6, 1), "y": (2, 6, 5)},
        free="x0 y0 y1 y2",
        pattern="x0",
        found=(0, 1, 2),
    ),
    Sample(
        "copy in place",
        lambda x, y: y.clone().copy_(x),
        {"x": (6,), "y": (2, 6)},
        free="x0 y0 y1",
        pattern="x0",
        found=(0, 1, 2),
    ),
    Sample("zero in place", lambda x: x.clone().zero_(), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2, 3, 4, 5)),
    Sample("fill in place", lambda x: x.clone().fill_(3), {"x": (2, 6)}, free="x0 x1", found=(0, 1, 2, 3, 4, 5)),
)

# ops that PyTorch does not tag, on two tensors or on a tensor and a number
_ONE = "hardswish log_sigmoid absolute negative special_expit special_erf special_expm1 arctan fix isreal".split()
_INSIDE = "arcsin arccos".split()
_NUMBER = (
    "true_divide.Scalar divide.Scalar subtract.Scalar floor_divide.Scalar greater.Scalar less.Scalar "
    "greater_equal.Scalar less_equal.Scalar not_equal.Scalar"
).split()
_TWO = (
    "rsub.Tensor divide.Tensor subtract.Tensor floor_divide.default greater.Tensor less.Tensor greater_equal.Tensor "
    "less_equal.Tensor not_equal.Tensor arctan2 isclose"
).split()


def _overload(name: str) -> OpOverload:
    packet, _, overload = name.partition(".")
    found: OpOverload = getattr(getattr(A, packet), overload or "default")
    return found


UNTAGGED = (
    *(Sample(name, _overload(name), {"x": (2, 6, 3)}, free="x0 x1 x2", found=(0, 1, 2)) for name in _ONE),
    *(Sample(name, _overload(name), {"x": (2, 6)}, settings=(2,), free="x0 x1", found=(0, 1, 2)) for name in _NUMBER),
    *(Sample(name, _overload(name), {"x": (2, 6), "y": (6,)}, free="x0 x1 y0") for name in _TWO),
    *(
        Sample(name, _overload(name), {"x": torch.rand(2, 6, dtype=torch.float64)}, free="x0 x1", found=(0, 1, 2))
        for name in _INSIDE
    ),
    Sample(
        "fill by a tensor",
        A.fill.Tensor,
        {"x": (2, 6), "y": ()},
        free="x0 x1",
        found=(0, 1, 2, 3, 4, 5),
    ),
    Sample(
        "outer",
        torch.outer,
        {"x": (6,), "y": (5,)},
        free="x0 y0",
        pattern="x0",
        found=(0,),
        along=0,
    ),
    Sample("ger", torch.ger, {"x": (6,), "y": torch.arange(3.0)}, free="x0 y0", pattern="x0", along=0),
    Sample(
        "broadcast_tensors",
        lambda x, y, z: A.broadcast_tensors.default([x, y, z]),
        {"x": (2, 6, 1), "y": (6, 3), "z": Plain((1, 1))},
        free="x0 x1 y0 y1",
        found=(0, 1, 2),
    ),
    Sample(
        "divide, rounded",
        lambda x, y: A.divide.Scalar_mode(A.divide.Tensor_mode(x, y, rounding_mode="floor"), 2, rounding_mode="trunc"),
        {"x": (2, 6), "y": (6,)},
        free="x0 x1 y0",
    ),
    Sample(
        "and, or",
        lambda x, y: A.__or__.Scalar(A.__or__.Tensor(A.__and__.Scalar(A.__and__.Tensor(x, y), True), y), False),
        {"x": torch.tensor([[True, False, True]] * 2), "y": torch.tensor([True, True, False])},
        free="x0 x1 y0",
    ),
)

SAMPLES = (*TAGGED, *MEETING, *SLOPES, *SAME, *UNTAGGED)
