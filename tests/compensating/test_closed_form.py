"""What a rung must reach where the answer is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.compensating import Compensated, compensate


def dropping(axis: str, gone: list[int]) -> Callable[[nn.Module], dict[str, Tensor]]:
    """An importance that finds some channels of one axis least important."""

    def scores(model: nn.Module) -> dict[str, Tensor]:
        found = torch.ones(model.get_parameter(axis).shape[0])
        found[gone] = 0
        return {axis: found}

    return scores


def ladder(net: nn.Module, data: Any, gone: list[int], *rungs: str) -> Compensated:
    """The given channels of the first layer go; nothing else."""
    keep = 1 - len(gone) / net.get_parameter("0.weight").shape[0]
    plan = surgery.choose(net, data[:2], keep_ratio=keep, importance=dropping("0.weight", gone))
    alone = [axis for axis in plan.axes if axis.removed and axis.name == "0.weight"]
    assert [p for axis in alone for p in range(axis.size) if p not in axis.keep] == gone
    return compensate(net, plan, data[:2], data=data, rungs=rungs)


class Product(nn.Module):
    """`x @ w + b`, with the weight the other way round."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(i, o))
        self.added = nn.Parameter(torch.randn(o))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.added, x.reshape(-1, x.shape[-1]), self.weight).reshape(*x.shape[:-1], -1)


def doubled(
    first: nn.Module, second: nn.Module, shape: tuple[int, ...], groups: int = 1
) -> tuple[nn.Module, list[int]]:
    """The second half of the first layer's channels, within each conv group, is twice the first half."""
    net = nn.Sequential(first, nn.ReLU(), second, nn.Flatten()).eval()
    width = 8 // groups
    gone = [g * width + width // 2 + j for g in range(groups) for j in range(width // 2)]
    kept = [position - width // 2 for position in gone]
    with torch.no_grad():
        for tensor in first.parameters():
            tensor[gone] = 2 * tensor[kept]
    return net, gone


CONSUMERS = {
    "linear": (lambda: nn.Linear(5, 8), lambda: nn.Linear(8, 3), (5,), 1),
    "linear over positions": (lambda: nn.Linear(5, 8), lambda: nn.Linear(8, 3, bias=False), (4, 5), 1),
    "addmm": (lambda: nn.Linear(5, 8), lambda: Product(8, 3), (5,), 1),
    "conv": (lambda: nn.Conv2d(3, 8, 1, bias=False), lambda: nn.Conv2d(8, 5, 3), (3, 7, 6), 1),
    "padding, stride": (lambda: nn.Conv2d(3, 8, 1, bias=False), lambda: nn.Conv2d(8, 5, 3, 2, 1), (3, 7, 6), 1),
    "uneven padding": (
        lambda: nn.Conv2d(3, 8, 1, bias=False),
        lambda: nn.Conv2d(8, 5, (4, 3), padding="same"),
        (3, 7, 6),
        1,
    ),
    "dilation": (
        lambda: nn.Conv2d(3, 8, 1, bias=False),
        lambda: nn.Conv2d(8, 5, (3, 2), (1, 2), (2, 0), (2, 1)),
        (3, 7, 6),
        1,
    ),
    "groups": (lambda: nn.Conv2d(3, 8, 1, bias=False), lambda: nn.Conv2d(8, 6, 3, 1, 1, groups=2), (3, 7, 6), 2),
    "conv1d": (lambda: nn.Conv1d(3, 8, 1), lambda: nn.Conv1d(8, 5, 3, 2), (3, 9), 1),
    "conv3d": (lambda: nn.Conv3d(2, 8, 1, bias=False), lambda: nn.Conv3d(8, 2, 2, padding=1), (2, 3, 4, 3), 1),
    "transposed": (
        lambda: nn.Conv2d(3, 8, 1, bias=False),
        lambda: nn.ConvTranspose2d(8, 5, (3, 2), (2, 1), (1, 0), (1, 0), dilation=(1, 2)),
        (3, 4, 5),
        1,
    ),
    "transposed groups": (
        lambda: nn.Conv2d(3, 8, 1, bias=False),
        lambda: nn.ConvTranspose2d(8, 6, 3, 2, groups=2),
        (3, 4, 5),
        2,
    ),
}


@pytest.mark.parametrize("kind", CONSUMERS)
def test_channels_that_are_multiples_of_others_are_compensated_to_rounding(kind: str) -> None:
    first, second, shape, groups = CONSUMERS[kind]
    net, gone = doubled(first(), second(), shape, groups)
    data = torch.randn(64, *shape)
    found = ladder(net, data, gone, "lstsq")
    fold, lstsq = (rung.error for rung in found.ladder)
    assert fold is not None
    assert lstsq is not None
    assert fold > 0.1
    assert lstsq < 2e-5
    slim = surgery.shrink(found.model, data[:2])
    assert slim.proof is not None
    assert slim.proof.passed
    assert slim.plan.removed_channels == len(gone)
    torch.testing.assert_close(slim.model(data), net(data), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.plan.apply(found.model, data[:2])(data), slim.model(data), rtol=1e-4, atol=1e-4)


def test_a_channel_that_is_constant_on_the_data_goes_into_the_bias() -> None:
    """The fold knows what it is without its weights, the data what it is with them."""
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).eval()
    data = torch.randn(40, 3)
    data[:, 0] = 3.0
    with torch.no_grad():
        net[0].weight[:2] = torch.tensor([2.0, 0, 0])
    found = ladder(net, data, [0, 1], "bias")
    fold, bias = (rung.error for rung in found.ladder)
    assert fold is not None
    assert bias is not None
    assert fold > 0.1
    assert bias < 1e-6


def test_the_bias_takes_up_the_mean_of_what_goes() -> None:
    """By hand, on the rows that are not held back; what the masked channels still send is taken off."""
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    data, gone = torch.randn(64, 5), [1, 4, 6]
    plan = surgery.choose(net, data[:2], keep_ratio=5 / 8, importance=dropping("0.weight", gone))
    found = compensate(net, plan, data[:2], data=list(data.split(16)), rungs=("bias",))
    fit = data[:48]
    with torch.no_grad():
        removed = net[1](net[0](fit))[:, gone].mean(0) - net[0].bias[gone].relu()
        expected = net[2].bias + net[2].weight[:, gone] @ removed
    torch.testing.assert_close(found.model.get_parameter("2.bias"), expected)
    assert torch.equal(found.model.get_parameter("2.weight"), net[2].weight)


def test_the_bias_of_a_padded_convolution_takes_up_the_mean_over_all_positions() -> None:
    net = nn.Sequential(nn.Conv2d(2, 6, 1, bias=False), nn.ReLU(), nn.Conv2d(6, 3, 3, 2, 1, bias=False)).eval()
    data = torch.randn(16, 2, 5, 5)
    plan = surgery.choose(net, data, keep_ratio=0.5, importance=dropping("0.weight", [0, 2, 3]))
    found = compensate(net, plan, data, data=list(data.split(4)), rungs=("bias",))
    assert any("2.bias" in note for note in found.ladder[1].notes)
    with torch.no_grad():
        seen = net[:2](data[:12]).clone()
        seen[:, [1, 4, 5]] = 0
        expected = net[2](seen).mean((0, 2, 3))
    torch.testing.assert_close(found.model.get_parameter("2.bias"), expected)
    slim = found.plan.apply(found.model, data)
    torch.testing.assert_close(slim(data), found.model(data), rtol=1e-4, atol=1e-5)


def test_batchnorm_statistics_are_those_of_the_data() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)).train()
    data = torch.randn(32, 3, 9, 9)
    for _ in range(30):
        net(data)
    net.eval()
    gone = [0, 3, 5]
    plan = surgery.choose(net, data[:2], keep_ratio=5 / 8, importance=dropping("0.weight", gone))
    found = compensate(net, plan, data[:2], data=list(data.split(8)), rungs=("batchnorm",))
    assert found.ladder[-1].taken
    kept = [1, 2, 4, 6, 7]
    fit = data[:24]
    masked = plan.mask(net)
    with torch.no_grad():
        first = masked[0](fit)
        torch.testing.assert_close(found.model[1].running_mean[kept], first.mean((0, 2, 3))[kept])
        torch.testing.assert_close(found.model[1].running_var[kept], first.var((0, 2, 3))[kept])
        assert torch.equal(found.model[1].running_mean[gone], net[1].running_mean[gone])
        second = found.model[:4](fit)
    torch.testing.assert_close(found.model[4].running_mean, second.mean((0, 2, 3)))
    torch.testing.assert_close(found.model[4].running_var, second.var((0, 2, 3)))
