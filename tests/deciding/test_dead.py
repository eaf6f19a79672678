"""What rectangles ask for: that which leaves no choice first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.exactness import shrunk
from tests.nets import lively, zero_


class Grouped(nn.Module):
    """Eight channels, read in two conv groups and in four."""

    def __init__(self, *, wide_first: bool) -> None:
        super().__init__()
        self.stem, self.wide_first = nn.Conv2d(3, 8, 1), wide_first
        self.wide = nn.Sequential(nn.Conv2d(8, 4, 1, groups=2), nn.Conv2d(4, 2, 1))
        self.narrow = nn.Sequential(nn.Conv2d(8, 4, 1, groups=4), nn.Conv2d(4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        if self.wide_first:
            made = self.wide(x)
            return made + self.narrow(x)  # type: ignore[no-any-return]
        made = self.narrow(x)
        return made + self.wide(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("wide_first", [False, True])
def test_what_leaves_no_choice_is_filled_before_what_does(wide_first: bool) -> None:
    """Of 0, 1 | 6 the narrow groups need 7, which is as many as the wide ones need; one of 4, 5 would need all."""
    net = lively(Grouped(wide_first=wide_first))
    zero_(net.stem.weight, [2, 3, 4, 5, 7])
    zero_(net.stem.bias, [2, 3, 4, 5, 7])
    zero_(net.narrow[0].weight, [1, 2])
    zero_(net.narrow[0].bias, [1, 2])
    result = shrunk(net, torch.randn(2, 3, 4, 4), shapes=((1, 0), (3, 0)))
    assert result.plan.axis("stem.weight").keep == (0, 1, 6, 7)
    assert result.model.narrow[0].groups == 2
