from __future__ import annotations

import pytest
import torch
from torch import nn

import surgery
from surgery.errors import InputError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 8, 1)
        self.b = nn.Conv2d(8, 6, 1)
        self.norm = nn.LayerNorm(6)
        self.aside = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.b(torch.relu(self.a(x))).mean((2, 3)))


X = torch.randn(2, 3, 4, 4)


def test_groups_pins_and_shares() -> None:
    analysis = surgery.analyze(Net(), X)
    by_name = {group.name: group for group in analysis.groups}
    assert by_name["a.weight"].channels == by_name["b.weight"].channels == 8 or by_name["a.weight"].channels == 3
    assert sum(group.free for group in analysis.groups) == 8
    assert any("layer_norm averages over this axis" in pin.reason and pin.where == "norm" for pin in analysis.pinned)
    assert analysis.unused == ("aside.weight", "aside.bias")
    assert analysis.dead == 0
    # everything but b's bias, the norm and what is not read
    total = sum(p.numel() for p in Net().parameters())
    assert analysis.removable_share == pytest.approx((8 * 3 + 8 + 6 * 8) / total)


def test_dead_and_stranded_are_none_on_a_meta_model() -> None:
    with torch.device("meta"):
        model = Net()
    analysis = surgery.analyze(model, torch.empty(2, 3, 4, 4, device="meta"))
    assert analysis.dead is None
    assert analysis.stranded is None
    assert sum(group.free for group in analysis.groups) == 8


def test_dead_and_stranded_are_told() -> None:
    model = Net()
    with torch.no_grad():
        model.a.weight[:3] = 0
        model.b.weight[:2] = 0
    analysis = surgery.analyze(model, X)
    assert analysis.dead == 3
    assert analysis.stranded is not None
    (stranded,) = analysis.stranded
    assert stranded.stranded == 2
    assert "layer_norm averages over this axis" in stranded.blockers[0][0]
    assert "b.weight: 2 of 6 channels are stranded" in str(analysis)
    assert "aligning the masks does not help 2, pinned" in str(analysis)
    assert analysis.aligning is None


def test_an_op_without_a_rule_is_reported_and_pins() -> None:
    class Odd(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.linalg.inv(self.a(x)).mean((2, 3))[:, :6]

    analysis = surgery.analyze(Odd(), X)
    assert list(analysis.unruled_ops) == ["aten.linalg_inv.default"]
    assert any(pin.reason == "no rule for aten.linalg_inv.default" for pin in analysis.pinned)


def test_a_model_without_parameters_is_refused() -> None:
    with pytest.raises(InputError, match="ReLU has no parameters"):
        surgery.analyze(nn.ReLU(), X)


def test_nan_weights_are_refused() -> None:
    model = Net()
    with torch.no_grad():
        model.a.weight[0] = float("nan")
    with pytest.raises(InputError, match=r"a\.weight"):
        surgery.analyze(model, X)
