"""Where exact surgery goes wrong, 1 to 10: readers, and what is constant. Each is exact, and loses what can really go.

`dying(...)` zeroes rows of a layer and leaves their biases: what is dead still says a constant, and mostly not 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from tests import nets
from tests.exactness import chosen, shrunk
from tests.towers import FLAT, X, dying, left, net_of, tower

# norms and readers


def rms(x: Tensor, gain: Tensor, eps: float = 1e-6) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain


@pytest.mark.parametrize(
    "norm",
    [
        lambda m, x: F.rms_norm(x, (10,), m.gain.abs()),
        lambda m, x: F.rms_norm(x, (10,), m.gain, 1e-2),
        lambda m, x: rms(x, m.gain),
        lambda m, x: rms(x, 1 + m.gain),
    ],
    ids=["eps by dtype", "large eps", "by hand", "1 + w"],
)
def test_trap_1_rms_norm_over_zero_dims(norm: Callable[[Any, Tensor], Tensor]) -> None:
    """The mean is over what is left: pinned, or rescaled."""
    net = net_of(
        lambda m, x: m.head(norm(m, m.body(x))),
        body=nn.Linear(6, 10),
        head=nn.Linear(10, 4),
        gain=nn.Parameter(torch.randn(10)),
    )
    result = shrunk(dying(net, 0.0, body=[0, 1, 2]), torch.randn(2, 5, 6), shapes=FLAT)
    if left(result) == 10:
        assert "pinned" in result.plan.explain("body.weight", 0)


def test_trap_1_global_response_norm() -> None:
    """ConvNeXt V2: each channel by the mean of all channels' norms."""

    def grn(m: Any, x: Tensor) -> Tensor:
        size = x.norm(p=2, dim=(2, 3), keepdim=True)
        return m.gain * (x * size / (size.mean(1, keepdim=True) + 1e-6)) + x

    net = tower(grn)
    net.gain = nn.Parameter(torch.randn(1, 12, 1, 1))
    result = shrunk(dying(net, 0.0, body=[0, 1, 2]), X)
    assert left(result) == 12
    assert "pinned" in result.plan.explain("body.weight", 0)


MARKS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "where": lambda m, x: torch.where(x > 0, 1.0, -1.0).to(x.dtype),
    "sign": lambda m, x: x.sign(),
    "comparison": lambda m, x: (x > 0.1).to(x.dtype),
    "nan_to_num": lambda m, x: x.nan_to_num(0.3) + x.relu(),
    "fmax": lambda m, x: torch.fmax(x, torch.full_like(x, 0.2)),
    "maximum": lambda m, x: torch.maximum(x, x.new_tensor(0.2)),
    "isnan": lambda m, x: x.isnan().to(x.dtype) + x,
    "cast": lambda m, x: (x * 4).to(torch.int32).to(x.dtype),
    "not finite": lambda m, x: torch.exp(torch.log(x.relu())),
}


@pytest.mark.parametrize("function", MARKS.values(), ids=MARKS)
def test_trap_2_ops_that_turn_nan_into_a_number(function: Callable[[Any, Tensor], Tensor]) -> None:
    """Four channels are constants; all others vary, whatever an op would make of a mark for it."""
    result = shrunk(dying(tower(function), body=[0, 1, 2, 3]), X)
    assert left(result) in (8, 12)
    assert set(range(4, 12)) <= set(result.plan.axis("body.weight").keep)


@pytest.mark.parametrize("name", ["where", "sign", "comparison", "maximum", "cast"])
def test_trap_2_constants_pass_such_ops(name: str) -> None:
    assert left(shrunk(dying(tower(MARKS[name]), body=[0, 1, 2, 3]), X)) == 8


def test_trap_3_a_gain_of_0_makes_the_output_the_shift() -> None:
    """Network slimming: the filters live, BatchNorm's gain is 0."""
    net = nets.lively(nets.NormPair())
    with torch.no_grad():
        net.norm1.weight[[0, 2, 5]] = 0
        net.norm1.bias[[0, 2, 5]] = -1
    assert left(shrunk(net, X), "conv1.weight") == 5


def test_trap_3_a_layer_norms_input_is_read_at_a_gain_of_0() -> None:
    net = nets.lively(nets.Stream())
    with torch.no_grad():
        net.norm.weight[:4] = 0
        net.last.weight[:4] = 0
    assert left(shrunk(net, torch.randn(2, 3, 6), shapes=FLAT), "embed.weight") == 12


def spatial_attention(m: Any, x: Tensor) -> Tensor:
    """CBAM: what all channels say together, by mean and maximum."""
    both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
    return x * m.gate(both).sigmoid()


def efficient_attention(m: Any, x: Tensor) -> Tensor:
    """ECA: a convolution along the channels."""
    along = m.gate(x.mean((2, 3)).unsqueeze(1)).sigmoid()
    return x * along.transpose(1, 2).unsqueeze(-1)


READERS: dict[str, tuple[Callable[[Any, Tensor], Tensor], nn.Module | None]] = {
    "mean": (lambda m, x: x + x.mean(1, keepdim=True), None),
    "sum": (lambda m, x: x + x.sum(1, keepdim=True), None),
    "select": (lambda m, x: x * x[:, 5:6], None),
    "CBAM": (spatial_attention, nn.Conv2d(2, 1, 3, padding=1)),
    "ECA": (efficient_attention, nn.Conv1d(1, 1, 3, padding=1)),
}


@pytest.mark.parametrize(("function", "gate"), READERS.values(), ids=READERS)
def test_trap_4_ids_are_conserved(function: Callable[[Any, Tensor], Tensor], gate: nn.Module | None) -> None:
    """A dim that a rule loses would free every channel before it."""
    net = tower(function)
    if gate is not None:
        net.gate = gate
    nets.lively(net)
    shrunk(dying(net, body=[0, 1, 5]), X)
    chosen(net, X)


OVER_CHANNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean(1, keepdim=True),
    "var": lambda x: x.var(1, keepdim=True),
    "max": lambda x: x.max(1, keepdim=True).values,
    "amin": lambda x: x.amin(1, keepdim=True),
    "softmax": lambda x: x.softmax(1),
    "logsumexp": lambda x: x.logsumexp(1, keepdim=True),
    "sort": lambda x: x.sort(1).values,
    "topk": lambda x: x.topk(3, 1).values,
    "cumsum": lambda x: x.cumsum(1),
    "prod": lambda x: (x + 1).prod(1, keepdim=True) * 0.01,
    "argmax": lambda x: x.argmax(1, keepdim=True).to(x.dtype),
    "group_norm": lambda x: F.group_norm(x, 3),
    "normalize": lambda x: F.normalize(x, dim=1),
}


@pytest.mark.parametrize("value", [0.0, 0.5])
@pytest.mark.parametrize("function", OVER_CHANNELS.values(), ids=OVER_CHANNELS)
def test_trap_5_reductions_over_channels_read_them(function: Callable[[Tensor], Tensor], value: float) -> None:
    """A zero counts in a mean, in a maximum, in a softmax: it stays."""
    out = function(torch.randn(1, 12, 2, 2)).shape[1]
    result = shrunk(dying(tower(lambda m, x: function(x), out=out), value, body=[0, 1, 2]), X)
    if left(result) < 12:
        assert value == 0
        assert result.plan.explain("body.weight", 0).endswith("constant")
    else:
        assert "body.weight[0] (dim 0) stays" in result.plan.explain("body.weight", 0)


@pytest.mark.parametrize(("value", "width"), [(0.0, 9), (0.5, 12)])
def test_trap_5_a_sum_may_lose_exact_zeros(value: float, width: int) -> None:
    net = tower(lambda m, x: x.sum(1, keepdim=True), out=1)
    assert left(shrunk(dying(net, value, body=[0, 1, 2]), X)) == width


def test_trap_5_a_zero_column_after_a_norm_is_not_unread() -> None:
    net = nets.lively(nets.Stream())
    nets.zero_(net.head.weight, [0, 1, 2], dim=1)
    nets.zero_(net.up.weight, [0, 1, 2], dim=1)
    assert left(shrunk(net, torch.randn(2, 3, 6), shapes=FLAT), "embed.weight") == 12


class Sliced(nn.Module):
    """The first `n` channels pass a gate, the others do not; `n` is an attribute or a literal."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.n = 4
        self.how = how
        self.body = nn.Conv2d(3, 12, 3)
        self.head = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        if self.how == "attribute":
            return self.head(torch.cat([x[:, : self.n].tanh(), x[:, self.n :]], 1))  # type: ignore[no-any-return]
        if self.how == "literal":
            return self.head(torch.cat([x[:, :4].tanh(), x[:, 4:]], 1))  # type: ignore[no-any-return]
        return self.head(x * x[:, 4:5])  # type: ignore[no-any-return]


def test_trap_6_a_constant_index_is_a_size_argument() -> None:
    """Bounds that are attributes follow; a literal bound keeps what it counts; a selected channel stays alone."""
    net = dying(nets.lively(Sliced("attribute")), body=[1, 2, 6])
    result = shrunk(net, X)
    assert (left(result), result.model.n) == (9, 2)
    literal = dying(nets.lively(Sliced("literal")), body=[1, 2, 6])
    result = shrunk(literal, X, keep_class=True)
    assert len({1, 2} & set(result.plan.axis("body.weight").keep)) == 2
    assert left(shrunk(literal, X)) == 9, "a literal bound is a number that can be written anew"
    result = shrunk(dying(nets.lively(Sliced("select")), 0.0, body=[1, 3, 6]), X)
    assert 4 in result.plan.axis("body.weight").keep


# what is constant


class Written(nn.Module):
    """Writes through a view: half of the channels get 1 added."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        y[:, :4].add_(1)
        return self.head(y)  # type: ignore[no-any-return]


def test_trap_7_writes_through_a_view_are_seen() -> None:
    assert left(shrunk(dying(nets.lively(Written()), body=[0, 1, 5, 6]), X, kind="graph")) == 4
    result = shrunk(dying(nets.lively(Written()), body=[0, 1, 5, 6]), X, keep_class=True)
    assert not {5, 6} & set(result.plan.axis("body.weight").keep) or left(result) == 8


class Counting(nn.Module):
    """Keeps a running mean of what it sees, and uses it: a buffer that forward writes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3)
        self.register_buffer("seen", torch.zeros(8))
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        self.seen.mul_(0.9).add_(y.mean((0, 2, 3)) * 0.1)
        return self.head(y + self.seen.reshape(1, -1, 1, 1))  # type: ignore[no-any-return]


def test_trap_7_buffers_that_forward_writes_vary_and_stay() -> None:
    """Every run of a proof starts from the same state."""
    net = dying(nets.lively(Counting()), body=[0, 1])
    result = surgery.shrink(net, X)
    assert result.proof is not None
    assert result.proof.passed
    assert left(result) == 8
    assert not net.seen.any()
    assert "seen is written in forward" in result.plan.explain("body.weight", 0)


def tokens(function: Callable[[Any, Tensor], Tensor], **parts: nn.Module | nn.Parameter) -> Any:
    """body (6 -> 10) on tokens [b, 5, 6] -> function -> head (10 -> 4)."""
    return net_of(lambda m, x: m.head(function(m, m.body(x))), body=nn.Linear(6, 10), head=nn.Linear(10, 4), **parts)


TOKENS: dict[str, Any] = {
    "cls token": tokens(
        lambda m, x: torch.cat([m.cls.expand(len(x), 1, 10), x], 1), cls=nn.Parameter(torch.zeros(1, 1, 10))
    ),
    "positions": tokens(lambda m, x: x + m.pos, pos=nn.Parameter(torch.zeros(1, 5, 10))),
    "token mixing": tokens(lambda m, x: m.mix(x.transpose(1, 2)).transpose(1, 2), mix=nn.Linear(5, 7)),
    "two streams": tokens(lambda m, x: torch.cat([x, x.sigmoid()], 1)),
    "padded tokens": tokens(lambda m, x: F.pad(x, (0, 0, 1, 2), value=0.25)),
    "one position scaled": tokens(lambda m, x: x * m.scale, scale=nn.Parameter(torch.zeros(5, 1))),
}


@pytest.mark.parametrize("name", TOKENS)
def test_trap_8_a_fold_needs_the_same_constant_along_every_other_dim(name: str) -> None:
    """A bias has no tokens: a constant that differs from token to token cannot go into it."""
    net = dying(nets.lively(TOKENS[name]), body=[0, 1, 2])
    if name == "positions":
        with torch.no_grad():
            net.pos[..., 0] = 0.3  # the same everywhere: this one can go
    result = shrunk(net, torch.randn(2, 5, 6), shapes=FLAT)
    assert left(result) == (9 if name == "positions" else 10)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_trap_9_a_sum_over_space_depends_on_the_resolution(value: float) -> None:
    net = net_of(lambda m, x: m.head(m.body(x).sum((2, 3)) * 0.05), body=nn.Conv2d(3, 12, 3), head=nn.Linear(12, 4))
    assert left(shrunk(dying(net, value, body=[0, 1, 2]), X)) == (12 if value else 9)


def test_trap_10_a_write_must_suit_every_reader_of_the_storage() -> None:
    """One layer called on two different constants; and one whose weight is computed in forward."""
    twice = net_of(
        lambda m, x: m.out(m.head(m.body(x).relu()) * m.head(m.body(x).sigmoid())),
        body=nn.Conv2d(3, 12, 3),
        head=nn.Conv2d(12, 6, 1),
        out=nn.Conv2d(6, 4, 1),
    )
    assert left(shrunk(dying(twice, body=[0, 1, 2]), X)) == 12
    same = net_of(
        lambda m, x: m.out(m.head(m.body(x).relu()) * m.head(m.body(x).relu().relu())),
        body=nn.Conv2d(3, 12, 3),
        head=nn.Conv2d(12, 6, 1),
        out=nn.Conv2d(6, 4, 1),
    )
    assert left(shrunk(dying(same, body=[0, 1, 2]), X)) == 9, "both calls want the same"
    computed = net_of(
        lambda m, x: F.conv2d(m.body(x).relu(), m.head.weight * m.scale, m.head.bias, padding=1),
        body=nn.Conv2d(3, 12, 3),
        head=nn.Conv2d(12, 4, 3),
        scale=nn.Parameter(torch.ones(4, 1, 1, 1)),
    )
    shrunk(dying(computed, body=[0, 1, 2]), X)
