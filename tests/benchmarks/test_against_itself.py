from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from benchmarks import against_itself
from surgery.latency.statistics import Ratio


def ratio(median: float, verdict: Any = "no difference", runtime: str = "eager") -> dict[str, Any]:
    return {"runtime": runtime, "sittings": 5, "load": [0.1, 0.2], "median": median, "verdict": verdict}


def test_the_table_counts_what_is_near_one() -> None:
    runs = [ratio(0.995), ratio(1.0101, "too noisy to say"), ratio(1.009), ratio(1.0, runtime="onnxruntime")]
    lines = against_itself.table({"conditions": {"idle": runs}, "size": 224, "machine": "here"}).splitlines()
    assert lines[2] == "| idle | eager | 3 | 2 | 0.995, 1.010 | no difference 2, too noisy to say 1 |"
    assert lines[3] == "| idle | onnxruntime | 1 | 1 | 1.000, 1.000 | no difference 1 |"
    assert lines[-1] == "ResNet-18 at 224, one thread. Measured on here."


def test_the_load_ends_with_its_condition() -> None:
    started: list[subprocess.Popen[bytes]] = []
    with pytest.MonkeyPatch.context() as patch:

        class Spied(subprocess.Popen):  # type: ignore[type-arg]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                started.append(self)

        patch.setattr(subprocess, "Popen", Spied)
        with against_itself.load(2):
            assert [process.poll() for process in started] == [None, None]
    assert all(process.returncode is not None for process in started)
    assert against_itself.conditions(1) == {"idle": 0, "one core loaded": 1}
    assert against_itself.conditions(4) == {"idle": 0, "one core loaded": 1, "all 4 cores loaded": 4}


@pytest.mark.parametrize(("verdict", "code"), [("too noisy to say", 0), ("faster", 1)])
def test_a_copy_that_is_called_faster_is_exit_code_1(
    verdict: Any, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(against_itself, "dense_net", lambda name: nn.Conv2d(3, 2, 3))
    monkeypatch.setattr(against_itself, "conditions", lambda cores: {"idle": 0})
    monkeypatch.setattr("surgery.latency.timing.WARMUP_SECONDS", 0.01)
    told = Ratio(1.0, 0.9, 1.1, verdict, "", 4)
    monkeypatch.setattr("surgery.latency.results.paired_ratio", lambda *_, **__: told)
    words = ["--runs", "1", "--size", "8", "--runtimes", "eager", "--seconds", "0", "--max-seconds", "0.01"]
    monkeypatch.setattr(sys, "argv", ["against_itself", *words, "--output", str(tmp_path / "r.json")])
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert against_itself.main() == code
    facts = json.loads((tmp_path / "r.json").read_text())
    assert [one["verdict"] for one in facts["conditions"]["idle"]] == [verdict]
