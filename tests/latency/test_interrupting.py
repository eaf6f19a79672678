from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surgery.latency import Interrupted, benchmark
from surgery.latency.protocol import FOLDER_PREFIX
from surgery.latency.remaining import Remaining, _words
from surgery.latency.results import Settings

BRIEF: dict[str, Any] = {"min_pairs": 4, "min_seconds": 0.0, "max_seconds": 0.05}


class Presses(nn.Linear):
    """Ctrl-C in the parent, when it is asked for a batch of 3 elsewhere."""

    def __init__(self) -> None:
        super().__init__(3, 3)
        self.home = os.getpid()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 3 and os.getpid() != self.home:
            os.kill(self.home, signal.SIGINT)
            signal.pause()
        return super().forward(x)


@pytest.fixture
def interruptible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("surgery.latency.timing.WARMUP_SECONDS", 0.01)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    yield tmp_path
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_keeps_what_was_measured(interruptible: Path) -> None:
    """The runtime before, and the batch before within the process that was ended."""
    with pytest.raises(Interrupted) as caught:
        benchmark(
            {"a": Presses()}, torch.randn(2, 3), runtimes=("torchscript", "eager", "pt2"), batch_sizes=(1, 3), **BRIEF
        )
    found = caught.value.benchmark
    done = [(cell.runtime, cell.batch) for cell in found.cells]
    assert done == [("torchscript", 1), ("torchscript", 3), ("eager", 1)]
    assert all(len(cell.rows[0].latency_ms) >= 4 for cell in found.cells)
    assert found.interrupted
    assert "note: interrupted; what had been measured until then is shown" in found.table()
    assert not list(interruptible.glob(f"{FOLDER_PREFIX}*"))


def test_the_time_left_is_told_by_the_settings_then_by_what_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 100.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    settings = Settings(("a", "b"), (1, 2), None, ("cpu",), 50, 3.0, 30.0, 0)
    remaining = Remaining(4, 2, 3, settings)
    assert remaining.told() == " 1 of 4 (36 s to 4 min left)"
    remaining.one_done()
    assert remaining.told() == " 2 of 4 (about 5 min left)"
    assert [_words(seconds) for seconds in (5.4, 89.0, 5400.0)] == ["5 s", "89 s", "1.5 h"]
