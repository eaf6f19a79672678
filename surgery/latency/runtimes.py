"""The runtimes by name. A new one is a file with a `Runtime` and a line in `RUNTIMES`."""

from __future__ import annotations

from surgery.errors import InputError
from surgery.latency.eager import COMPILE, CUDA_GRAPHS, EAGER, LAST
from surgery.latency.onnx_runtime import ONNX_RUNTIME, TENSORRT_RUNTIME
from surgery.latency.openvino import OPENVINO
from surgery.latency.programs import AOTI, PT2
from surgery.latency.runtime import Runtime
from surgery.latency.torchscript import TORCHSCRIPT

USUAL = (EAGER, TORCHSCRIPT, ONNX_RUNTIME)
"""What modules are timed in where nobody says otherwise."""

RUNTIMES: dict[str, Runtime] = {
    r.name: r for r in (*USUAL, LAST, COMPILE, PT2, AOTI, OPENVINO, CUDA_GRAPHS, TENSORRT_RUNTIME)
}

OF_FORMAT = {"onnx": ONNX_RUNTIME, "torchscript": TORCHSCRIPT, "pt2": PT2, "aoti": AOTI}
"""What an exported file is timed in where nobody says otherwise."""


def runtime_named(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        InputError: There is none; the known ones are listed.
    """
    if name not in RUNTIMES:
        raise InputError(f"there is no runtime {name!r}", f"known runtimes: {', '.join(RUNTIMES)}")
    return RUNTIMES[name]
