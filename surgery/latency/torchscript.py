"""TorchScript: traced and frozen on disk, optimised for inference after loading."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from surgery.inputs import Inputs
from surgery.latency.precisions import FLOATS
from surgery.latency.runtime import Bind, Run, Runtime, Setting


def _load(path: Path, setting: Setting) -> Bind:
    with warnings.catch_warnings():
        # torch.jit is deprecated since torch 2.11 and says so at each call.
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded = torch.jit.load(str(path), map_location=setting.device)
        module = torch.jit.optimize_for_inference(loaded)

    def bind(inputs: Inputs) -> Run:
        tensors = inputs.tensors()
        return lambda: module(*tensors)

    return bind


TORCHSCRIPT = Runtime("torchscript", "torchscript", ("cpu", "cuda"), FLOATS, _load)
