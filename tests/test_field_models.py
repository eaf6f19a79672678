"""Shapes of models that other tools stumble over: called twice, several inputs and outputs, in place, unused parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import surgery
from tests import nets
from tests.exactness import chosen, parameters, shrunk

X = nets.image(3, 8)


def test_a_module_called_twice() -> None:
    _, slim = chosen(nets.lively(nets.Twice()), X)
    assert slim.stem.out_channels == 4
    assert slim.inner[0].out_channels <= 6


def test_a_module_called_twice_on_different_constants_takes_no_fold() -> None:
    """The two calls would want different biases: the channel stays, and says so."""
    net = nets.Lambda(
        lambda m, x: m.head(m.twice(m.stem(x).relu()) * m.twice(m.stem(x).sigmoid())),
        stem=nn.Conv2d(3, 8, 1),
        twice=nn.Conv2d(8, 6, 1),
        head=nn.Conv2d(6, 4, 1),
    )
    nets.zero_rows_(nets.lively(net), stem=[0, 1])
    with torch.no_grad():
        net.stem.bias[:2] = 0.5
    result = shrunk(net, X)
    assert result.model.stem.out_channels == 8
    assert "differently" in result.plan.explain("stem.weight", 0)


def test_unused_parameters_are_left_alone_and_named() -> None:
    net = nets.lively(nets.Unused())
    assert surgery.analyze(net, X).unused == ("auxiliary.weight", "auxiliary.bias")
    _, slim = chosen(net, X)
    assert slim.conv1.out_channels in (4, 5)
    assert torch.equal(slim.auxiliary.weight, net.auxiliary.weight)


def test_a_channel_that_reaches_two_outputs() -> None:
    """Through two heads it can go; handed out itself, it stays."""
    net = nets.zero_rows_(nets.lively(nets.TwoOutputs()), mid=[0, 1], body=[2, 3, 4])
    with torch.no_grad():
        net.body.bias[2:5] = -1
    result = shrunk(net, X)
    assert result.model.body.out_channels == 7
    assert result.model.mid.out_channels == 9
    assert "it is an output of the model" in result.plan.explain("mid.weight", 0)


def test_dataclass_outputs_and_two_inputs() -> None:
    example = (X, torch.randn(2, 2, 8, 8))
    net = nets.lively(nets.TwoInputs())
    _, slim = chosen(net, example)
    assert isinstance(slim(*example), nets.Answer)
    assert parameters(slim) < 0.55 * parameters(net)
    assert not slim._forward_hooks


def test_keyword_inputs() -> None:
    net = nets.lively(nets.TwoInputs())
    y = torch.randn(2, 2, 8, 8)
    plan = surgery.choose(net, X, {"y": y})
    result = surgery.shrink(plan.mask(net), X, {"y": y})
    assert result.proof is not None
    assert result.proof.passed
    assert result.params_after < 0.55 * result.params_before


def test_dict_outputs() -> None:
    net = nets.Lambda(
        lambda m, x: {"deep": (m.head(m.body(x).relu()), [m.other(m.body(x))])},
        body=nn.Conv2d(3, 8, 3, padding=1),
        head=nn.Conv2d(8, 4, 1),
        other=nn.Conv2d(8, 2, 1),
    )
    nets.lively(net)
    nets.zero_rows_(net, body=[0, 1])
    with torch.no_grad():
        net.body.bias[:2] = 0
    result = shrunk(net, X)
    assert result.model.body.out_channels == 6
    assert set(result.model(X)) == {"deep"}


def test_in_place_ops_and_dropout() -> None:
    net = nets.lively(nets.InPlace())
    _, slim = chosen(net, X)
    assert slim.conv1.out_channels in (4, 5)
    assert slim.conv1.out_channels == slim.conv2.out_channels == slim.head.in_channels
    assert slim.drop.p == 0.3


class Reshaped(nn.Module):
    """Batch size taken from the input, as it should be, and a flatten of channels and space."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8 * 6 * 6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        return self.fc(x.view(x.size(0), -1))  # type: ignore[no-any-return]


def test_flattened_space_before_a_linear_layer() -> None:
    """Each channel is 36 columns of the Linear; the batch size is not baked in."""
    net: Any = nets.lively(Reshaped())
    _, slim = chosen(net, X, shapes=((1, 0), (3, 0), (5, 0)))
    assert slim.fc.in_features == 4 * 36
    assert parameters(slim) == 4 * 28 + (4 * 36 + 1) * 5
