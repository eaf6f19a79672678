"""`surgery.prune`, end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import surgery
from surgery.errors import InputError
from tests.nets import lively
from tests.quantizing.nets import Convnet, pictures


def test_chosen_compensated_and_cut(tmp_path: Path) -> None:
    model, data = lively(Convnet()), pictures(80)
    labels = torch.zeros(80)
    loader = list(zip(data.split(16), labels.split(16), strict=True))
    result = surgery.prune(model, data[:2], data=loader, keep_ratio=0.5, round_to=4)
    assert result.proof is not None
    assert result.proof.passed
    assert type(result.model) is Convnet
    assert result.model.stem.out_channels % 4 == 0
    assert result.params_after < 0.5 * result.params_before
    assert result.plan.removed_channels == result.chosen.removed_channels
    with torch.no_grad():
        plain = result.chosen.apply(model, data[:2])
        dense = model(data)
        lost, left = ((net(data) - dense).norm() for net in (plain, result.model))
    assert left < lost
    assert "least squares" in str(result)
    surgery.save(result, tmp_path / "slim")
    again = surgery.load(tmp_path / "slim", Convnet())
    torch.testing.assert_close(again.eval()(data), result.model(data))


def test_biases_that_the_ladder_made_are_there_after_loading(tmp_path: Path) -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, 5))

    x, data = torch.randn(8, 20), [torch.randn(32, 20) for _ in range(6)]
    result = surgery.prune(make(), x, data=data, keep_ratio=0.5)
    assert "2.bias" in result.plan.made
    surgery.save(result, tmp_path / "slim")
    again = surgery.load(tmp_path / "slim", make())
    torch.testing.assert_close(again.eval()(x), result.model.eval()(x), rtol=0, atol=0)
    with torch.device("meta"):
        empty = make()
    torch.testing.assert_close(surgery.load(tmp_path / "slim", empty).eval()(x), result.model(x), rtol=0, atol=0)


def test_without_data_it_is_choose_and_shrink() -> None:
    model, data = lively(Convnet()), pictures(4)
    result = surgery.prune(model, data, keep_ratio=0.6)
    expected = surgery.choose(model, data, keep_ratio=0.6).apply(model, data)
    torch.testing.assert_close(result.model(data), expected(data))
    assert "no data" in str(result)


def test_what_is_dead_already_does_not_spoil_a_rounded_width() -> None:
    model, x = lively(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))), torch.randn(32, 6)
    with torch.no_grad():
        model[0].weight[3] *= 100  # important by its norm, and read by nobody
        model[2].weight[:, 3] = 0
    assert surgery.prune(model, x, keep_ratio=0.5, round_to=4).model[0].out_features == 8


def test_parameter_hooks_survive() -> None:
    model, data = lively(Convnet()), pictures(8)
    model.head.bias.register_hook(lambda grad: grad * 0 + 7)
    slim = surgery.prune(model, data, data=data).model
    slim(data).sum().backward()
    assert torch.equal(slim.head.bias.grad, torch.full((4,), 7.0))


def test_what_choose_refuses_is_refused_before_any_data_is_read() -> None:
    def data() -> list[torch.Tensor]:
        raise AssertionError("read too early")

    with pytest.raises(InputError, match="keep_ratio is 2"):
        surgery.prune(nn.Linear(4, 4), torch.randn(2, 4), data=map(data, [1]), keep_ratio=2)


def test_a_generator_serves_the_importance_and_the_ladder() -> None:
    model, data = lively(Convnet()), pictures(80)
    labels = torch.arange(80) % 4
    batches = list(zip(data.split(16), labels.split(16), strict=True))
    settings: dict[str, object] = {"importance": "taylor", "loss": nn.functional.cross_entropy, "samples": 40}
    once = surgery.prune(model, data[:2], data=iter(batches), **settings)
    again = surgery.prune(model, data[:2], data=batches, **settings)
    assert once.compensated.fitted + once.compensated.held_out == 40
    assert once.chosen == again.chosen
    assert once.compensated.as_dict() == again.compensated.as_dict()


def test_what_is_no_data_is_refused_before_anything_is_run() -> None:
    class Silent(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("run too early")

    with pytest.raises(InputError, match="the data is a str"):
        surgery.prune(Silent(4, 4), torch.randn(2, 4), data="loader")


@pytest.mark.parametrize("share", [0.9, 0.7, 0.45])
def test_biases_that_the_ladder_makes_count_towards_the_budget(share):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 24, bias=False), nn.ReLU(), nn.Linear(24, 24, bias=False), nn.ReLU(), nn.Linear(24, 3)
    )
    data = [torch.randn(32, 6) for _ in range(4)]
    result = surgery.prune(net, data[0], data=data, params=share)
    assert any(layer.bias is not None for layer in (result.model[0], result.model[2]))
    assert result.params_before == sum(parameter.numel() for parameter in net.parameters())
    assert 0.85 * share < result.params_after / result.params_before <= share
