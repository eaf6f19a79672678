"""The model as a `torch.export` program: with a batch of any size where it can be, of the example's size where not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from surgery.errors import InputError
from surgery.exporting.quiet import without, without_logs
from surgery.exporting.shapes import as_dims, named_dims
from surgery.exporting.sizes import FreeDims
from surgery.exporting.state import KeptState
from surgery.exporting.target import Source, first_line

BATCH = "batch"
SEED = 20

KNOWN = (
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),  # torch's own code, about itself
    (
        UserWarning,
        r"The tensor attributes? .* (was|were) assigned during export",
    ),  # any LSTM; parity sees if it matters
    (UserWarning, r"# The axis name: .* will not be used, since it shares the same shape constraints"),  # two inputs
)
"""Warnings of a sound export."""


@dataclass(frozen=True)
class Program:
    """A captured program, the shape specs that it was captured with, and what a reader should know about them."""

    exported: torch.export.ExportedProgram
    shapes: tuple[dict[int, Any] | None, ...]
    notes: tuple[str, ...]


def capture(source: Source) -> Program:
    """Capture `source.model`; without `source.shapes`, dim 0 of every input is dynamic where the model allows it.

    Raises:
        InputError: `torch.export` cannot capture the model, or not with the shapes that were asked for.
    """
    tensors = source.inputs.tensors()
    kind = type(source.model.model).__name__
    if source.shapes is not None:
        shapes = tuple(source.shapes)
        try:
            return Program(_export(source, _at_least_two(source, shapes), shapes), shapes, ())
        except Exception as error:
            way_out = "check dynamic_shapes, or leave it out" if any(shapes) else "change the model's forward there"
            raise InputError(f"torch.export cannot capture {kind}: {first_line(error)}", way_out) from error
    static: tuple[None, ...] = (None,) * len(tensors)
    if source.inputs.batch is None:
        note = (
            "the inputs share no batch dim: the file takes the example's shapes only (dynamic_shapes= says otherwise)"
        )
    else:
        dynamic = tuple({0: BATCH} for _ in tensors)
        try:
            return Program(_export(source, _at_least_two(source, dynamic), dynamic), dynamic, ())
        except Exception as error:
            note = f"the batch size is fixed at {source.inputs.batch}, not free (torch.export: {first_line(error)})"
    try:
        return Program(_export(source, tensors, static), static, (note,))
    except Exception as error:
        fact = f"torch.export cannot capture {kind}: {first_line(error)}"
        raise InputError(fact, "change the model's forward there, or export to TorchScript") from error


def _at_least_two(source: Source, shapes: Sequence[dict[int, Any] | None]) -> list[Tensor]:
    """The example's tensors; with a batch of 2 instead of 1, which `torch.export` would take for a constant."""
    if source.inputs.batch == 1 and any(spec and 0 in spec for spec in shapes):
        doubled = source.inputs.with_batch(2, SEED)
        if doubled is not None:
            return doubled.tensors()
    return source.inputs.tensors()


def _export(
    source: Source, tensors: Sequence[Tensor], shapes: Sequence[dict[int, Any] | None]
) -> torch.export.ExportedProgram:
    copies = tuple(tensor.clone() for tensor in tensors)
    with KeptState(source.model), without(*KNOWN), without_logs():
        return torch.export.export(source.model, copies, dynamic_shapes=as_dims(shapes), strict=False)


def free_dims(
    exported: torch.export.ExportedProgram, shapes: Sequence[dict[int, Any] | None] = ()
) -> tuple[FreeDims, ...]:
    """Per input tensor, the dims that the captured program leaves free, each with its size as an expression.

    `shapes` are the specs that it was captured with: what has one name there has one size, which the program knows as
    a guard only.
    """
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes if node.op == "placeholder"}
    tensors = [values[name] for name in exported.graph_signature.user_inputs if isinstance(values.get(name), Tensor)]
    named = [*named_dims(shapes), *({} for _ in tensors[len(shapes) :])]
    return tuple(
        {d: names.get(d, size.node.expr) for d, size in enumerate(t.shape) if isinstance(size, torch.SymInt)}
        for t, names in zip(tensors, named, strict=True)
    )
