"""ONNX Runtime on the CPU: every graph optimisation, a fixed number of threads, none of them spinning."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.latency import forms
from surgery.latency.runtime import Run, Runtime


def session(path: Path, threads: int) -> Any:
    """An `onnxruntime.InferenceSession` set up for a fair comparison.

    Raises:
        InputError: onnxruntime is not installed.
    """
    try:
        ort: Any = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise InputError("the package 'onnxruntime' is not installed", "pip install onnxruntime") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3  # errors only: warnings about the graph are not for the person who reads times
    # A spinning thread takes the core from whatever else runs, the other model of the pair included.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _load(path: Path, threads: int, device: str) -> Callable[[Inputs], Run]:
    loaded = session(path, threads)
    names = [value.name for value in loaded.get_inputs()]

    def bind(inputs: Inputs) -> Run:
        tensors = inputs.tensors()
        if len(tensors) != len(names):
            raise InputError(f"the ONNX graph takes {len(names)} inputs, the call gives {len(tensors)} tensors")
        feed = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return lambda: loaded.run(None, feed)

    return bind


ONNX_RUNTIME = Runtime("onnxruntime", ".onnx", ("cpu",), True, forms.write_onnx, _load)
