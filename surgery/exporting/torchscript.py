"""TorchScript: traced and frozen, source paths stripped; runs in `torch.jit.load` and LibTorch."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.jit._trace import TracerWarning

from surgery.errors import InputError
from surgery.exporting.archives import without_members
from surgery.exporting.program import BATCH
from surgery.exporting.quiet import without
from surgery.exporting.shapes import named_dims
from surgery.exporting.state import KeptState
from surgery.exporting.target import PROVENANCE, Loaded, Source, Target, Written, first_line, tensors_in

DEPRECATED = tuple(
    (DeprecationWarning, rf"`torch\.jit\.{name}` is deprecated")
    for name in ("trace", "trace_method", "freeze", "save", "load")
)
"""Warned at every call since torch 2.11; told once, in `Export.notes`."""

ATTRIBUTES = (FutureWarning, "")
"""The tracer reads every attribute of every module, deprecated ones of other libraries too, which the user does not."""


def write(source: Source, path: Path) -> Written:
    """Trace and freeze `source.model` and write it to `path`.

    A trace states no shapes. What `source.shapes` promises, or a batch of any size without them, is what parity tries.

    Raises:
        InputError: The model cannot be traced.
    """
    tensors = [tensor.clone() for tensor in source.inputs.tensors()]
    buffer = io.BytesIO()
    try:
        with without(*DEPRECATED, ATTRIBUTES, (TracerWarning, "")) as held:
            # the tracer runs the model: what that changes is put back before the weights become constants
            with KeptState(source.model):
                traced = torch.jit.trace(source.model, tuple(tensors), check_trace=False)
            frozen = torch.jit.freeze(traced)
            torch.jit.save(frozen, buffer, _extra_files={PROVENANCE: json.dumps(dict(source.provenance))})
    except Exception as error:
        fact = f"{type(source.model.model).__name__} cannot be traced: {first_line(error)}"
        raise InputError(fact, "change the model's forward there, or export to ONNX") from error
    without_members(buffer, path, ".debug_pkl")  # they hold the source paths of this machine
    notes = ["TorchScript is deprecated upstream, but still loads"]
    notes += _decisions([w for w in held if issubclass(w.category, TracerWarning)])
    notes += source.told()
    return Written(named_dims(_promised(source)), notes=tuple(notes))


def _promised(source: Source) -> list[dict[int, Any]]:
    """The dims that are asked to be free, each with a name; without such a request the batch."""
    if source.shapes is None:
        return [{0: BATCH} if source.inputs.batch is not None else {} for _ in source.inputs.tensors()]
    hint = type(torch.export.Dim.DYNAMIC)  # has no name: a size of its own
    return [
        {dim: f"input {i} dim {dim}" if isinstance(size, hint) else size for dim, size in (spec or {}).items()}
        for i, spec in enumerate(source.shapes)
    ]


def _decisions(held: Sequence[warnings.WarningMessage]) -> list[str]:
    """A note on Python decisions that the trace has fixed."""
    if not held:
        return []
    first = str(held[0].message).split(". ")[0].removesuffix(" might cause the trace to be incorrect")
    plural = "" if len(held) == 1 else "s"
    return [
        f"the trace fixed {len(held)} decision{plural} of the model's Python code as the example made them ({first})"
    ]


def load(path: Path) -> Loaded:
    """Open the file as anyone would, with `torch.jit.load`."""
    with without(*DEPRECATED):
        module = torch.jit.load(str(path))

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return tensors_in(module(*[tensor.clone() for tensor in tensors]))

    return Loaded(run, tuple(argument.name for argument in module.forward.schema.arguments[1:]))


TORCHSCRIPT = Target("torchscript", "torch.jit.load", (".pt",), cpu_only=False, write=write, load=load)
