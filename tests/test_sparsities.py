"""What `surgery.sparsity` counts, held against tensors whose zeros were put there one by one."""

from __future__ import annotations

import zlib

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import surgery
from surgery.errors import InputError
from tests.exactness import fingerprint


def filled(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) + 0.5


def holed() -> nn.Conv2d:
    """[6, 4, 3, 3]: one row, two columns and five single zeros."""
    layer = nn.Conv2d(4, 6, 3)
    with torch.no_grad():
        layer.weight.copy_(filled(6, 4, 3, 3))
        layer.bias.copy_(filled(6))
        layer.weight[2] = 0
        layer.weight[:, 1:3] = 0
        layer.weight[0, 0, 0, :] = 0
        layer.weight[5, 3, 1, :2] = 0
        layer.bias[2] = 0
    return layer


def test_zeros_are_counted_by_where_they_lie() -> None:
    weight, bias = surgery.sparsity(holed()).tensors
    assert (weight.zero_rows, weight.zero_columns, weight.scattered) == (1, 2, 5)
    assert weight.zeros == 4 * 9 + 5 * 2 * 9 + 5
    assert weight.share == weight.zeros / 216
    assert (bias.zeros, bias.zero_rows, bias.zero_columns, bias.scattered) == (1, 1, 0, 0)


def test_bytes_are_those_of_the_values() -> None:
    layer = holed()
    weight, bias = (found := surgery.sparsity(layer)).tensors
    assert (weight.dense_bytes, bias.dense_bytes) == (216 * 4, 6 * 4)
    assert weight.packed_bytes == 27 + (216 - weight.zeros) * 4
    assert weight.compressed_bytes == len(zlib.compress(layer.weight.detach().numpy().tobytes(), 6))
    assert found.compressed_bytes == weight.compressed_bytes + (bias.compressed_bytes or 0)
    half = surgery.sparsity(holed().half()).tensors[0]
    assert (half.dense_bytes, half.packed_bytes, half.zeros) == (216 * 2, 27 + (216 - half.zeros) * 2, weight.zeros)
    assert surgery.sparsity(layer, compress=False).compressed_bytes is None


def test_a_tensor_in_pieces_is_counted_as_a_whole() -> None:
    big = nn.Linear(1500, 1100, bias=False)
    with torch.no_grad():
        big.weight.copy_(filled(1100, 1500))
        big.weight[[0, 1099]] = 0
        big.weight[:, 7] = 0
        big.weight[5, 8] = -0.0
    weight = surgery.sparsity(big).tensors[0]
    assert (weight.zero_rows, weight.zero_columns, weight.scattered) == (2, 1, 1)
    assert weight.compressed_bytes == len(zlib.compress(big.weight.detach().numpy().tobytes(), 6))


def test_masks_are_looked_through_and_stay() -> None:
    net = nn.Sequential(nn.Linear(8, 8), parametrizations.weight_norm(nn.Linear(8, 4)))
    prune.random_unstructured(net[0], "weight", 20)
    net(torch.ones(1, 8))  # `weight` is no leaf now
    before = fingerprint(net)
    found = surgery.sparsity(net)
    assert fingerprint(net) == before
    by_name = {tensor.name: tensor for tensor in found.tensors}
    assert set(by_name) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert by_name["0.weight"].zeros == 20
    assert found.size == 64 + 8 + 32 + 4


def test_tied_weights_count_once() -> None:
    net = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
    net[1].weight = net[0].weight
    assert surgery.sparsity(net).size == 36


def test_half_of_half_a_net() -> None:
    net = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 30, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(filled(10, 10))
        net[1].weight.copy_(filled(30, 10))
        net[0].weight.fill_diagonal_(0)
    found = surgery.sparsity(net)
    assert (found.share, found.zeros, found.scattered) == (10 / 400, 10, 10)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    layer = holed()
    with torch.no_grad():
        layer.weight[0, 0, 0, 0] = value
    with pytest.raises(InputError, match=r"weight \(1 (NaN|Inf)\)"):
        surgery.sparsity(layer)


def test_a_model_without_values_is_refused() -> None:
    with pytest.raises(InputError, match="weight is on the meta device") as raised:
        surgery.sparsity(nn.Linear(3, 3, device="meta"))
    assert "load the weights" in str(raised.value)


def test_it_prints_what_zeros_are_worth() -> None:
    text = str(surgery.sparsity(holed()))
    row = next(line for line in text.splitlines() if line.strip().startswith("weight"))
    assert row.split()[:7] == ["weight", "6x4x3x3", "131", "60.6%", "1/6", "2/4", "5"]
    assert "make no model faster" in text
    assert "surgery.analyze" in text
    assert str(surgery.sparsity(nn.Embedding.from_pretrained(filled(3, 2), freeze=False))) == (
        "no zeros among 6 values of 1 parameters"
    )
    many = nn.Sequential(*(holed() for _ in range(25)))
    assert "and 10 more parameters with fewer zeros" in str(surgery.sparsity(many, compress=False))


@pytest.mark.parametrize(("amount", "said"), [(0.15, False), (0.6, True)])
def test_shrink_says_what_scattered_zeros_are_worth(amount: float, said: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
    for layer in (net[0], net[2]):
        prune.random_unstructured(layer, "weight", amount)
    result = surgery.shrink(net, torch.randn(2, 16))
    assert any("% of what is left are zeros" in note for note in result.notes) == said


def test_rows_that_went_are_not_left() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
    prune.ln_structured(net[0], "weight", 0.5, n=2, dim=0)
    prune.ln_structured(net[2], "weight", 0.5, n=2, dim=0)  # outputs stay, in whole rows
    result = surgery.shrink(net, torch.randn(2, 16))
    assert result.model[0].out_features == 16
    assert not any("of what is left" in note for note in result.notes)
