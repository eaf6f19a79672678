"""Which expressions of a model's code are found behind the sizes of its ops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from surgery.deciding.parts import Rewrite
from tests.exactness import shrunk
from tests.nets import lively, zero_, zero_rows_

X = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(5))


class Layers(nn.Module):
    """Two layers, for code between them."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.out = nn.Linear(8, 8), nn.Linear(8, 8)


class Branching(Layers):
    """Long sequences take another way, which asks for the width as well; the example is short."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        h = self.up(x).relu()
        h = h.view(b, n // 4, 4, c).flip(2) if n > 8 else h.view(b, n, c)
        return self.out(h.reshape(b, n, c))  # type: ignore[no-any-return]


class Twice(nn.Module):
    """One line sees two widths."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)
        self.c, self.d = nn.Linear(8, 4), nn.Linear(8, 4)

    def split(self, x: Tensor, width: int) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], width)

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        one, two = self.split(self.a(x).relu(), width), self.split(self.b(x).relu(), width)
        return self.c(one) + self.d(two)  # type: ignore[no-any-return]


class Writing(Layers):
    """A write through a view, which only `torch.export` can take apart: it does not say where ops were called."""

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        mask = x.new_zeros(n)
        mask[1:3] = 1
        h = (self.up(x).relu() * mask.view(n, 1)).reshape(b, n, c)
        return self.out(h)  # type: ignore[no-any-return]


class Sliced(nn.Module):
    """Bounds that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.out = nn.Linear(8, 16), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[-1]
        h = self.up(x)
        return self.out(h[..., :c] * torch.sigmoid(h[:, :, c : 2 * c]))  # type: ignore[no-any-return]


class Split(nn.Module):
    """Pieces in a list, by name; a pad around them."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.out = nn.Linear(8, 12), nn.Linear(14, 8)

    def forward(self, x: Tensor) -> Tensor:
        c = x.shape[-1]
        a, b = torch.split(self.up(x), split_size_or_sections=[c, c // 2], dim=-1)
        return self.out(F.pad(torch.cat([a.relu(), b.tanh()], -1), (0, c // 4)))  # type: ignore[no-any-return]


class Starred(Layers):
    """Sizes that come unpacked, in front of others and behind."""

    def forward(self, x: Tensor) -> Tensor:
        lead, c = x.shape[:-1], x.shape[-1]
        h = self.up(x).relu().view(*lead, c, 1).tanh().view((*lead, c))
        return self.out(h.view(*(*lead, c)))  # type: ignore[no-any-return]


class Flattened(nn.Module):
    """Channels and space as one dim, for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        y = self.body(x).relu().reshape(b, 8 * h * w).tanh()
        return self.head(y.reshape(b, 8, h, w))  # type: ignore[no-any-return]


def silent(net: nn.Module, dim: int = 1, **unread: list[int]) -> nn.Module:
    """Columns of layers that nobody needs."""
    lively(net)
    for name, positions in unread.items():
        zero_(net.get_submodule(name).weight, positions, dim)  # type: ignore[arg-type]
    return net


def by_text(result: surgery.Result) -> dict[str, list[Rewrite]]:
    """The rewrites, by expression."""
    found: dict[str, list[Rewrite]] = {}
    for rewrite in result.plan.rewrites:
        found.setdefault(rewrite.text, []).append(rewrite)
    return found


def test_code_that_the_example_does_not_reach_follows() -> None:
    net = silent(Branching(), out=[0, 5])
    result = shrunk(net, X, shapes=((1, 0), (3, 0)))
    assert result.params_before - result.params_after == 2 * (9 + 8)
    assert len(by_text(result)["c"]) == 3, "two views that ran, one that did not"
    longer = torch.randn(3, 12, 8)
    torch.testing.assert_close(result.model(longer), net(longer))


def test_one_line_for_two_widths_works_them_out() -> None:
    net = silent(Twice(), c=[0, 5], d=[1, 2, 3])
    result = shrunk(net, X, shapes=((1, 0), (3, 0)))
    assert result.params_before - result.params_after == 5 * (9 + 4)
    assert [rewrite.new for rewrite in by_text(result)["width"]] == [-1]
    assert "`width` is what follows, was 8" in str(result)


def test_a_line_that_sees_a_size_which_stays_works_it_out_too() -> None:
    result = shrunk(silent(Twice(), c=[0, 5]), X, shapes=((1, 0), (3, 0)))
    assert [rewrite.new for rewrite in by_text(result)["width"]] == [-1]


def test_a_model_that_is_not_recorded_is_listened_to() -> None:
    result = shrunk(silent(Writing(), out=[0, 5]), X, shapes=((1, 0), (3, 0)))
    assert [rewrite.new for rewrite in by_text(result)["c"]] == [6]


def test_bounds_of_slices() -> None:
    result = shrunk(silent(Sliced(), out=[0, 5, 6]), X, shapes=((1, 0), (3, 0)))
    assert result.params_before - result.params_after == 3 * (2 * 9 + 8)
    assert {text: rewrites[0].new for text, rewrites in by_text(result).items()} == {"c": 5, "2 * c": 10}


def test_pieces_of_splits_and_pads() -> None:
    result = shrunk(silent(Split(), out=[0, 5, 6, 9]), X, shapes=((1, 0), (3, 0)))
    assert result.params_before - result.params_after == 4 * (9 + 8)
    assert {text: rewrites[0].new for text, rewrites in by_text(result).items()} == {"c": 5, "c // 2": 3}


def test_sizes_that_come_unpacked() -> None:
    result = shrunk(silent(Starred(), out=[0, 5]), X, shapes=((1, 0), (3, 0)))
    assert {text: [r.index for r in rewrites] for text, rewrites in by_text(result).items()} == {
        "c": [None, None],
        "(*lead, c)": [2],
    }


def test_channels_and_space_as_one_dim_are_of_no_resolution() -> None:
    net = silent(Flattened(), head=[0, 5])
    result = shrunk(net, torch.randn(2, 3, 6, 6), shapes=((1, 0), (3, 0), (2, 4)))
    assert {text: rewrites[0].new for text, rewrites in by_text(result).items()} == {"8 * h * w": -1, "8": 6}


@pytest.mark.parametrize("rows", [[2], [0, 3, 7]])
def test_zero_rows_go_by_the_same_way(rows: list[int]) -> None:
    net = zero_rows_(lively(Branching()), up=rows)
    with torch.no_grad():
        net.up.bias[rows] = -1  # type: ignore[union-attr,index]
    assert shrunk(net, X, shapes=((1, 0), (3, 0))).params_after == 144 - 17 * len(rows)
