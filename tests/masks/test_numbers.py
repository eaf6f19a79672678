from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from surgery.errors import InputError
from surgery.masks import check_finite, count_subnormals, flush_subnormals_


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def test_subnormals_are_counted_in_each_dtypes_own_terms() -> None:
    model = net()
    model.register_buffer("halves", torch.tensor([1e-5, 1.0, 0.0], dtype=torch.float16))
    model.register_buffer("doubles", torch.tensor([1e-40, 1.0], dtype=torch.float64))
    model.register_buffer("pairs", torch.tensor([1e-40 + 1j, 1e-40 + 1e-40j]))
    model.register_buffer("float8", torch.tensor([1e-2, 1.0]).to(torch.float8_e4m3fn))
    with torch.no_grad():
        model[0].weight[1] = -1e-40
        model[0].weight[0] = 0
        model[0].weight[2] = torch.finfo(torch.float32).tiny
    assert count_subnormals(model) == {"0.weight": 4, "halves": 1, "pairs": 3, "float8": 1}
    assert count_subnormals(net()) == {}


def test_flush_makes_them_zero_and_nothing_else() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[1] = 1e-40
        model.register_buffer("pairs", torch.tensor([1e-40 + 1j]))
        model.register_buffer("float8", torch.tensor([1e-2, 1.0]).to(torch.float8_e4m3fn))
    expected = model[0].weight.detach().clone()
    expected[1] = 0
    assert flush_subnormals_(model) == {"0.weight": 4, "pairs": 1, "float8": 1}
    assert_close(model[0].weight.detach(), expected, rtol=0, atol=0)
    assert model.pairs.tolist() == [1j]
    assert model.float8.float().tolist() == [0, 1]
    assert count_subnormals(model) == {}


def test_a_finite_model_passes() -> None:
    check_finite(net())
    check_finite(nn.Linear(2, 2, device="meta"))


def test_finite_numbers_whose_sum_is_not_are_finite() -> None:
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, torch.finfo(torch.float32).max)
    assert not model.weight.sum().isfinite()
    check_finite(model)


def test_infinities_are_at_home_in_a_mask() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("causal", torch.full((2, 2), -torch.inf).triu(1))
    check_finite(model)
    model.causal[1, 0] = torch.nan
    with pytest.raises(InputError, match=r"causal \(1 NaN, 1 Inf\)"):
        check_finite(model)


def test_nan_and_inf_are_named() -> None:
    model = net()
    with torch.no_grad():
        model[0].weight[0, :2] = torch.nan
        model[0].weight[1, 0] = -torch.inf
        model[1].running_var[1:] = torch.inf
    with pytest.raises(InputError) as caught:
        check_finite(model)
    assert str(caught.value) == (
        "2 tensors hold NaN or Inf: 0.weight (2 NaN, 1 Inf), 1.running_var (2 Inf)\n"
        "  -> take a checkpoint from before the training diverged: no function can be kept that is not a number"
    )


def test_many_are_counted() -> None:
    model = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(7))
    for layer in model:
        nn.init.constant_(layer.weight, torch.nan)
    with pytest.raises(InputError, match=r"^7 tensors .*4\.weight \(1 NaN\) and 2 more"):
        check_finite(model)
