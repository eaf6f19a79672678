"""Ops that treat every element alone, make fresh tensors or look at one: each on feature maps `x`, `y` and a dim `d`.

What jumps (comparisons, rounding) is put together so that the whole does not: rounding must not decide.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

A = torch.ops.aten

Function = Callable[[Tensor, Tensor, int], Tensor]


def wave(x: Tensor, whole: Tensor) -> Tensor:
    """Continuous in x where `whole` is x, rounded to a whole number next to it."""
    return torch.sin(math.pi * (x - whole))


def beside(look: Callable[[Tensor], Any]) -> Function:
    """An op that looks at a tensor, and the tensor goes on."""

    def function(x: Tensor, y: Tensor, d: int) -> Tensor:
        look(x)
        return x * 2

    return function


NUMBERS: dict[str, Function] = {
    "aten.hardswish.default": lambda x, y, d: F.hardswish(x),
    "aten.log_sigmoid.default": lambda x, y, d: F.logsigmoid(x),
    "aten.rsub.Tensor": lambda x, y, d: A.rsub.Tensor(x, y),
    "aten.absolute.default": lambda x, y, d: A.absolute.default(x),
    "aten.negative.default": lambda x, y, d: A.negative.default(x),
    "aten.true_divide.Scalar": lambda x, y, d: A.true_divide.Scalar(x, 1.5),
    "aten.divide.Tensor": lambda x, y, d: A.divide.Tensor(x, y.abs() + 1),
    "aten.divide.Scalar": lambda x, y, d: A.divide.Scalar(x, -1.5),
    "aten.divide.Tensor_mode": lambda x, y, d: _divided(x, y.abs() + 1),
    "aten.divide.Scalar_mode": lambda x, y, d: wave(x / 2, A.divide.Scalar_mode(x, 2, rounding_mode="trunc")),
    "aten.floor_divide.default": lambda x, y, d: wave(x / (y.abs() + 1), A.floor_divide.default(x, y.abs() + 1)),
    "aten.floor_divide.Scalar": lambda x, y, d: wave(x / 2, A.floor_divide.Scalar(x, 2)),
    "aten.subtract.Tensor": lambda x, y, d: A.subtract.Tensor(x, y, alpha=2),
    "aten.subtract.Scalar": lambda x, y, d: A.subtract.Scalar(x, 0.5),
    "aten.special_expm1.default": lambda x, y, d: A.special_expm1.default(x.clamp(max=2)),
    "aten.arctan.default": lambda x, y, d: A.arctan.default(x),
    "aten.arctan2.default": lambda x, y, d: A.arctan2.default(x, 1 + y.abs()),
    "aten.arcsin.default": lambda x, y, d: A.arcsin.default(0.9 * x.tanh()),
    "aten.arccos.default": lambda x, y, d: A.arccos.default(0.9 * x.tanh()),
    "aten.fix.default": lambda x, y, d: wave(x, A.fix.default(x)),
    "aten.special_expit.default": lambda x, y, d: A.special_expit.default(x),
    "aten.special_erf.default": lambda x, y, d: A.special_erf.default(x),
    "aten.mul.Tensor": lambda x, y, d: x * y,
    "aten.mul.Scalar": lambda x, y, d: A.mul.Scalar(x, 2),
    "aten.multiply.Tensor": lambda x, y, d: A.multiply.Tensor(x, y),
    "aten.multiply.Scalar": lambda x, y, d: A.multiply.Scalar(x, -0.5),
    "aten.rrelu.default": lambda x, y, d: F.rrelu(x),
}

COMPARED: dict[str, Function] = {
    "aten.greater.Tensor": lambda x, y, d: (x - y) * A.greater.Tensor(x, y),
    "aten.greater.Scalar": lambda x, y, d: (x - 0.5) * A.greater.Scalar(x, 0.5),
    "aten.less.Tensor": lambda x, y, d: (x - y) * A.less.Tensor(x, y),
    "aten.less.Scalar": lambda x, y, d: (x + 0.5) * A.less.Scalar(x, -0.5),
    "aten.__and__.Tensor": lambda x, y, d: x * y * A.__and__.Tensor(x > 0, y > 0),
    "aten.__and__.Scalar": lambda x, y, d: x * A.__and__.Scalar(x > 0, True),
    "aten.__or__.Tensor": lambda x, y, d: x * y * A.__or__.Tensor(x > 0, y > 0).logical_not(),
    "aten.__or__.Scalar": lambda x, y, d: x * A.__or__.Scalar(x > 0, False),
    "aten.greater_equal.Tensor": lambda x, y, d: (x - y) * A.greater_equal.Tensor(x, y),
    "aten.greater_equal.Scalar": lambda x, y, d: (x - 0.5) * A.greater_equal.Scalar(x, 0.5),
    "aten.less_equal.Tensor": lambda x, y, d: (x - y) * A.less_equal.Tensor(x, y),
    "aten.less_equal.Scalar": lambda x, y, d: (x + 0.5) * A.less_equal.Scalar(x, -0.5),
    "aten.not_equal.Tensor": lambda x, y, d: (x - y) * A.not_equal.Tensor(x, y),
    "aten.not_equal.Scalar": lambda x, y, d: x * A.not_equal.Scalar(x, 0),
    "aten.isclose.default": lambda x, y, d: x + A.isclose.default(x > 0, x > 0),
    "aten.isreal.default": lambda x, y, d: x * A.isreal.default(x),
    "aten.where.self": lambda x, y, d: torch.where(x > y, x, y),
    "aten.where.ScalarSelf": lambda x, y, d: A.where.ScalarSelf(x > 0.25, 0.25, x),
    "aten.where.ScalarOther": lambda x, y, d: A.where.ScalarOther(x > 0.25, x, 0.25),
    "aten.where.Scalar": lambda x, y, d: x * A.where.Scalar(x > 0, 1.0, -0.5),
    "aten.masked_fill.Tensor": lambda x, y, d: A.masked_fill.Tensor(x, x < -0.5, torch.tensor(-0.5)),
}

SAME: dict[str, Function] = {
    "aten.copy.default": lambda x, y, d: A.copy.default(y, x.amax(d, keepdim=True)) + x,
    "aten.fill.Tensor": lambda x, y, d: x + A.fill.Tensor(x, x.new_ones(())),
    "aten.fill.Scalar": lambda x, y, d: x + x.clone().fill_(0.3),
    "aten.zero.default": lambda x, y, d: x + x.clone().zero_(),
    "aten.to.device": lambda x, y, d: A.to.device(x, "cpu", x.dtype),
    "aten.to.dtype": lambda x, y, d: x * (x > 0).to(x.dtype),
    "aten.to.dtype_layout": lambda x, y, d: A.to.dtype_layout(x, device="cpu"),
    "aten.to.other": lambda x, y, d: x * A.to.other(x > 0, y),
    "aten._to_copy.default": lambda x, y, d: A._to_copy.default(x),
    "aten.type_as.default": lambda x, y, d: x * (x > 0).type_as(y),
    "aten.contiguous.default": lambda x, y, d: A.contiguous.default(x),
    "aten.clone.default": lambda x, y, d: x.clone(),
    "aten.detach.default": lambda x, y, d: x.detach(),
    "aten.alias.default": lambda x, y, d: A.alias.default(x),
    "aten.lift_fresh_copy.default": lambda x, y, d: A.lift_fresh_copy.default(x),
    "aten.detach_.default": lambda x, y, d: x.clone().detach_() * 2,
    "aten.requires_grad_.default": lambda x, y, d: A.requires_grad_.default(x.detach().clone(), False) * 2,
    "aten.dropout.default": lambda x, y, d: F.dropout(x, 0.5, training=False),
    "aten.feature_dropout.default": lambda x, y, d: F.dropout2d(x, 0.5, training=False),
    "aten.alpha_dropout.default": lambda x, y, d: F.alpha_dropout(x, 0.5),
    "aten.feature_alpha_dropout.default": lambda x, y, d: F.feature_alpha_dropout(x, 0.5),
    "aten.native_dropout.default": lambda x, y, d: A.native_dropout.default(x, 0.5, False)[0],
}

FRESH: dict[str, Function] = {
    "aten.zeros.default": lambda x, y, d: x + torch.zeros(x.shape),
    "aten.ones.default": lambda x, y, d: x * torch.ones(x.shape[1:]),
    "aten.full.default": lambda x, y, d: x - torch.full(x.shape, 0.5),
    "aten.zeros_like.default": lambda x, y, d: x + torch.zeros_like(x),
    "aten.ones_like.default": lambda x, y, d: x + torch.ones_like(x),
    "aten.full_like.default": lambda x, y, d: torch.cat((x, torch.full_like(y, 0.3)), 1),
    "aten.empty_like.default": lambda x, y, d: x * torch.empty_like(y).fill_(2),
    "aten.new_zeros.default": lambda x, y, d: torch.cat((x.new_zeros(x.shape[0], 1, *x.shape[2:]), x), 1),
    "aten.new_ones.default": lambda x, y, d: x + x.new_ones(x.shape[d:][:1] if d == 3 else (1,)),
    "aten.new_full.default": lambda x, y, d: x * x.new_full((1, 1, 1), 0.5),
    "aten.new_empty.default": lambda x, y, d: x + x.new_empty((1, 1)).fill_(0.5),
    "aten._assert_async.default": beside(lambda x: A._assert_async.default((x * 0 == 0).all())),
    "aten._assert_async.msg": beside(lambda x: A._assert_async.msg((x * 0 == 0).all(), "")),
}


def _divided(x: Tensor, y: Tensor) -> Tensor:
    return wave(x / y, A.divide.Tensor_mode(x, y, rounding_mode="floor"))


POINTWISE: dict[str, Function] = NUMBERS | COMPARED | SAME | FRESH
