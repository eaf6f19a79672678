"""OpenVINO on the CPU, reading ONNX: one stream, a fixed number of threads, no precision but the one asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from surgery.errors import InputError, MissingExtraError
from surgery.inputs import Inputs
from surgery.latency.precisions import PRECISIONS
from surgery.latency.runtime import Bind, Run, Runtime, Setting

HINTS = {"bf16": "bf16", "fp16": "f16"}
"""How it calls them. Left to itself it computes float32 in bf16 where the processor has the instructions."""


def _load(path: Path, setting: Setting) -> Bind:
    try:
        import openvino
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise
        raise MissingExtraError("openvino", "openvino") from error
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(setting.threads),
        "INFERENCE_PRECISION_HINT": HINTS.get(setting.precision, "f32"),
        "ENABLE_CPU_PINNING": "NO",  # to cores of its choice, others may be at work there
    }
    compiled: Any = openvino.Core().compile_model(str(path), "CPU", settings)

    def bind(inputs: Inputs) -> Run:
        tensors = inputs.tensors()
        if len(tensors) != len(compiled.inputs):
            raise InputError(f"the graph takes {len(compiled.inputs)} inputs, the call gives {len(tensors)} tensors")
        request = compiled.create_infer_request()
        feed = {position: tensor.numpy() for position, tensor in enumerate(tensors)}

        def run() -> list[Any]:
            done = request.infer(feed, share_inputs=True, share_outputs=True)
            return [done[port] for port in compiled.outputs]

        return run

    return bind


OPENVINO = Runtime("openvino", "onnx", ("cpu",), PRECISIONS, _load, lowers=tuple(HINTS))
