"""A model that was run for a comparison is found as it was left."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from surgery.proof.resting import RandomOps, resting


class Restless(nn.Module):
    """A forward that changes everything it can."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("state", torch.zeros(3))
        self.plain = torch.zeros(3)
        self.calls = 0
        self.seen: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(self.training or torch.is_grad_enabled())
        self.count.data.add_(1)  # past the version counter
        self.state = self.state + x.mean(0)
        self.plain += 1
        self.calls += 1
        self.cache = x
        y: Tensor = self.norm(x) + self.state + self.plain
        return y


def test_each_run_starts_from_the_same_state_and_leaves_none_behind() -> None:
    model = Restless().train()
    model.norm.eval()
    state = model.state
    x = torch.randn(4, 3)
    with resting(model) as reset:
        first = model(x)
        assert not torch.equal(model(x), first)
        reset()
        torch.testing.assert_close(model(x), first, rtol=0, atol=0)
    assert model.seen == [False] * 3
    assert model.state is state
    assert (model.count.item(), model.plain.sum().item(), model.calls) == (0, 0, 0)
    assert not hasattr(model, "cache")
    assert model.training
    assert not model.norm.training
    assert torch.is_grad_enabled()


def test_the_state_is_brought_back_after_an_error() -> None:
    model = Restless()

    def stopped() -> None:
        with resting(model):
            model(torch.randn(4, 3))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stopped()
    assert model.calls == 0
    assert model.norm.training


def test_modules_of_torch_export_and_torchscript_rest_too() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    x = torch.randn(4, 3)
    captured = torch.export.export(net.eval(), (x,)).module()
    with resting(captured):
        torch.testing.assert_close(captured(x), net(x))
    scripted = torch.jit.script(nn.Sequential(nn.BatchNorm1d(3)).train())
    with resting(scripted):
        scripted(x)
        assert not scripted.training
    assert scripted.training
    assert scripted[0].num_batches_tracked == 0


def test_random_ops_are_collected_by_name() -> None:
    with RandomOps() as drawn:
        torch.rand(2)
    assert drawn.names == {"aten.rand"}
    assert drawn.certain
    q = torch.zeros(1, 1, 2, 2)
    with RandomOps() as drawn, torch.no_grad():
        nn.functional.scaled_dot_product_attention(q, q, q)
    assert not drawn.certain
