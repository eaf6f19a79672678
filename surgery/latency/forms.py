"""The three forms in which a model is timed, as files: eager, TorchScript and ONNX. The only place that writes them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from surgery.inputs import Inputs
from surgery.latency.sending import send


class Flat(nn.Module):
    """`model` as a function of its tensors alone: other inputs are fixed, and the outputs are a tuple of tensors.

    It lets dict and dataclass outputs and keyword inputs pass through a trace, and puts the tensors of the call in
    one known order. Nothing of it is left in the traced graph.
    """

    def __init__(self, model: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.model = model
        self._leaves, self._structure = pytree.tree_flatten((inputs.args, dict(inputs.kwargs)))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The model's output tensors for the tensors of one call."""
        fed = iter(tensors)
        leaves = [next(fed) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._structure)
        return tuple(output_tensors(self.model(*args, **kwargs)))


def output_tensors(output: Any) -> list[Tensor]:
    """Every tensor of a model's output, in order: tuples, dicts, dataclasses and arrays of other runtimes."""
    tensors = []
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, Tensor):
            tensors.append(leaf)
        elif isinstance(leaf, np.ndarray):
            tensors.append(torch.from_numpy(leaf))
        elif dataclasses.is_dataclass(leaf):
            tensors += output_tensors([getattr(leaf, field.name) for field in dataclasses.fields(leaf)])
    return tensors


def eval_(model: nn.Module) -> nn.Module:
    """Put `model` into eval mode, captured graphs included, whose own `eval` refuses. Returns it."""
    try:
        return model.eval()
    except NotImplementedError:
        for module in model.modules():
            module.training = False
        return model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` into eval mode while the body runs, and give every module its own flag back."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        eval_(model)
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def write_eager(model: nn.Module, inputs: Inputs, path: Path) -> None:
    """The module itself, hooks and all, at any batch size."""
    send(model, path)


def write_torchscript(model: nn.Module, inputs: Inputs, path: Path) -> None:
    """Trace and freeze at these inputs. `optimize_for_inference` belongs after loading: its result cannot be saved."""
    with _writing(model):
        trace: Any = torch.jit.trace
        traced = trace(eval_(Flat(model, inputs)), tuple(inputs.tensors()), check_trace=False, strict=False)
        torch.jit.freeze(traced).save(str(path))


def write_onnx(model: nn.Module, inputs: Inputs, path: Path) -> None:
    """Export at exactly these shapes; weights beside the file, so that no size is too large."""
    with _writing(model):
        torch.onnx.export(eval_(Flat(model, inputs)), tuple(inputs.tensors()), path, dynamo=True, verbose=False)


@contextmanager
def _writing(model: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients, and no warnings.

    What the exporters warn of is their own deprecation (`torch.jit` since 2.11, `LeafSpec`), the baked shapes, which
    are wanted here, and tensor attributes that pruning hooks assign. Whether the file is right is not left to
    warnings: its outputs are compared before it is timed.
    """
    with evaluating(model), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
