"""A model on the meta device is captured as it would be with its weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.analysis.capture import capture
from surgery.errors import CaptureError
from surgery.inputs import Inputs


class Making(nn.Module):
    """Code that makes tensors where its weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x)) * torch.ones(6, device=self.a.weight.device)
        y: Tensor = self.b(x)
        return y


@pytest.mark.parametrize(("make", "x"), [(Making, torch.ones(2, 4)), (lambda: nn.Linear(4, 2), torch.ones(2, 4))])
def test_the_same_program(make: Callable[[], nn.Module], x: Tensor) -> None:
    real = capture(make(), Inputs.of(x))
    with torch.device("meta"):
        model = make()
    hollow = capture(model, Inputs.of(x))
    assert [str(node.target) for node in hollow.calls] == [str(node.target) for node in real.calls]
    assert all(tensor.is_meta for tensor in hollow.tensors.values())
    assert [parameter.device.type for parameter in model.parameters()] == ["meta"] * len(list(model.parameters()))
    said, expected = surgery.analyze(model, x), surgery.analyze(make(), x)
    assert [(g.name, g.channels, g.free) for g in said.groups] == [
        (g.name, g.channels, g.free) for g in expected.groups
    ]
    assert said.dead is None


def test_inputs_that_do_not_fit_are_told_of() -> None:
    with torch.device("meta"):
        model = Making()
    with pytest.raises(CaptureError, match="does not accept the example inputs"):
        surgery.analyze(model, torch.ones(2, 5))
