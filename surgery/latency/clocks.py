"""The clocks of a GPU while it was timed: one that is hot or saves power is slower, and says so here."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

import torch

FIELDS = "clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu", "power.draw", "clocks_throttle_reasons.active"

THROTTLED = 0x8 | 0x20 | 0x40 | 0x80
"""Bits of the reasons that mean a GPU slower than it could be: slowdown in hardware, by heat, by power."""


@dataclass(frozen=True)
class Clocks:
    """What nvidia-smi says of one GPU: clocks in MHz, degrees Celsius, watts, and whether it is held back."""

    sm_mhz: float
    max_sm_mhz: float
    memory_mhz: float
    temperature_c: float
    power_w: float | None
    throttled: bool

    def __str__(self) -> str:
        power = "" if self.power_w is None else f", {self.power_w:.0f} W"
        held = ", throttled" if self.throttled else ""
        return f"{self.sm_mhz:.0f} of {self.max_sm_mhz:.0f} MHz, {self.temperature_c:.0f} °C{power}{held}"


def read_clocks(device: str) -> Clocks | None:
    """The clocks of a CUDA device now; None on a CPU, and where nvidia-smi does not tell."""
    if torch.device(device).type != "cuda":
        return None
    try:
        uuid = torch.cuda.get_device_properties(torch.device(device).index or 0).uuid
        command = ["nvidia-smi", f"--id=GPU-{uuid}", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError, AttributeError, RuntimeError):
        return None
    return parsed(said)


def parsed(said: str) -> Clocks | None:
    """nvidia-smi's line as `Clocks`; None where it is none."""
    words = [word.strip() for word in said.strip().split(",")]
    if len(words) != len(FIELDS):
        return None
    try:
        sm, most, memory, temperature = (float(word) for word in words[:4])
        throttled = bool(int(words[5], 16) & THROTTLED)
    except ValueError:  # "[N/A]" on a virtual GPU
        return None
    try:
        power = float(words[4])
    except ValueError:
        power = None
    return Clocks(sm, most, memory, temperature, power, throttled)
