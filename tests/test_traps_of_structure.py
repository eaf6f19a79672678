"""Where exact surgery goes wrong, 11 to 25: borders, computed weights, structure, the proof itself."""

from __future__ import annotations

from collections.abc import Callable
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
from tests.towers import EVEN, FLAT, X, bordered, dying, left, net_of, tower

# borders and carriers


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
    result = shrunk(
        dying(bordered(lambda m, x: x, nn.Conv2d(12, 4, 3, padding=1, padding_mode=mode)), body=[0, 1, 2]), X
    )
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
    result = shrunk(net, torch.randn(2, 6), shapes=FLAT, keep_class=True)
    assert config.width == 12
    assert result.model.config.width == 12
    if how == "size":
        assert (result.model.width, left(result)) == (9, 27)
    else:
        assert left(result) == 36
        assert "cannot run narrower" in result.plan.explain("body.weight", 0)
        assert left(shrunk(net, torch.randn(2, 6), shapes=FLAT)) == 27, "the code has one number for two things"
        assert config.width == 12


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
    x = torch.randn(2, 5, 6)
    whole = shrunk(dying(net, 0.0, body=[0, 1]), x, shapes=FLAT, keep_class=True)
    assert whole.model.mix.embed_dim == whole.model.mix.in_proj_weight.shape[1] == 8
    assert shrunk(net, x, shapes=FLAT, kind="graph").model.mix.in_proj_weight.shape == (24, 6)


def test_trap_24_padding_channels() -> None:
    """ResNet option A: a shortcut of strided slices, padded with zero channels on both sides."""
    net = net_of(
        lambda m, x: m.head((m.b(m.a(x).relu()) + F.pad(m.a(x)[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))).relu()),
        a=nn.Conv2d(3, 8, 3, padding=1),
        b=nn.Conv2d(8, 16, 3, stride=2, padding=1),
        head=nn.Conv2d(16, 4, 1),
    )
    chosen(net, X, shapes=EVEN, kind="graph")
    shrunk(dying(net, a=[0, 1], b=[0, 4, 5, 13]), X, shapes=EVEN, kind="graph")
    shrunk(net, X, shapes=EVEN, keep_class=True)


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
    place = "aten.dropout.default at test_traps_of_structure.py:"
    assert f"the model draws random numbers in eval mode: {place}" in str(refused.value)
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
