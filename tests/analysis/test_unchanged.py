from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surgery.analysis.capture import capture
from surgery.analysis.constants import constants
from surgery.analysis.unchanged import Unchanged
from surgery.calls import short_name
from surgery.inputs import Inputs


class Does(nn.Module):
    """`sin` of an input, then whatever a test does with it; a layer that writes zeros is at hand."""

    def __init__(self, what: Callable[[Does, Tensor], Tensor]) -> None:
        super().__init__()
        self.what, self.zero = what, nn.Linear(4, 4)
        nn.init.zeros_(self.zero.weight)
        nn.init.zeros_(self.zero.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.what(self, x.sin())


def working(what: Callable[[Does, Tensor], Tensor]) -> list[str]:
    """The ops that the output rests on."""
    program = capture(Does(what).eval(), Inputs.of(torch.randn(2, 4)))
    needed = Unchanged.of(program, constants(program)).working
    return [short_name(node.target) for node in program.calls if node in needed]


@pytest.mark.parametrize(
    "what",
    [
        lambda net, x: x + net.zero(x),
        lambda net, x: net.zero(x) + x,
        lambda net, x: x - net.zero(x),
        lambda net, x: torch.add(x, net.zero(x), alpha=3),
        lambda net, x: x + F.gelu(net.zero(x)) * x.cos(),
        lambda net, x: F.dropout(x, 0.5, False) + 0,
        lambda net, x: x.contiguous().clone().to(torch.float32).view(2, 4) * 1 / 1,
        lambda net, x: x.reshape(2, 4).expand(2, -1)[:, :],
    ],
)
def test_these_leave_a_value_as_it_is(what: Callable[[Does, Tensor], Tensor]) -> None:
    assert working(what) == ["sin"]


@pytest.mark.parametrize(
    ("what", "last"),
    [
        (lambda net, x: x.relu().relu(), "relu"),
        (lambda net, x: F.relu6(F.relu6(x)), "relu6"),
        (lambda net, x: F.hardtanh(F.hardtanh(x, 0.0, 2.0), 0.0, 2.0), "hardtanh"),
        (lambda net, x: F.relu(x.sigmoid() + x.abs()), "add"),
        (lambda net, x: F.relu(F.max_pool1d(x.relu(), 1)), "max_pool1d"),
        (lambda net, x: (x.relu() + net.zero(x)).relu(), "relu"),
    ],
)
def test_what_is_not_negative_is_not_rectified_again(what: Callable[[Does, Tensor], Tensor], last: str) -> None:
    found = working(what)
    assert found[-1] == last
    assert max(found.count(op) for op in ("relu", "relu6", "hardtanh")) <= 1


@pytest.mark.parametrize(
    ("what", "op"),
    [
        (lambda net, x: net.zero(x) - x, "sub"),  # the other sign
        (lambda net, x: torch.add(net.zero(x), x, alpha=3), "add"),  # three times x
        (lambda net, x: x.relu() + x.relu().neg().relu(), "relu"),  # may be negative
        (lambda net, x: F.relu6(x.relu()), "relu6"),  # may be above 6
        (lambda net, x: F.hardtanh(F.hardtanh(x, 0.0, 3.0), 0.0, 2.0), "hardtanh"),  # may be above 2
        (lambda net, x: x.view(4, 2), "view"),  # another shape
        (lambda net, x: x[:1] + net.zero(x), "add"),  # as many as the zeros
        (lambda net, x: x.double() + net.zero(x), "to"),  # of another type
        (lambda net, x: x.flip(0), "flip"),
        (lambda net, x: torch.div(x, 1, rounding_mode="floor"), "div"),
    ],
)
def test_these_do_not(what: Callable[[Does, Tensor], Tensor], op: str) -> None:
    assert op in working(what)


def test_what_writes_into_the_model_is_needed() -> None:
    class Counts(Does):
        def __init__(self) -> None:
            super().__init__(lambda net, x: x)
            self.register_buffer("seen", torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(x.exp().sum(0))  # type: ignore[operator]
            return x.sin()

    program = capture(Counts().eval(), Inputs.of(torch.randn(2, 4)))
    needed = Unchanged.of(program, constants(program)).working
    assert {"exp", "sin"} <= {short_name(node.target) for node in needed}
