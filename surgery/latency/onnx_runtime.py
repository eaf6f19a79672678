"""ONNX Runtime: every graph optimisation, a fixed number of threads, none of them spinning; on a GPU bound in place.

On a GPU the inputs and outputs stay there (I/O binding): what is timed is the model, not the copies to and fro.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.latency.precisions import INT8, OWN
from surgery.latency.runtime import Bind, Run, Runtime, Setting

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

PRECISIONS = ("float32", "float64", "fp16", OWN, INT8)
"""There are hardly any kernels for bf16, and Python has no arrays of it."""


def session(path: Path, threads: int, providers: Sequence[Any] = (CPU,)) -> Any:
    """An `onnxruntime.InferenceSession` set up for a fair comparison.

    Raises:
        InputError: onnxruntime is not installed, or has not the provider that was asked for.
    """
    try:
        ort: Any = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise InputError("the package 'onnxruntime' is not installed", "pip install onnxruntime") from error
    wanted = providers[0] if isinstance(providers[0], str) else providers[0][0]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors only: warnings about the graph are not for the person who reads times
    # A spinning thread takes the core from whatever else runs, the other model of the pair included.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if wanted not in ort.get_available_providers():
        raise InputError(
            f"onnxruntime {ort.__version__} has no {wanted} (only {', '.join(ort.get_available_providers())})",
            "pip install 'surgery[tensorrt]'" if wanted == TENSORRT else "pip install onnxruntime-gpu alone",
        )
    opened = ort.InferenceSession(str(path), options, providers=list(providers))
    if opened.get_providers()[0] != wanted:  # it falls back to the CPU, and says so in its log only
        raise InputError(f"onnxruntime could not start {wanted}", "see whether its CUDA libraries are installed")
    return opened


def _load(path: Path, setting: Setting) -> Bind:
    device = torch.device(setting.device)
    if device.type == "cpu":
        return _fed(session(path, setting.threads))
    return bound_in_place(session(path, setting.threads, [_cuda(device), CPU]), device)


def _load_tensorrt(path: Path, setting: Setting) -> Bind:
    device = torch.device(setting.device)
    own = {"device_id": str(device.index or 0), "trt_fp16_enable": str(setting.precision == "fp16")}
    own |= {"trt_int8_enable": str(setting.precision == INT8)}
    providers = [(TENSORRT, own), _cuda(device), CPU]
    return bound_in_place(session(path, setting.threads, providers), device)


def _cuda(device: torch.device) -> tuple[str, dict[str, str]]:
    return CUDA, {"device_id": str(device.index or 0)}


def _fed(opened: Any) -> Bind:
    names = _names(opened)

    def bind(inputs: Inputs) -> Run:
        feed = {name: tensor.numpy() for name, tensor in zip(names(inputs), inputs.tensors(), strict=True)}
        return lambda: opened.run(None, feed)

    return bind


def bound_in_place(opened: Any, device: torch.device) -> Bind:
    """A session that reads its inputs where they lie and leaves its outputs on the device."""
    names = _names(opened)
    place = (device.type, device.index or 0)

    def bind(inputs: Inputs) -> Run:
        binding = opened.io_binding()
        tensors = [tensor.contiguous() for tensor in inputs.tensors()]
        for name, tensor in zip(names(inputs), tensors, strict=True):
            binding.bind_input(name, *place, _numpy_dtype(tensor), tuple(tensor.shape), tensor.data_ptr())
        for output in opened.get_outputs():
            binding.bind_output(output.name, *place)

        def run() -> Bound:
            opened.run_with_iobinding(binding)
            return Bound(binding, tensors)

        return run

    return bind


class Bound:
    """Outputs that lie on the device; `arrays` copies them to the CPU. It keeps the inputs alive."""

    def __init__(self, binding: Any, tensors: Sequence[Tensor]) -> None:
        self._binding, self._tensors = binding, tensors

    def arrays(self) -> list[np.ndarray[Any, Any]]:
        """The outputs as arrays on the CPU."""
        return list(self._binding.copy_outputs_to_cpu())


def _numpy_dtype(tensor: Tensor) -> Any:
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype


def _names(opened: Any) -> Callable[[Inputs], list[str]]:
    """The names of the graph's inputs for a call that gives as many tensors."""
    found = [value.name for value in opened.get_inputs()]

    def names(inputs: Inputs) -> list[str]:
        if (given := len(inputs.tensors())) != len(found):
            raise InputError(f"the ONNX graph takes {len(found)} inputs, the call gives {given} tensors")
        return found

    return names


ONNX_RUNTIME = Runtime("onnxruntime", "onnx", ("cpu", "cuda"), PRECISIONS, _load)
TENSORRT_RUNTIME = Runtime("tensorrt", "onnx", ("cuda",), PRECISIONS, _load_tensorrt, lowers=("fp16",), compiles=True)
