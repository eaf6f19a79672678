from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from surgery.latency.clocks import Clocks, parsed, read_clocks

SAID = "1755, 1980, 2619, 41, 312.50, 0x0000000000000000\n"


def test_the_line_of_nvidia_smi_is_read() -> None:
    assert parsed(SAID) == Clocks(1755, 1980, 2619, 41, 312.5, False)
    assert str(parsed(SAID)) == "1755 of 1980 MHz, 41 °C, 312 W"


@pytest.mark.parametrize(
    ("reasons", "throttled"),
    [("0x0000000000000001", False), ("0x0000000000000020", True), ("0x0000000000000004", False), ("0x48", True)],
)
def test_only_what_holds_a_gpu_back_is_throttling(reasons: str, throttled: bool) -> None:
    found = parsed(SAID.replace("0x0000000000000000", reasons))
    assert found is not None
    assert found.throttled is throttled
    assert str(found).endswith(", throttled") is throttled


def test_what_is_not_told_is_none() -> None:
    found = parsed(SAID.replace("312.50", "[N/A]"))
    assert found is not None
    assert (found.power_w, str(found)) == (None, "1755 of 1980 MHz, 41 °C")
    assert parsed("no devices were found") is None
    assert parsed(SAID.replace("1755", "[N/A]")) is None


def test_the_gpu_is_asked_by_its_own_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES renames the devices of torch, not those of nvidia-smi."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        asked.append(command)
        return SimpleNamespace(stdout=SAID)

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"id-of-{index}"))
    monkeypatch.setattr(subprocess, "run", run)
    assert read_clocks("cuda:1") == parsed(SAID)
    assert "--id=GPU-id-of-1" in asked[0]
    assert read_clocks("cpu") is None


def test_without_nvidia_smi_there_are_no_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="x"))
    monkeypatch.setattr(subprocess, "run", run)
    assert read_clocks("cuda") is None
