"""TorchScript: traced and frozen on disk, optimised for inference after loading."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from surgery.inputs import Inputs
from surgery.latency import forms
from surgery.latency.runtime import Run, Runtime


def _load(path: Path, threads: int, device: str) -> Callable[[Inputs], Run]:
    with warnings.catch_warnings():
        # torch.jit is deprecated since torch 2.11 and says so at each call.
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded = torch.jit.load(str(path), map_location=device)
        module = torch.jit.optimize_for_inference(loaded)

    def bind(inputs: Inputs) -> Run:
        tensors = inputs.tensors()
        return lambda: module(*tensors)

    return bind


TORCHSCRIPT = Runtime("torchscript", ".ts", ("cpu", "cuda"), True, forms.write_torchscript, _load)
