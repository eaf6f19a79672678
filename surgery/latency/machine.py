"""Where a measurement was made: a time without its machine says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Machine:
    """The processor, the system and the versions that a time depends on; `load_average` is of the last minute."""

    cpu: str
    isa: str
    cores: int
    usable_cores: int
    gpus: tuple[str, ...]
    system: str
    python: str
    torch: str
    onnxruntime: str | None
    cuda: str | None = None
    openvino: str | None = None

    @property
    def hardware(self) -> tuple[object, ...]:
        """What times on two machines must share before they may be compared."""
        return self.cpu, self.isa, self.cores, self.usable_cores, self.gpus

    def __str__(self) -> str:
        more = "".join(f", {n} {v}" for n, v in (("CUDA", self.cuda), ("openvino", self.openvino)) if v)
        parts = [
            f"{self.cpu} ({self.isa}), {self.usable_cores} of {self.cores} cores usable",
            *self.gpus,
            self.system,
            f"Python {self.python}, torch {self.torch}, onnxruntime {self.onnxruntime or 'not installed'}{more}",
        ]
        return "; ".join(parts)


def this_machine() -> Machine:
    """Describe the machine that this process runs on."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return Machine(
        cpu=_cpu_model(),
        isa=torch.backends.cpu.get_cpu_capability(),
        cores=cores,
        usable_cores=usable,
        gpus=tuple(torch.cuda.get_device_name(index) for index in gpus),
        system=platform.platform(),
        python=platform.python_version(),
        torch=str(torch.__version__),
        onnxruntime=_version("onnxruntime") or _version("onnxruntime-gpu"),
        cuda=torch.version.cuda,
        openvino=_version("openvino"),
    )


def load_average() -> float | None:
    """Processes that wanted a core, averaged over the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
