from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import prune

from surgery.latency.subnormals import count_subnormals


def test_subnormals_are_counted_and_zeros_and_small_normals_are_not() -> None:
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight[0] = torch.tensor([1e-40, -1e-40, 0.0, 2e-38])
        model.weight[1] = torch.tensor([1.0, -1.0, 1.2e-38, 1e-44])
    assert count_subnormals(model) == 3


def test_buffers_count_once_and_integers_not_at_all() -> None:
    norm = nn.BatchNorm1d(3)
    assert norm.running_var is not None
    norm.running_var.fill_(1e-39)
    assert count_subnormals(nn.Sequential(norm, norm)) == 3


def test_what_a_mask_hides_does_not_count() -> None:
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.fill_(1e-40)
    prune.custom_from_mask(model, "weight", torch.tensor([[1.0] * 4, [0.0] * 4]))
    assert count_subnormals(model) == 4


def test_half_precision_has_its_own_limit() -> None:
    model = nn.Linear(2, 1, bias=False).half()
    with torch.no_grad():
        model.weight[0] = torch.tensor([1e-5, 1e-3])
    assert count_subnormals(model) == 1
