"""What a plan has to remember of an example call, so that the same graph can be made of a fresh model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from surgery.analysis.graph_modules import GraphModel
from surgery.analysis.graphs import Freedom, as_graph, freedom_of
from surgery.analysis.standing import hollow
from surgery.errors import PlanError
from surgery.inputs import Inputs

MOST_ELEMENTS = 2**30
"""Of an example tensor that a plan asks for: a file from outside may ask for anything."""


@dataclass(frozen=True)
class GraphSpec:
    """A model was handed back as a captured graph.

    Attributes:
        reason: Why its own code could not run narrower.
        args, kwargs: The example call as plain data: tensors by shape and dtype. None where it holds other objects.
        dims: Which sizes of the inputs are free (see `Freedom`).
        ones: Those that may be 1; None where the model had no weights to find out with.
    """

    reason: str
    args: Any
    kwargs: Any
    dims: str
    ones: tuple[tuple[int, int], ...] | None


def spec_of(whole: GraphModel, inputs: Inputs, reason: str) -> GraphSpec:
    """What to remember of a graph and the call that it was captured with."""
    freedom = freedom_of(whole)
    try:
        args, kwargs = _plain(list(inputs.args)), _plain(dict(inputs.kwargs))
    except TypeError:
        args = kwargs = None
    return GraphSpec(reason, args, kwargs, freedom.dims, None if hollow(whole) else freedom.ones)


def graph_again(model: nn.Module, spec: GraphSpec) -> GraphModel:
    """The graph of a model that the spec's was made of, or of one like it; its weights may be on the meta device.

    Raises:
        PlanError: The example call cannot be made again.
        CaptureError: The model is another.
    """
    if spec.args is None:
        raise PlanError(
            "the plan is for a captured graph, and its example call holds objects that cannot be stored",
            "call shrink on the model again, with tensors, numbers and strings only",
        )
    inputs = Inputs(tuple(_made(spec.args)), _made(spec.kwargs))
    ones = None if spec.ones is None else tuple((i, d) for i, d in spec.ones)
    return as_graph(model, inputs, Freedom(spec.dims, ones))  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return {"tensor": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, tuple):
        return {"tuple": [_plain(part) for part in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _plain(part) for key, part in value.items()}}
    raise TypeError(type(value).__name__)


def _made(plain: Any) -> Any:
    if isinstance(plain, list | tuple):
        return [_made(part) for part in plain]
    if not isinstance(plain, dict):
        return plain
    if "tensor" in plain:
        return _zeros(plain["tensor"], plain.get("dtype"))
    if "tuple" in plain:
        return tuple(_made(part) for part in plain["tuple"])
    return {key: _made(part) for key, part in plain["dict"].items()}


def _zeros(shape: Any, dtype: Any) -> Tensor:
    """An example tensor as a file describes it.

    Raises:
        PlanError: No sizes, no dtype, or more elements than any example has.
    """
    kind = getattr(torch, str(dtype), None)
    sizes = isinstance(shape, list) and all(isinstance(size, int) and size >= 0 for size in shape)
    if not sizes or not isinstance(kind, torch.dtype) or math.prod(shape) > MOST_ELEMENTS:
        raise PlanError(f"an example tensor of shape {shape} and dtype {dtype} cannot be made", "make the plan again")
    return torch.zeros(shape, dtype=kind)
