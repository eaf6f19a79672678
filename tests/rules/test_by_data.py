"""Positions that data chooses: the dim that they are taken from is held, the others lose what nobody reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from surgery.analysis.capture import exported
from surgery.analysis.couple import couple
from surgery.inputs import Inputs
from tests.exactness import chosen


class Sliced(nn.Module):
    """As many rows of a table as the input says."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, 12))
        self.out = nn.Linear(12, 3)

    def forward(self, x: Tensor, count: Tensor) -> Tensor:
        last = count.item()
        torch._check(last >= 2)  # type: ignore[no-untyped-call]
        torch._check(last <= 9)  # type: ignore[no-untyped-call]
        y: Tensor = self.out(self.table[:last]).mean(0) + x
        return y


def test_a_slice_by_data_holds_its_own_dim_alone() -> None:
    coupling = couple(exported(Sliced(), Inputs.of((torch.randn(3), torch.tensor(4)))))
    held = coupling.pin_of[coupling.channel_of] >= 0
    pinned = {key: bool(held[axis.ids].all()) for key, axis in coupling.axes.items()}
    assert pinned["table", 0]
    assert not pinned["table", 1]
    reasons = {pin.reason for pin in coupling.pins}
    assert "slice takes positions by numbers that are data" in reasons
    assert not coupling.unruled


class Gathered(nn.Module):
    """Attention scores picked by positions that are the same for every head, laid out by what the scores are."""

    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(6, 20, bias=False) for _ in range(3))
        self.o, self.last = nn.Linear(20, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2)
        back = torch.arange(n - 1, -1, -1).view(1, 1, 1, n).expand(b, scores.shape[1], n, n)
        weights = torch.softmax(0.4 * scores.gather(-1, back), -1)
        y: Tensor = self.last(self.o((weights @ v).transpose(1, 2).flatten(2)))
        return y


def test_heads_go_although_positions_are_laid_out_for_each() -> None:
    _, slim = chosen(Gathered().eval(), torch.randn(2, 5, 6), shapes=((1, 0), (3, 0)))
    assert slim.heads == 2
