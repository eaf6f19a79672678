"""How much memory a cut takes: the peak of the resident set above the loaded model, over the model's bytes.

Every figure is of a fresh process, which

1. runs the same door twice on a tiny net, so that imports and first captures do not count;
2. loads a masked net, whose weights were saved beforehand, into memory of its own (nothing mapped from the file);
3. gives what is free back to the system, reads the resident set, and sets the kernel's high-water mark back to it;
4. runs the door, and reads the high-water mark.

The doors are `surgery.shrink(prove=False)`, the same with `inplace=True`, and torch-pruning (which works in place).
Only Linux keeps such a mark.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import surgery
from benchmarks.full_size import SETTINGS, masked_net
from benchmarks.stages import peer_
from surgery.latency.machine import this_machine
from surgery.progress import stage
from surgery.proof.cost import size_bytes

ROOT = Path(__file__).resolve().parent.parent

DOORS: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "shrink": lambda net, image: surgery.shrink(net, image, prove=False),
    "shrink in place": lambda net, image: surgery.shrink(net, image, prove=False, inplace=True),
    "torch-pruning": peer_,
}
"""What is run."""


def peer_version() -> str:
    """The version of torch-pruning; its own `__version__` is behind."""
    return importlib.metadata.version("torch-pruning")


def all_weighed(names: Sequence[str], size: int, repeats: int) -> dict[str, Any]:
    """Every net through every door, `repeats` times, each printed as it is done."""
    figures = []
    with tempfile.TemporaryDirectory(prefix="surgery-memory-") as folder:
        for name in names:
            weights = Path(folder) / "masked.pt"
            with stage(f"masking {name}"):
                masked = masked_net(name, torch.randn(1, 3, size, size))
                torch.save(masked.state_dict(), weights)
                del masked
            for door in DOORS:
                with stage(f"{name}: memory of {door}"):
                    runs = [in_fresh_process(name, door, weights, size) for _ in range(repeats)]
                figures.append({"net": name, "door": door, "runs": runs})
                print(sentence(figures[-1]), flush=True)
    return {"machine": str(this_machine()), "torch_pruning": peer_version(), "size": size, "figures": figures}


def over_model(figure: dict[str, Any]) -> float:
    """The median peak over the model's bytes."""
    ratios = sorted(run["peak_bytes"] / run["model_bytes"] for run in figure["runs"])
    return float(ratios[len(ratios) // 2])


def sentence(figure: dict[str, Any]) -> str:
    """One figure in words."""
    model = figure["runs"][0]["model_bytes"]
    return f"{figure['net']} ({model / 1e6:.0f} MB), {figure['door']}: {over_model(figure):.2f} times the model"


def in_fresh_process(name: str, door: str, weights: Path, size: int) -> dict[str, int]:
    """`weigh` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", name, door, str(weights), str(size)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"the process that measures {door} on {name} failed:\n{run.stderr}")
    measured: dict[str, int] = json.loads(run.stdout.splitlines()[-1])
    return measured


def weigh(name: str, door: str, weights: Path, size: int) -> dict[str, int]:
    """Bytes of the model, and of the peak above it while it goes through the door."""
    for _ in range(2):
        DOORS[door](tiny(), torch.randn(1, 3, 32, 32))
    net = _loaded(name, weights)
    image = torch.randn(1, 3, size, size)
    gc.collect()
    _give_back()
    model_bytes, before = size_bytes(net), reset_peak()
    result = DOORS[door](net, image)  # held until the peak is read
    peak = peak_bytes() - before
    del result
    return {"model_bytes": model_bytes, "before_bytes": before, "peak_bytes": peak}


def _loaded(name: str, weights: Path) -> nn.Module:
    """The net on the meta device, then the saved tensors themselves in their places: nothing is there twice."""
    from torchvision import models

    with torch.device("meta"):
        net: nn.Module = models.get_model(name, weights=None, **SETTINGS.get(name, {}))
    net.load_state_dict(torch.load(weights, weights_only=True, mmap=False), assign=True)
    return net.eval()


def tiny() -> nn.Module:
    """One of everything that the big nets are made of, with dead channels."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    for layer in (net[0], net[4]):
        nn.init.zeros_(layer.get_parameter("weight").detach()[::2])
    return net.eval()


def _give_back() -> None:
    """Memory that Python and torch have freed goes back to the system, where the C library can do that."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> int:
    """The resident set, in bytes, to which the kernel's high-water mark comes down."""
    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    return before


def peak_bytes() -> int:
    """The high-water mark of the resident set, in bytes."""
    return _status_bytes("VmHWM")


def _status_bytes(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}: run this on Linux")


if __name__ == "__main__":
    torch.set_num_threads(1)
    NAME, DOOR, WEIGHTS, SIZE = sys.argv[1:]
    print(json.dumps(weigh(NAME, DOOR, Path(WEIGHTS), int(SIZE))))
