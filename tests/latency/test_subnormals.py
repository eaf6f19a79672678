from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from surgery.inputs import Inputs
from surgery.latency import benchmark
from surgery.latency.sending import receive
from surgery.latency.subjects import ModuleSubject, subjects_of

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


def test_subnormal_weights_are_named_and_timed_as_exact_zeros() -> None:
    model = decayed()
    found = benchmark({"masked": model}, torch.randn(2, 4), runtimes=("eager", "torchscript"), **BRIEF)
    assert [cell.rows[0].failure for cell in found.cells] == ["", ""]
    assert found.models[0].subnormals == 5
    assert found.notes[0].startswith("masked holds 5 subnormal weights")
    assert "timed as exact zeros" in found.notes[0]
    assert "note: masked holds 5 subnormal weights" in found.table()
    assert int((model.weight[0] != 0).sum()) == 4  # the user's own is left alone


@pytest.mark.parametrize("flush", [True, False])
def test_every_copy_that_is_timed_has_zeros_in_their_place(tmp_path: Path, flush: bool) -> None:
    x = Inputs.of(torch.randn(2, 4))
    (subject,) = subjects_of({"masked": decayed()}, x, tmp_path, trust=False, flush=flush)
    assert isinstance(subject, ModuleSubject)
    assert subject.copy is not None
    for model in (subject.model, receive(subject.copy)):
        assert int((model.get_parameter("weight")[0] != 0).sum()) == (0 if flush else 4)
        assert int((model.get_parameter("weight")[1:] != 0).sum()) == 8


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
