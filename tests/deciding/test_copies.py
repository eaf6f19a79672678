"""Channels that are laid out several times: who reads a copy reads what it is a copy of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.exactness import shrunk
from tests.nets import lively


class Repeated(nn.Module):
    """Every channel twice; half of them are constant."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mid, self.head = nn.Linear(5, 6), nn.Linear(6, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mid(self.stem(x)).repeat_interleave(2, -1))


def test_what_feeds_the_original_of_a_copy_stays() -> None:
    net = lively(Repeated())
    net.mid.weight.data[[1, 2]] = 0
    result = shrunk(net, torch.randn(2, 5), shapes=((1, 0), (3, 0)))
    kept = {f"{axis.name}:{axis.dim}": axis.keep for axis in result.plan.axes}
    assert kept["mid.weight:0"] == (0, 3)
    assert kept["head.weight:1"] == (0, 1, 6, 7)
    assert len(kept["stem.weight:0"]) == 6
