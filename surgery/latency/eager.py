"""PyTorch eager: the module itself, with its hooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from surgery.inputs import Inputs
from surgery.latency import forms
from surgery.latency.runtime import Run, Runtime
from surgery.latency.sending import receive


def bind(model: nn.Module, inputs: Inputs) -> Run:
    """The model's own call on these inputs."""
    args, kwargs = inputs.args, dict(inputs.kwargs)
    return lambda: model(*args, **kwargs)


def _load(path: Path, threads: int, device: str) -> Callable[[Inputs], Run]:
    model: nn.Module = forms.eval_(receive(path, device))
    return lambda inputs: bind(model, inputs)


EAGER = Runtime("eager", ".eager", ("cpu", "cuda"), False, forms.write_eager, _load)
