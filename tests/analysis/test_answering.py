"""Code that asks for values: those that rest on no input are known; all others are refused, with the line that asks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from surgery.analysis.capture import capture, evaluating
from surgery.analysis.keeping import UnsureError
from surgery.analysis.recording import record
from surgery.errors import CaptureError
from surgery.inputs import Inputs
from tests.exactness import shrunk

X = torch.randn(2, 5, 6)
SHAPES = ((1, 0), (3, 0))


class Asking(nn.Module):
    """One of two layers runs, by what `ask` says of the tokens."""

    def __init__(self, ask: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.ask = ask
        self.up, self.other, self.down = nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.up if self.ask(x).item() else self.other
        y: Tensor = self.down(F.relu(layer(x)))
        return y


def own_mask(x: Tensor) -> Tensor:
    """A mask of the code's own, padded, and written into through a view."""
    mask = F.pad(torch.ones(x.shape[:2]), (0, 1))
    mask[:, 0].fill_(3)
    return (mask > 2).any()


def spoilt(x: Tensor) -> Tensor:
    mask = torch.zeros(x.shape[:2])
    mask[:, :1].copy_(x[:, :1, 0])
    return (mask > 0).any()


def halves(net: Asking) -> Asking:
    with torch.no_grad():
        net.down.weight[:, ::2] = 0
    return net.eval()


def recorded(net: nn.Module) -> tuple[object, ...]:
    with evaluating(net):
        return record(net, Inputs.of(X)).answers


def test_a_value_made_of_constants_is_known_with_what_was_written_into_it() -> None:
    assert recorded(Asking(own_mask)) == (True,)
    net = halves(Asking(own_mask))
    assert shrunk(net, X, shapes=SHAPES).model.up.out_features == 6  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "ask",
    [lambda x: x.sum() > 0, lambda x: torch.rand(3).sum() > 0, lambda x: torch.ones_like(x).mul(x).sum() > 0, spoilt],
    ids=["input", "random", "product", "written"],
)
def test_a_value_that_may_be_another_next_time_is_not(ask: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(UnsureError, match="rests on the input"):
        recorded(Asking(ask))


def test_a_weight_may_be_another_next_time() -> None:
    net = Asking(lambda x: x.new_zeros(()))
    net.ask = lambda x: net.up.weight.sum() > 0
    with pytest.raises(UnsureError, match="rests on the input"):
        recorded(net)


class Windowed(Asking):
    """It writes into a part of its scores, as sliding windows do: left to `torch.export`, which gets the answers."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        part = y[:, :2]
        part[:, :, 0] = part[:, :, 0] * 0.5
        return y + 1


def test_code_that_writes_through_views_and_asks_is_captured_too() -> None:
    net = Windowed(own_mask).eval()
    assert "other.weight" in capture(net, Inputs.of(X)).unused
    assert shrunk(halves(Windowed(own_mask)), X, shapes=SHAPES).model.up.out_features == 6  # type: ignore[union-attr]


def test_a_refusal_names_the_line_that_asks() -> None:
    with pytest.raises(CaptureError, match=r"cannot capture Asking at test_answering\.py:\d+: .*Could not guard"):
        surgery.analyze(Asking(lambda x: x.sum() > 0), X)
