"""How much memory this process holds, and how much it held at most meanwhile."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

RESET_PEAK = "5"
"""Written to `clear_refs`: the peak starts anew from what is held now (proc(5))."""


@dataclass
class Peak:
    """Bytes above what was held before, at the peak; None where the system does not tell."""

    bytes_above: int | None = None


@contextmanager
def peak(device: str, *, in_torch: bool) -> Iterator[Peak]:
    """Watch the memory of the device while the body runs.

    On a CPU: the resident memory of the process, its peak reset before (Linux). On a GPU: what torch's allocator
    handed out; for a runtime with an allocator of its own, how much less of the device is free afterwards.
    """
    found = Peak()
    if torch.device(device).type == "cpu":
        _trim()
        before = _reset()
        yield found
        if before is not None and (most := _status("VmHWM")) is not None:
            found.bytes_above = max(0, most - before)
        return
    torch.cuda.synchronize()
    if in_torch:
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        yield found
        found.bytes_above = max(0, torch.cuda.max_memory_allocated() - held)
        return
    free = torch.cuda.mem_get_info()[0]
    yield found
    found.bytes_above = max(0, free - torch.cuda.mem_get_info()[0])


def _reset() -> int | None:
    """Let the peak start anew; what is held now."""
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return None
    return _status("VmRSS")


def _status(name: str) -> int | None:
    """A line of the process's status, in bytes."""
    try:
        lines = STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) * 1024 if found else None


def _trim() -> None:
    """Give back what the allocator keeps for later: a second model would seem to need nothing."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):
            return  # another libc
