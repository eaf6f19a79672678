from __future__ import annotations

import subprocess
import threading
from typing import Any

import pytest
import torch
from torch import nn

from surgery.latency import benchmark

BRIEF: dict[str, Any] = {"min_pairs": 4, "min_seconds": 0.0, "max_seconds": 0.05}


@pytest.fixture(autouse=True)
def brief_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surgery.latency.timing.WARMUP_SECONDS", 0.01)


def decayed() -> nn.Linear:
    """One output of three that a penalty has driven almost to zero."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.weight[0], model.bias[0] = 1e-40, 1e-40
    return model


class Flushed(nn.Module):
    """Says how many subnormal weights the process that times it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = decayed()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weight = self.inner.weight
        small = ((weight != 0) & (weight.abs() < torch.finfo(weight.dtype).tiny)).sum()
        return self.inner(x), small


def test_subnormal_weights_are_named_and_timed_as_exact_zeros() -> None:
    model, x = Flushed(), torch.randn(2, 4)
    found = benchmark({"masked": model}, x, runtimes=("eager", "torchscript"), **BRIEF)
    # parity with the flushed copy, whose second output counts them, is what shows that they are zero there
    assert [cell.rows[0].failure for cell in found.cells] == ["", ""]
    assert found.models[0].subnormals == 5
    assert found.notes[0].startswith("masked holds 5 subnormal weights")
    assert "timed as exact zeros" in found.notes[0]
    assert "note: masked holds 5 subnormal weights" in found.table()
    assert int((model.inner.weight[0] != 0).sum()) == 4  # the user's own is left alone


def test_they_are_timed_as_they_are_on_request() -> None:
    found = benchmark({"masked": decayed()}, torch.randn(2, 4), runtimes="eager", flush_subnormals=False, **BRIEF)
    assert "was timed with them" in found.notes[0]
    assert found.models[0].subnormals == 5


def test_a_model_that_cannot_be_copied_keeps_them_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(subprocess, "Popen")
    model = decayed()
    model.held = threading.Lock()  # type: ignore[assignment]
    found = benchmark({"masked": model}, torch.randn(2, 4), runtimes="eager", **BRIEF)
    assert "was timed with them" in found.notes[0]
