"""The benchmark of masked, slim and int8: what it measures and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import surgery
from benchmarks import quantized
from surgery.latency import Benchmark, Cell, Row
from surgery.latency.machine import this_machine
from surgery.latency.results import Settings
from tests.quantizing.nets import convnet, pictures


def timed(**latency_ms: float) -> dict[str, Any]:
    """A benchmark in which every sample of a model is the same."""
    rows = tuple(Row(name, (ms,) * 4, (ms,) * 4) for name, ms in latency_ms.items())
    settings = Settings(("onnxruntime",), (1,), (8,), ("cpu",), 4, 0.0, 1.0, 0)
    cells = (Cell("onnxruntime", 1, "cpu", 8, rows),)
    loaded: dict[str, Any] = json.loads(Benchmark(this_machine(), settings, cells, 0.25, 0.5).to_json())
    return loaded


def facts(accuracy: dict[str, float]) -> dict[str, Any]:
    agreement = {"min_cosine": 0.98, "mean_cosine": 0.99, "error": 0.05, "top1": 0.97}
    share = {"quantised": 20, "total": 21}
    done = {"method": "static", "share": share, "calibrated": 96, "compared": 32, "agreement": [agreement]}
    net = {
        "net": "a",
        "bytes": {"dense": 40e6, "masked": 40e6, "slim": 20e6, "int8": 5e6},
        "accuracy": accuracy,
        "quantized": done,
        "eager": timed(dense=50.0, masked=40.0),
        "onnxruntime": timed(masked=30.0, slim=10.0, int8=4.0),
    }
    return {"nets": [net]}


def test_a_line_per_model_beside_masked_float() -> None:
    text = quantized.table(facts({}))
    assert "| a | dense, eager | 40.0 MB |  | 8 | 50.0 ms | 0.60 |" in text
    assert "| a | masked, eager | 40.0 MB | same | 8 | 40.0 ms | 0.75 |" in text
    assert "| a | masked float, ONNX Runtime | 40.0 MB | same | 8 | 30.0 ms | 1 |" in text
    assert "| a | slim float, ONNX Runtime | 20.0 MB | same | 8 | 10.0 ms | 3.00 (3.00 to 3.00) |" in text
    int8 = "| a | slim int8, ONNX Runtime | 5.0 MB | cosine 0.9900 | 8 | 4.00 ms | 7.50 (7.50 to 7.50) |"
    assert int8 in text
    assert "static, 20 of 21 convolutions and matrix products in int8, calibrated on 96 samples; on 32 others" in text
    assert "load average 0.2 to 0.5, 4 rounds or more" in text


def test_accuracy_where_there_are_labels_and_no_gain_where_there_is_none() -> None:
    known = facts({"dense": 0.99, "masked": 0.98, "slim": 0.98, "int8": 0.975})
    known["nets"][0]["onnxruntime"] = timed(masked=30.0, slim=30.0, int8=40.0)
    text = quantized.table(known)
    assert (
        "| a | slim float, ONNX Runtime | 20.0 MB | 98.0% | 8 | 30.0 ms | 1.00 (1.00 to 1.00), no difference |" in text
    )
    assert "| a | slim int8, ONNX Runtime | 5.0 MB | 97.5% | 8 | 40.0 ms | 0.75 (0.75 to 0.75) |" in text


@pytest.mark.slow
def test_it_measures_a_small_net(tmp_path: Path) -> None:
    x = pictures(40)
    dense = convnet().eval()
    masked = surgery.choose(dense, x[:1], keep_ratio=0.5).mask(dense)
    slim = surgery.shrink(masked, x[:1]).model
    labels = slim(x).argmax(1).detach()
    trio = quantized.Trio("small", dense, masked, slim, x, (x, labels), (1, 2))
    found = json.loads(json.dumps(quantized.measured(trio, seconds=0.0, max_seconds=0.1)))
    assert found["accuracy"]["slim"] == found["accuracy"]["masked"] == 1.0
    assert found["accuracy"]["int8"] > 0.8
    assert found["bytes"]["slim"] < found["bytes"]["masked"]
    assert found["quantized"]["path"] == "int8.onnx"
    assert str(tmp_path.parent.parent) not in json.dumps(found)
    lines = [line for line in quantized.table({"nets": [found]}).splitlines() if line.startswith("| small")]
    assert len(lines) == 10
    assert torch.get_num_threads() == 1
