"""The runtimes by name. A new one is a file with a `Runtime` and a line in `RUNTIMES`."""

from __future__ import annotations

from surgery.errors import InputError
from surgery.latency.eager import EAGER
from surgery.latency.onnx_runtime import ONNX_RUNTIME
from surgery.latency.runtime import Runtime
from surgery.latency.torchscript import TORCHSCRIPT

RUNTIMES: dict[str, Runtime] = {r.name: r for r in (EAGER, TORCHSCRIPT, ONNX_RUNTIME)}


def runtime_named(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        InputError: There is none; the known ones are listed.
    """
    if name not in RUNTIMES:
        raise InputError(f"there is no runtime {name!r}", f"known runtimes: {', '.join(RUNTIMES)}")
    return RUNTIMES[name]
