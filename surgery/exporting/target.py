"""What an export format is: how it is written, and how its own runtime runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from surgery.exporting.flat import FlatModel
from surgery.exporting.sizes import FreeDims
from surgery.inputs import Inputs

PROVENANCE = "surgery.json"
"""Name of the extra file, in archives that have such, that says where a file comes from."""

Runner = Callable[[Sequence[Tensor]], list[Tensor]]
"""A loaded file: its input tensors in order, to its output tensors in order, on the CPU."""


@dataclass(frozen=True)
class Loaded:
    """A file in its own runtime.

    Attributes:
        run: Its input tensors, in its own order, to its output tensors.
        input_names: The names of its inputs, in its own order; empty where the file has none.
        dynamic: Per input tensor the dims that the file says are free; None where the file does not tell.
    """

    run: Runner
    input_names: tuple[str, ...] = ()
    dynamic: tuple[FreeDims, ...] | None = None


@dataclass(frozen=True)
class Source:
    """All that a target needs in order to write its file.

    Attributes:
        model: The eval copy, tensors in and tensors out.
        inputs: The example inputs, on the copy's device.
        shapes: One `torch.export` spec per input tensor, `{dim: name}` or None; None as a whole for a dynamic batch
            where the inputs share one.
        provenance: Plain strings that go into the file: tool, version, torch, source.
        changed_buffers: Names of buffers that the model's forward changes.
    """

    model: FlatModel
    inputs: Inputs
    shapes: Sequence[Any] | None
    provenance: Mapping[str, str]
    changed_buffers: tuple[str, ...]

    def told(self) -> tuple[str, ...]:
        """Notes for every format whose file returns plain tensors and keeps its buffers between runs."""
        notes = []
        if len(self.model.output_names) > 1:
            notes.append(f"it returns a tuple: {', '.join(self.model.output_names)}")
        if self.changed_buffers:
            notes.append(f"the model changes its buffer {self.changed_buffers[0]!r} in forward; so may the loaded file")
        return tuple(notes)


@dataclass(frozen=True)
class Written:
    """What a target says about the file that it wrote.

    Attributes:
        dynamic: Per input tensor, the dims that are promised to work in other sizes than the example's, with the size
            of each as an expression.
        opset: The opset found in the file, for ONNX.
        notes: What a reader should know.
    """

    dynamic: tuple[FreeDims, ...]
    opset: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """One export format.

    Attributes:
        name: What the user passes as `format`.
        runtime: What the parity check runs, in words.
        suffixes: Endings of a path that choose this format.
        cpu_only: The parity runtime has no other device: the copy is moved to the CPU first.
        write: Writes the file; raises `InputError` where the model cannot take this form.
        load: Opens the file in its own runtime.
    """

    name: str
    runtime: str
    suffixes: tuple[str, ...]
    cpu_only: bool
    write: Callable[[Source, Path], Written]
    load: Callable[[Path], Loaded]


def tensors_in(output: Any) -> list[Tensor]:
    """Every tensor of what a loaded file returned, in order, on the CPU."""
    return [leaf.detach().cpu() for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def first_line(error: BaseException) -> str:
    """The first line that says something, of an error of another library; of TorchScript's tracebacks, the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    said = lines[-1] if "failed in the TorchScript interpreter" in lines[0] else lines[0]
    return said.partition(" For more information")[0]
