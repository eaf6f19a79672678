"""The printed analysis of tiny nets, each a known difficulty: as stored in `tests/snapshots/`, its columns added up.

After a change that is meant: `SURGERY_SNAPSHOTS=write pytest tests/test_snapshots.py`, and read the difference.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from tests.nets import lively, zero_rows_

STORED = Path(__file__).parent / "snapshots"
WRITE = os.environ.get("SURGERY_SNAPSHOTS") == "write"


class Residual(nn.Module):
    """Two convolutions write the same stream; their masks agree on channel 1 only."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.block = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(x + self.block(x))


class Concat(nn.Module):
    """Two branches side by side, one of them padded."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 5, 1)
        self.head = nn.Conv2d(9, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat((self.left(x), self.right(x)), 1))


class Shuffle(nn.Module):
    """ShuffleNet's shuffle between two grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=2)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, -1, h, w)
        return self.head(self.second(x))


class Depthwise(nn.Module):
    """A padded depthwise convolution between two dense ones."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm = nn.Conv2d(3, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.project = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.depthwise(F.relu(self.norm(self.expand(x)))))


class Tied(nn.Module):
    """One weight under two names; both layers read and write the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(F.relu(self.a(F.relu(self.stem(x))))))


class LayerNorm(nn.Module):
    """A stream that a layer norm averages over, and a hidden layer that nothing does."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(3, 6), nn.LayerNorm(6)
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Recurrent(nn.Module):
    """An LSTM between two linear layers; one of its units is never filled, another is read by nobody but itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.head = nn.Linear(3, 6), nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(x))[0])


class Attention(nn.Module):
    """A residual attention of three heads of four; one head is not read, and queries are zero at other positions each.

    With `key_heads` fewer, each serves several query heads.
    """

    def __init__(self, heads: int = 3, key_heads: int = 3) -> None:
        super().__init__()
        self.heads, self.key_heads, self.head_dim = heads, key_heads, 4
        self.embed, self.q = nn.Linear(3, 6), nn.Linear(6, 4 * heads)
        self.k, self.v, self.o = nn.Linear(6, 4 * key_heads), nn.Linear(6, 4 * key_heads), nn.Linear(4 * heads, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.head_dim).transpose(1, 2)
        k, v = (layer(x).view(b, n, self.key_heads, self.head_dim).transpose(1, 2) for layer in (self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, scale=0.5, enable_gqa=self.heads != self.key_heads)
        return self.head(x + self.o(mixed.transpose(1, 2).reshape(b, n, -1)))


class RMSNorm(nn.Module):
    """A stream under a root mean square norm, two of whose channels are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm, self.mlp = nn.Linear(3, 6), nn.RMSNorm(6, eps=1e-5), nn.Linear(6, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.mlp(self.norm(x)))


class Split(nn.Module):
    """`split` with sizes that the module keeps; one part is convolved, the other passes."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = (2, 6)
        self.stem, self.part, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.stem(x).split(self.sizes, 1)
        return self.head(torch.cat((self.part(first), second), 1))


class Unruled(nn.Module):
    """An op that nobody wrote a rule for, and one layer behind it that is free."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mid, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.mid(torch.renorm(self.stem(x), 2, 1, 1.0))))


def unread_(module: nn.Module, name: str, columns: list[int]) -> None:
    """Zero columns of a weight."""
    module.get_parameter(name).data[:, columns] = 0


def silence_(module: nn.Module, name: str, rows: list[int]) -> None:
    """Zero entries of a bias, or rows of a weight."""
    module.get_parameter(name).data[rows] = 0


def attention() -> nn.Module:
    return Attention()


def grouped_queries() -> nn.Module:
    return Attention(heads=4, key_heads=2)


def grouped() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 2, 1))


def transposed() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.ConvTranspose2d(6, 5, 2, 2), nn.Conv2d(5, 2, 1))


def pixel_shuffle() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 12, 1, bias=False), nn.PixelShuffle(2), nn.Conv2d(3, 2, 1))


IMAGE, TOKENS = (2, 3, 6, 6), (2, 4, 3)

NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, list[int]]]] = {
    "residual": (Residual, IMAGE, {"stem": [1, 2], "block": [1, 4]}),
    "concat": (Concat, IMAGE, {"left": [0], "right": [3, 4]}),
    "shuffle": (Shuffle, IMAGE, {"first": [0, 1], "second": [1, 5]}),
    "grouped": (grouped, IMAGE, {"0": [0, 2, 4, 7], "2": [0, 3, 6, 9]}),
    "depthwise": (Depthwise, IMAGE, {"expand": [0, 5], "depthwise": [5]}),
    "tied": (Tied, (2, 3), {"a": [1], "stem": [1, 2]}),
    "layer_norm": (LayerNorm, TOKENS, {"embed": [0], "up": [3, 4], "down": [0]}),
    "transposed_convolution": (transposed, IMAGE, {"0": [1, 2]}),
    "recurrent": (Recurrent, TOKENS, {"embed": [0]}),
    "attention": (attention, TOKENS, {"q": [0, 1, 4, 7, 8, 9]}),
    "grouped_queries": (grouped_queries, TOKENS, {"k": [0, 1, 4, 7], "v": [2, 3, 5, 6]}),
    "rms_norm": (RMSNorm, TOKENS, {"embed": [1, 4], "mlp": [1, 4]}),
    "split": (Split, IMAGE, {"stem": [0, 3, 4], "part": [0]}),
    "pixel_shuffle": (pixel_shuffle, IMAGE, {"0": [0, 1, 2, 3, 5]}),
    "unruled": (Unruled, IMAGE, {"stem": [1], "mid": [0, 4]}),
}


UNREAD: dict[str, dict[str, list[int]]] = {
    "attention": {"o.weight": [8, 9, 10, 11]},
    "grouped_queries": {"o.weight": [0, 1, 2, 3, 8, 9, 10, 11]},
    "recurrent": {"head.weight": [1], "lstm.weight_hh_l0": [1]},
}
"""Columns of zeros, by net and weight."""

CELL = [10]
"""What unit 0 of five holds is made of, in an LSTM's gates."""

SILENT: dict[str, dict[str, list[int]]] = {
    "attention": {"q.bias": [0, 1, 4, 7, 8, 9]},
    "grouped_queries": {"k.bias": [0, 1, 4, 7]},
    "recurrent": {f"lstm.{part}_l0": CELL for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")},
    "rms_norm": {"embed.bias": [1, 4], "mlp.bias": [1, 4]},
}
"""Biases and other rows that are zero, by net and tensor."""


def analysis_of(name: str) -> surgery.Analysis:
    make, shape, rows = NETS[name]
    net = zero_rows_(lively(make()), **rows)
    for parameter, columns in UNREAD.get(name, {}).items():
        unread_(net, parameter, columns)
    for parameter, silent in SILENT.get(name, {}).items():
        silence_(net, parameter, silent)
    return surgery.analyze(net, torch.randn(shape, generator=torch.Generator().manual_seed(7)))


def printed(analysis: surgery.Analysis) -> str:
    """The text, without line numbers of files: they move with every edit."""
    return re.sub(r"(\w+\.py):\d+", r"\1", str(analysis)) + "\n"


@pytest.mark.parametrize("name", NETS)
def test_the_printed_analysis_is_the_stored_one(name: str) -> None:
    path = STORED / f"{name}.txt"
    text = printed(analysis_of(name))
    if WRITE:
        path.write_text(text)
    assert path.exists(), f"no {path.name} yet: run with SURGERY_SNAPSHOTS=write, read it, and commit it"
    assert text == path.read_text()


def test_every_stored_analysis_is_of_a_net_here() -> None:
    assert {path.stem for path in STORED.glob("*.txt")} == set(NETS)


@pytest.mark.parametrize("name", NETS)
def test_the_columns_add_up(name: str) -> None:
    analysis = analysis_of(name)
    text = printed(analysis)
    headline = re.match(
        r"(\d+) channels in (\d+) groups; (\d+) are free to go, on ([\d.]+) % of the parameters\n", text
    )
    assert headline is not None
    channels, groups, free = (int(headline[i]) for i in (1, 2, 3))
    rows = re.findall(r"^  \S+: (\d+) channels, (\d+) free, (\d+) dead, on (\d+) axes$", text, re.MULTILINE)
    assert len(rows) == groups == len(analysis.groups)
    sums = [sum(column) for column in zip(*([int(cell) for cell in row] for row in rows), strict=True)]
    assert sums[:2] == [channels, free]
    dead = re.search(r"^(\d+) are dead", text, re.MULTILINE)
    assert dead is not None
    assert sums[2] == int(dead[1]) == analysis.dead
    # what is not free is pinned, and each pinned channel has one reason
    pinned = [int(n) for n in re.findall(r"^  pinned (\d+): ", text, re.MULTILINE)]
    assert sum(pinned) == sum(p.channels for p in analysis.pinned) == channels - free
    # no more is dead than is free, and what is stranded has a reason each
    assert all(int(dead_) <= int(free_) <= int(total) for total, free_, dead_, _ in rows)
    for group in analysis.stranded or ():
        assert group.stranded == sum(count for _, count in group.blockers)
        assert group.stranded + group.removed <= group.channels
    # every axis lives in the groups that its channels are in, and the groups name axes that exist
    known = {f"{axis.name}:{axis.dim}" for axis in (analysis.plan.axes if analysis.plan else ())}
    assert {axis for group in analysis.groups for axis in group.axes} <= known
    # the share of parameters that a plan may touch is one of whole positions
    assert 0 <= analysis.removable_share <= 1
    assert (analysis.removable_share > 0) == (free > 0)
