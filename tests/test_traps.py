"""Where exact surgery goes wrong: a net for each counterexample. Each is exact, and removes what can really go.

`dying(...)` zeroes rows of a layer and leaves their biases: what is dead still says a constant, and mostly not 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from surgery.errors import InputError
from tests import nets
from tests.exactness import chosen, shrunk

X = nets.image(3, 8)
EVEN = ((1, 0), (3, 0), (2, 4))
FLAT = ((1, 0), (3, 0))


def net_of(function: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> Any:
    """`function(net, *inputs)` over named parts, lively."""
    return nets.lively(nets.Lambda(function, **parts))


def dying(net: nn.Module, value: float | None = 0.5, **rows: Sequence[int]) -> Any:
    """Zero rows by layer name; their biases become `value` (None: stay as they are)."""
    nets.zero_rows_(net, **rows)
    with torch.no_grad():
        for name, positions in rows.items():
            bias = net.get_submodule(name).bias
            if value is not None and isinstance(bias, Tensor):
                bias[list(positions)] = value
    return net


def tower(function: Callable[[Any, Tensor], Tensor], width: int = 12, out: int | None = None, pad: int = 0) -> Any:
    """body (3 -> width) -> function -> head (out or width -> 4), padded or not."""
    return net_of(
        lambda m, x: m.head(function(m, m.body(x))),
        body=nn.Conv2d(3, width, 3, padding=1),
        head=nn.Conv2d(out or width, 4, 1 + 2 * pad, padding=pad),
    )


def left(result: surgery.Result, name: str = "body.weight") -> int:
    return len(result.plan.axis(name).keep)


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
    result = shrunk(dying(nets.lively(Sliced("literal")), body=[1, 2, 6]), X)
    assert len({1, 2} & set(result.plan.axis("body.weight").keep)) == 2
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
    result = shrunk(dying(nets.lively(Written()), body=[0, 1, 5, 6]), X)
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
    return net_of(
        lambda m, x: m.head(function(m, m.body(x))), body=nn.Linear(6, 10), head=nn.Linear(10, 4), **parts
    )


TOKENS: dict[str, Any] = {
    "cls token": tokens(lambda m, x: torch.cat([m.cls.expand(len(x), 1, 10), x], 1), cls=nn.Parameter(torch.zeros(1, 1, 10))),
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
    net = net_of(
        lambda m, x: m.head(m.body(x).sum((2, 3)) * 0.05), body=nn.Conv2d(3, 12, 3), head=nn.Linear(12, 4)
    )
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


# borders and carriers


def bordered(function: Callable[[Any, Tensor], Tensor], head: nn.Module) -> Any:
    return net_of(lambda m, x: m.head(function(m, m.body(x))), body=nn.Conv2d(3, 12, 1), head=head)


class Same(nn.Conv2d):
    """TensorFlow's SAME: as much padding as the input's size asks for, more on the right."""

    def forward(self, input: Tensor) -> Tensor:
        h, w = input.shape[-2:]
        need = [max((-(-s // 2) - 1) * 2 + 3 - s, 0) for s in (h, w)]
        pads = [need[1] // 2, need[1] - need[1] // 2, need[0] // 2, need[0] - need[0] // 2]
        return F.conv2d(F.pad(input, pads), self.weight, self.bias, 2)


BORDERS: dict[str, tuple[Any, bool]] = {
    "pad, then valid": (lambda: bordered(lambda m, x: F.pad(x, (1, 1, 1, 1)), nn.Conv2d(12, 4, 3)), False),
    "SAME": (lambda: bordered(lambda m, x: x, Same(12, 4, 3, stride=2)), False),
    "transposed": (lambda: bordered(lambda m, x: x, nn.ConvTranspose2d(12, 4, 3)), True),
    "transposed, padded": (lambda: bordered(lambda m, x: x, nn.ConvTranspose2d(12, 4, 3, 2, 1, 1)), True),
    "same": (lambda: bordered(lambda m, x: x, nn.Conv2d(12, 4, 3, padding="same")), True),
    "dilated": (lambda: bordered(lambda m, x: x, nn.Conv2d(12, 4, 3, padding=2, dilation=2)), True),
    "padded once": (lambda: bordered(lambda m, x: x, nn.Conv2d(12, 4, (1, 3), padding=(0, 1))), True),
}


@pytest.mark.parametrize("name", BORDERS)
def test_trap_11_borders(name: str) -> None:
    """Three dead constants: one of them carries the others over the border, or they stay."""
    make, carried = BORDERS[name]
    result = shrunk(dying(make(), body=[0, 1, 2]), X)
    assert left(result) == (10 if carried else 12)
    assert len(result.plan.carries) == carried


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_trap_11_copying_modes_keep_a_constant(mode: str) -> None:
    result = shrunk(dying(bordered(lambda m, x: x, nn.Conv2d(12, 4, 3, padding=1, padding_mode=mode)), body=[0, 1, 2]), X)
    assert left(result) == 9
    assert not result.plan.carries


def test_trap_11_a_pad_of_the_same_number_keeps_it() -> None:
    same = bordered(lambda m, x: F.pad(x, (1, 1, 1, 1), value=0.5), nn.Conv2d(12, 4, 3))
    assert left(shrunk(dying(same, body=[0, 1, 2]), X)) == 9


def test_trap_11_max_pool_keeps_negative_constants_but_not_behind_a_zero_pad() -> None:
    pooled = bordered(lambda m, x: F.max_pool2d(x, 3, 2, 1), nn.Conv2d(12, 4, 1))
    assert left(shrunk(dying(pooled, -0.5, body=[0, 1, 2]), X)) == 9
    padded = bordered(lambda m, x: F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 2), nn.Conv2d(12, 4, 1))
    assert left(shrunk(dying(padded, -0.5, body=[0, 1, 2]), X)) == 12


def test_trap_12_one_carrier_per_conv_group() -> None:
    net = dying(nets.lively(nets.Grouped(padding=1)), 0.7, before=[0, 1, 4, 5, 8, 9])
    result = shrunk(net, X)
    assert left(result, "before.weight") == 9
    assert len(result.plan.carries) == 3
    assert {carry.onto // 4 for carry in result.plan.carries} == {0, 1, 2}


def test_trap_12_the_largest_constant_carries() -> None:
    net = bordered(lambda m, x: x, nn.Conv2d(12, 4, 3, padding=1))
    dying(net, body=[0, 1, 2])
    with torch.no_grad():
        net.body.bias[:3] = torch.tensor([0.2, -0.9, 0.4])
    (carry,) = shrunk(net, X).plan.carries
    assert carry.onto == 1
    assert carry.take == (0, 2)


def test_trap_12_a_constant_born_of_cancellation_carries_nothing() -> None:
    """3 · 0.1 - 0.3: right in float64, off by half in float32. It stays, and says why."""
    net = net_of(
        lambda m, x: m.head(m.mid(m.body(x))),
        body=nn.Conv2d(3, 12, 1),
        mid=nn.Conv2d(12, 8, 1),
        head=nn.Conv2d(8, 4, 3, padding=1),
    )
    dying(net, 0.1, body=[0])
    with torch.no_grad():
        net.mid.weight[0], net.mid.bias[0] = 0, -0.3
        net.mid.weight[0, 0] = 3.0
    result = shrunk(net, X)
    assert left(result, "mid.weight") == 8
    assert "too uncertain in the run-time precision" in result.plan.explain("mid.weight", 0)


POOLS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "plain": (lambda x: F.avg_pool2d(x, 2), 9),
    "not counting the pad": (lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False), 9),
    "counting the pad": (lambda x: F.avg_pool2d(x, 3, 1, 1), 12),
    "another divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), 9),
    "another divisor, padded": (lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=5), 12),
    "ceil": (lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True), 9),
    "adaptive": (lambda x: F.adaptive_avg_pool2d(x, 3), 9),
    "lp": (lambda x: F.lp_pool2d(x, 2.0, 2), 9),
}


@pytest.mark.parametrize(("pool", "width"), POOLS.values(), ids=POOLS)
def test_trap_13_average_pools(pool: Callable[[Tensor], Tensor], width: int) -> None:
    result = shrunk(dying(bordered(lambda m, x: pool(x), nn.Conv2d(12, 4, 1)), body=[0, 1, 2]), X)
    assert left(result) in (width, 12)
    if width == 9:
        assert left(result) == 9


# attention, computed weights


def test_trap_14_two_activations_contracted() -> None:
    """q constant and k varying: the product varies. Both stay, or both are exactly zero."""
    net = net_of(
        lambda m, x: (m.q(x) @ m.k(x).transpose(1, 2)).softmax(-1) @ m.v(x),
        q=nn.Linear(6, 8),
        k=nn.Linear(6, 8),
        v=nn.Linear(6, 5),
    )
    shrunk(dying(net, q=[0, 1]), torch.randn(2, 5, 6), shapes=FLAT)
    shrunk(dying(net, 0.0, q=[0, 1], k=[0, 1]), torch.randn(2, 5, 6), shapes=FLAT)


@pytest.mark.parametrize("value", [0.0, 0.5])
@pytest.mark.parametrize(
    "product", [lambda m, x: x @ m.w.t(), lambda m, x: F.linear(x, m.w)], ids=["matmul", "functional"]
)
def test_trap_14_no_bias_slot_means_no_fold(product: Callable[[Any, Tensor], Tensor], value: float) -> None:
    net = net_of(lambda m, x: product(m, m.body(x)), body=nn.Linear(6, 10), w=nn.Parameter(torch.zeros(4, 10)))
    assert left(shrunk(dying(net, value, body=[0, 1, 2]), torch.randn(2, 6), shapes=FLAT)) == (10 if value else 7)


class Standardised(nn.Conv2d):
    """BiT, NFNet: each filter is standardised before use, so every column of the weight counts."""

    def forward(self, input: Tensor) -> Tensor:
        var, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True, unbiased=False)
        weight = (self.weight - mean) * torch.rsqrt(var + 1e-5) * 0.3
        return F.conv2d(input, weight, self.bias, padding=1)


def test_trap_16_a_zero_column_of_a_standardised_weight_is_no_zero() -> None:
    net = bordered(lambda m, x: x.relu(), Standardised(12, 4, 3))
    nets.zero_(net.head.weight, [0, 1, 2], dim=1)
    assert left(shrunk(net, X)) == 12
    assert left(shrunk(dying(net, body=[0, 1, 2]), X)) == 12


class Scaled(nn.Module):
    """A size attribute that is also a run-time scale, and one behind a config that modules share."""

    def __init__(self, how: str, config: SimpleNamespace) -> None:
        super().__init__()
        self.width = 12
        self.config = config
        self.how = how
        self.body = nn.Linear(6, 12 * 3)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        width = self.config.width if self.how == "config" else self.width
        x = self.body(x).relu().view(-1, width, 3).mean(-1)
        return self.head(x / width**0.5 if self.how == "scale" else x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("how", ["size", "scale", "config"])
def test_trap_17_a_repaired_size_attribute_may_be_a_scale(how: str) -> None:
    config = SimpleNamespace(width=12)
    net = dying(nets.lively(Scaled(how, config)), -0.5, body=range(9))
    result = shrunk(net, torch.randn(2, 6), shapes=FLAT)
    assert config.width == 12
    assert result.model.config.width == 12
    if how == "size":
        assert (result.model.width, left(result)) == (9, 27)
    else:
        assert left(result) == 36
        assert "cannot run narrower" in result.plan.explain("body.weight", 0)


# structure


@pytest.mark.parametrize("aligned", [True, False])
def test_trap_18_shared_weights_over_rows_tie_their_columns(aligned: bool) -> None:
    """4 rows of 8 share a gain of 8: a column goes from all rows or from none."""
    net = net_of(
        lambda m, x: m.head((m.body(x).view(-1, 4, m.gain.shape[0]) * m.gain).flatten(1)),
        body=nn.Linear(6, 32),
        head=nn.Linear(32, 4),
        gain=nn.Parameter(torch.zeros(8)),
    )
    with torch.no_grad():
        net.gain.uniform_(0.5, 1.5)
    rows = [8 * r + (c if aligned else (c + r) % 8) for r in range(4) for c in (0, 1, 2)]
    result = shrunk(dying(net, 0.0, body=rows), torch.randn(2, 6), shapes=FLAT)
    assert left(result) == (20 if aligned else 32)


def test_trap_20_nothing_is_cut_to_zero() -> None:
    """A layer, a row of conv groups: at least one stays of each."""
    net = dying(nets.lively(nets.Grouped()), before=range(4), grouped=range(5, 10))
    result = shrunk(net, X)
    axis = result.plan.axis("grouped.weight", 1)
    assert {p // 4 for p in axis.keep} == {0, 1, 2} or result.model.grouped.groups < 3
    assert min(t.numel() for t in result.model.parameters()) > 0


def test_trap_20_a_width_of_one_is_no_squeezed_dim() -> None:
    """`squeeze()` drops every dim of size 1: of one channel, it would drop the channels."""
    net = net_of(
        lambda m, x: m.head(m.body(x).mean((2, 3), keepdim=True).squeeze()),
        body=nn.Conv2d(3, 6, 3),
        head=nn.Linear(6, 4),
    )
    result = shrunk(dying(net, body=range(1, 6)), X, shapes=((2, 0), (3, 0), (2, 4)))
    assert 1 <= left(result) <= 6
    assert result.model(X).shape == net(X).shape


def test_trap_21_lifted_constants_stay_unless_a_module_holds_them() -> None:
    """A hook's closure, a literal, a plain tensor attribute: nobody can cut what is not the model's."""
    literal = tower(lambda m, x: x * torch.linspace(0.5, 1.5, 12).reshape(1, 12, 1, 1))
    assert left(shrunk(dying(literal, 0.0, body=[0, 1]), X)) == 12
    hooked = tower(lambda m, x: x)
    scale = torch.linspace(0.5, 1.5, 12).reshape(1, 12, 1, 1)
    hooked.body.register_forward_hook(lambda m, a, out: out * scale)
    shrunk(dying(hooked, 0.0, body=[0, 1]), X)
    attribute = tower(lambda m, x: x * m.scale)
    attribute.scale = torch.linspace(0.5, 1.5, 12).reshape(1, 12, 1, 1)
    shrunk(dying(attribute, 0.0, body=[0, 1]), X)


def test_trap_22_modules_that_check_their_own_numbers() -> None:
    """`nn.MultiheadAttention` asserts its embed_dim: exact, or left whole."""
    net = net_of(
        lambda m, x: m.head(m.mix(m.body(x), m.body(x), m.body(x), need_weights=False)[0]),
        body=nn.Linear(6, 8),
        mix=nn.MultiheadAttention(8, 4, batch_first=True),
        head=nn.Linear(8, 4),
    )
    result = shrunk(dying(net, 0.0, body=[0, 1]), torch.randn(2, 5, 6), shapes=FLAT)
    assert result.model.mix.embed_dim == result.model.mix.in_proj_weight.shape[1]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_trap_23_recurrent_layers_stay_or_are_exact(kind: type[nn.Module]) -> None:
    net = net_of(lambda m, x: m.head(m.mix(m.body(x))[0]), body=nn.Linear(6, 8), mix=kind(8, 6), head=nn.Linear(6, 4))
    with torch.no_grad():
        for p in net.mix.parameters():
            p[:2] = 0
    result = shrunk(dying(net, 0.0, body=[0, 1]), torch.randn(5, 2, 6), shapes=((5, 0), (3, 0)))
    if left(result) == 8:
        assert "pinned: no rule" in result.plan.explain("body.weight", 0)


def test_trap_24_padding_channels() -> None:
    """ResNet option A: a shortcut of strided slices, padded with zero channels on both sides."""
    net = net_of(
        lambda m, x: m.head((m.b(m.a(x).relu()) + F.pad(m.a(x)[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))).relu()),
        a=nn.Conv2d(3, 8, 3, padding=1),
        b=nn.Conv2d(8, 16, 3, stride=2, padding=1),
        head=nn.Conv2d(16, 4, 1),
    )
    chosen(net, X, shapes=EVEN)
    shrunk(dying(net, a=[0, 1], b=[0, 4, 5, 13]), X, shapes=EVEN)


# proof


def test_trap_25_equality_is_promised_for_eval() -> None:
    """BatchNorm of a constant: its shift by running statistics in eval, another one in train."""
    net = nets.zero_rows_(nets.lively(nets.NormPair()), conv1=[0, 1]).train()
    result = shrunk(net, X)
    assert result.model.training
    assert left(result, "conv1.weight") < 8


def test_trap_25_live_dropout_is_refused_by_name() -> None:
    net = net_of(lambda m, x: m.head(F.dropout(m.body(x), 0.1)), body=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 4, 1))
    with pytest.raises(InputError) as refused:
        surgery.shrink(net, X)
    assert "the model draws random numbers in eval mode: aten.dropout.default at nets.py:" in str(refused.value)
    assert "pass training=self.training" in str(refused.value)


def test_trap_25_a_model_that_casts_to_float32_inside() -> None:
    """In float64 those casts are lifted, or the proof would drown in their rounding."""
    net = net_of(
        lambda m, x: m.head(m.body(x).float().relu().to(x.dtype)), body=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 4, 1)
    )
    result = surgery.shrink(dying(net, body=[0, 1]), X)
    assert result.proof is not None
    assert result.proof.passed
    assert result.proof.max_rel_error_float64 is not None
    assert result.proof.max_rel_error_float64 <= 1e-9
    assert left(result) == 6


def test_trap_25_the_proof_tries_batch_1_and_3_and_another_size() -> None:
    result = surgery.shrink(nets.zero_rows_(nets.lively(nets.PaddedPair()), conv1=[0, 1, 2]), X)
    assert result.proof is not None
    shapes = " ".join(result.proof.shapes)
    assert "batch 1 [1, 3, 8, 8]" in shapes
    assert "batch 3 [3, 3, 8, 8]" in shapes
    assert "another size" in shapes
