from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import torchvision_cpu  # noqa: F401  # before timm
from surgery.masks import bake, find_coats
from surgery.masks.standardised import CLASSES, is_standardised
from tests.exactness import shrunk

X = torch.randn(2, 6, 9, 9)


def layer(name: str, **settings: Any) -> nn.Module:
    from timm.layers import std_conv

    torch.manual_seed(0)
    made: nn.Module = getattr(std_conv, name)(6, 8, 3, **settings)
    if hasattr(made, "gain"):
        nn.init.uniform_(made.gain, 0.5, 2.0)
    return made


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"groups": 2}], ids=str)
def test_a_standardised_convolution_becomes_a_plain_one(name: str, settings: dict[str, Any]) -> None:
    net = nn.Sequential(layer(name, **settings), nn.ReLU()).eval()
    before = copy.deepcopy(net.state_dict())
    plain = bake(net)
    assert not is_standardised(plain[0])
    assert [name for name, _ in plain.named_parameters() if "gain" in name] == []
    torch.testing.assert_close(plain(X), net(X), rtol=0, atol=0)
    assert is_standardised(net[0]), "the given net was changed"
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())


def test_it_is_reported() -> None:
    net = nn.Sequential(layer("StdConv2d"))
    assert find_coats(net).by_kind == {"weight_standardisation": ("0.weight",)}


def test_a_class_that_computes_otherwise_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = layer("StdConv2d")
    monkeypatch.setattr(type(odd), "forward", lambda self, x: nn.Conv2d.forward(self, x) * 2)
    assert not is_standardised(odd)
    assert not find_coats(nn.Sequential(odd))


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = layer("ScaledStdConv2d"), nn.Conv2d(8, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(self.norm(x))))


def test_zeroed_rows_go() -> None:
    net = Stack().eval()
    with torch.no_grad():
        net.a.weight[[1, 4]] = 0
        net.a.bias[[1, 4]] = 0
    result = shrunk(net, X)
    assert result.plan.axis("a.weight").keep == (0, 2, 3, 5, 6, 7)
    assert type(result.model.a) is nn.Conv2d
