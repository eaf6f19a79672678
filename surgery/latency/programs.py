"""Programs of `torch.export`: run as they are (pt2), or compiled ahead of time (aoti)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from surgery.exporting.aoti import LOGGED
from surgery.exporting.program import KNOWN
from surgery.exporting.quiet import without, without_logs
from surgery.inputs import Inputs
from surgery.latency.precisions import FLOATS, PRECISIONS
from surgery.latency.runtime import Bind, Run, Runtime, Setting


def _load_program(path: Path, setting: Setting) -> Bind:
    with path.open("rb") as file, without(*KNOWN), without_logs():
        exported = torch.export.load(file)
        module = exported.module().to(setting.device)

    def bind(inputs: Inputs) -> Run:
        args, kwargs = pytree.tree_unflatten(inputs.tensors(), exported.call_spec.in_spec)
        return lambda: module(*args, **kwargs)

    return bind


def _load_package(path: Path, setting: Setting) -> Bind:
    with without_logs(LOGGED):
        package: Any = torch._inductor.aoti_load_package(str(path))

    def bind(inputs: Inputs) -> Run:
        tensors = inputs.tensors()
        return lambda: package(*tensors)

    return bind


def _contiguous(inputs: Inputs) -> Inputs:
    """As a package takes its inputs; it does not check them."""
    return inputs.map(torch.Tensor.contiguous)


PT2 = Runtime("pt2", "pt2", ("cpu", "cuda"), FLOATS, _load_program)
AOTI = Runtime("aoti", "aoti", ("cpu", "cuda"), PRECISIONS, _load_package, arrange=_contiguous)
