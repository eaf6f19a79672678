from __future__ import annotations

import pytest
import torch
from torch import nn

from surgery.analysis.capture import capture
from surgery.errors import CaptureError
from surgery.inputs import Inputs

X = torch.randn(2, 4)


def ops(model: nn.Module, x: torch.Tensor = X) -> list[str]:
    return [str(n.target) for n in capture(model, Inputs.of(x)).nodes if n.op == "call_function"]


def test_high_level_ops_stay_whole() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    assert ops(model) == ["aten.linear.default", "aten.layer_norm.default"]


def test_training_flags_come_back() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout()).train()
    model[0].eval()
    capture(model, Inputs.of(X))
    assert (model.training, model[0].training, model[1].training) == (True, False, True)


class Written(nn.Module):
    """Writes through a view of what is read later."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        y[:, :2].add_(1)
        return y


def test_writes_through_a_view_are_made_functional() -> None:
    found = ops(Written())
    assert "aten.slice_scatter.default" in found
    assert not any(op.split(".")[1].endswith("_") for op in found)


def test_an_op_in_place_whose_result_is_used_is_left_as_it_is() -> None:
    assert ops(nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True))) == ["aten.linear.default", "aten.relu_.default"]


def test_tied_tensors_share_one_name() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    program = capture(model, Inputs.of(X))
    assert program.aliases["0.weight"] == ("0.weight", "1.weight")
    assert "1.weight" not in program.tensors


def test_a_buffer_that_is_written_is_known() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 3)
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            self.seen.add_(y.sum(0))
            return y + self.seen

    assert capture(Counting(), Inputs.of(X)).mutated == {"seen"}


def test_wrong_inputs_and_uncapturable_models_are_told_apart() -> None:
    with pytest.raises(CaptureError, match=r"Linear does not accept the example inputs \(\(2, 5\)\)"):
        capture(nn.Linear(4, 3), Inputs.of(torch.randn(2, 5)))

    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(CaptureError, match=r"torch\.export cannot capture Branching"):
        capture(Branching(), Inputs.of(X))


def test_places_name_the_module_and_the_line_of_the_users_code() -> None:
    model = Written()
    program = capture(model, Inputs.of(X))
    linear = next(n.name for n in program.nodes if "linear" in str(n.target))
    add = next(n.name for n in program.nodes if "add" in str(n.target))
    assert program.where(linear) == "a"
    assert program.where(add).startswith("test_capture.py:")
