from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from surgery.latency import memory
from surgery.latency.memory import peak

LARGE = 200_000_000
linux = pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")


@linux
def test_the_peak_counts_what_was_given_back_meanwhile() -> None:
    with peak("cpu", in_torch=True) as found:
        held = torch.ones(LARGE // 4)
        del held
    assert found.bytes_above is not None
    assert 0.9 * LARGE < found.bytes_above < 1.3 * LARGE


@linux
def test_what_was_held_before_does_not_count() -> None:
    held = torch.ones(LARGE // 4)
    with peak("cpu", in_torch=True) as found:
        small = torch.ones(1000)
    assert found.bytes_above is not None
    assert found.bytes_above < 0.2 * LARGE
    del held, small


def test_a_system_that_does_not_tell_gives_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "missing" / "clear_refs")
    with peak("cpu", in_torch=True) as found:
        pass
    assert found.bytes_above is None


@pytest.mark.parametrize(("in_torch", "above"), [(True, 700), (False, 500)])
def test_on_a_gpu_the_allocator_is_asked_or_the_device(
    in_torch: bool, above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([10_000, 9_500])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 300)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 1000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (next(free), 20_000))
    with peak("cuda", in_torch=in_torch) as found:
        pass
    assert found.bytes_above == above
