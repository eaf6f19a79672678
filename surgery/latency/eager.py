"""PyTorch itself: eager, eager with channels last, compiled by `torch.compile`, and recorded as a CUDA graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.latency.precisions import FLOATS
from surgery.latency.runtime import Bind, Run, Runtime, Setting
from surgery.latency.sending import receive
from surgery.proof.resting import rest_

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Memory formats by number of dims."""

CAPTURE_WARM_UP = 3
"""Runs on a side stream before a CUDA graph is captured, as PyTorch's documentation does it."""


def bind(model: nn.Module, inputs: Inputs) -> Run:
    """The model's own call on these inputs."""
    args, kwargs = inputs.args, dict(inputs.kwargs)
    return lambda: model(*args, **kwargs)


def _module(path: Path, setting: Setting) -> nn.Module:
    model: nn.Module = rest_(receive(path, setting.device))
    return model


def _load(path: Path, setting: Setting) -> Bind:
    model = _module(path, setting)
    return lambda inputs: bind(model, inputs)


def _load_channels_last(path: Path, setting: Setting) -> Bind:
    model = _module(path, setting)
    for parameter in (*model.parameters(), *model.buffers()):
        if (form := CHANNELS_LAST.get(parameter.dim())) is not None:
            parameter.data = parameter.data.contiguous(memory_format=form)
    return lambda inputs: bind(model, inputs)


def _last(inputs: Inputs) -> Inputs:
    """Images and volumes with their channels last in memory."""
    if not any(tensor.dim() in CHANNELS_LAST for tensor in inputs.tensors()):
        raise InputError("no input has 4 or 5 dims, so there are no channels to put last", "leave channels_last out")

    def laid_out(tensor: Tensor) -> Tensor:
        form = CHANNELS_LAST.get(tensor.dim())
        return tensor if form is None else tensor.contiguous(memory_format=form)

    return inputs.map(laid_out)


def _load_compiled(path: Path, setting: Setting) -> Bind:
    model = _module(path, setting)
    compiled: Any = torch.compile(model, dynamic=False)
    return lambda inputs: bind(compiled, inputs)


def _load_graph(path: Path, setting: Setting) -> Bind:
    model = _module(path, setting)

    def captured(inputs: Inputs) -> Run:
        run = bind(model, inputs)
        side: Any = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.inference_mode():
            for _ in range(CAPTURE_WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), torch.inference_mode():
            output = run()

        def replay() -> Any:
            graph.replay()
            return output

        return replay

    return captured


BOTH = ("cpu", "cuda")

EAGER = Runtime("eager", None, BOTH, FLOATS, _load)
LAST = Runtime("channels_last", None, BOTH, FLOATS, _load_channels_last, arrange=_last)
COMPILE = Runtime("compile", None, BOTH, FLOATS, _load_compiled, compiles=True)
CUDA_GRAPHS = Runtime("cudagraphs", None, ("cuda",), FLOATS, _load_graph)
