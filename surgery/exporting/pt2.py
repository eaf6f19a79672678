"""PT2: the `torch.export` program with its weights; runs in `torch.export.load`, without the model's class."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from surgery.errors import InputError
from surgery.exporting.program import KNOWN, capture, free_dims
from surgery.exporting.quiet import without, without_logs
from surgery.exporting.target import PROVENANCE, Loaded, Source, Target, Written, first_line, tensors_in


def write(source: Source, path: Path) -> Written:
    """Write `path`, without the example and without the source paths that the capture recorded.

    Raises:
        InputError: The model cannot be captured, or the captured program cannot be written.
    """
    program = capture(source)
    exported = program.exported
    without_paths_(exported)
    exported._example_inputs = None  # the user's data: it would be stored, and nothing needs it
    archive = io.BytesIO()  # straight into the file torch's writer would say of a full disk "unexpected pos"
    try:
        with without(*KNOWN), without_logs():
            torch.export.save(exported, archive, extra_files={PROVENANCE: json.dumps(dict(source.provenance))})
    except Exception as error:
        fact = f"{type(source.model.model).__name__} cannot be written as a torch.export program: {first_line(error)}"
        raise InputError(fact, "replace that operator in the model, or export to another format") from error
    path.write_bytes(archive.getbuffer())
    return Written(free_dims(exported, program.shapes), notes=(*program.notes, *source.told()))


def without_paths_(exported: torch.export.ExportedProgram) -> None:
    """Take the stack traces off every node: they hold source paths of this machine."""
    for module in exported.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)


def load(path: Path) -> Loaded:
    """Open the file as anyone would, with `torch.export.load`; its inputs may sit in containers and keywords."""
    with path.open("rb") as file, without(*KNOWN), without_logs():
        exported = torch.export.load(file)
        module = exported.module()

    def run(tensors: Sequence[Tensor]) -> list[Tensor]:
        args, kwargs = pytree.tree_unflatten([tensor.clone() for tensor in tensors], exported.call_spec.in_spec)
        with torch.no_grad():
            return tensors_in(module(*args, **kwargs))

    names = [name for name in exported.graph_signature.user_inputs if isinstance(name, str)]
    return Loaded(run, tuple(names), free_dims(exported))


PT2 = Target("pt2", "torch.export.load", (".pt2",), cpu_only=False, write=write, load=load)
