from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import surgery
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.targeting.clock import Place, time_beside

CALL = Inputs.of(torch.randn(4, 16))


def net(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 2)).eval()


def test_models_are_timed_beside_the_dense_one_by_the_benchmark() -> None:
    found = time_beside(net(64), {"half": net(32), "same": net(64)}, CALL, Place("eager"), 4, (0.0, 0.1), ("half",))
    assert set(found) == {"half", "same"}
    for reading in found.values():
        assert 0 < reading.low <= reading.share <= reading.high
        assert reading.ms > 0
        assert reading.dense_ms > 0


class Refused(nn.Module):
    """Its op has no counterpart in ONNX."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x @ x.mT)


def test_a_dense_model_that_the_runtime_refuses_is_an_error_with_the_reason() -> None:
    with pytest.raises(InputError, match=r"the dense model cannot be timed in onnxruntime, 1 thread, cpu, batch 4: "):
        time_beside(Refused(), {}, CALL, Place("onnxruntime"), 4, (0.0, 0.1))


def test_a_slim_model_that_is_needed_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the slim model cannot be timed"):
        time_beside(net(8), {"slim": Refused()}, CALL, Place("onnxruntime"), 4, (0.0, 0.1), ("slim",))


@pytest.mark.slow
def test_a_latency_is_found_with_the_real_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SURGERY_CACHE_DIR", str(tmp_path))
    layers = [nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 28 * 28, 5)]
    model, image = nn.Sequential(*layers).eval(), torch.randn(1, 3, 32, 32)
    plan = surgery.choose(model, image, latency=0.6, runtime="onnxruntime")
    assert plan.aim is not None
    assert plan.aim.tried >= 1
    assert 0 < plan.aim.low <= plan.aim.share <= plan.aim.high
    assert plan.removed_channels > 0
    assert len(list((tmp_path / "latency").glob("*.json"))) == 1
    assert surgery.verify(plan.mask(model), plan.apply(model), image).passed


def test_places() -> None:
    assert Place.of(net(2), "onnxruntime", 2) == Place("onnxruntime", 2, "cpu")
    with pytest.raises(InputError, match="abacus"):
        Place.of(net(2), "abacus", 1)
    with pytest.raises(InputError, match="threads is True"):
        Place.of(net(2), "eager", True)
