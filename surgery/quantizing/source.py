"""What is to be quantised, as a float file: the user's own, or one that is exported and checked here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from surgery.errors import InputError
from surgery.exporting import export
from surgery.exporting.flat import FlatModel
from surgery.exporting.result import Parity
from surgery.inputs import Example, Inputs
from surgery.proof.cost import size_bytes
from surgery.quantizing.data import feed_of
from surgery.quantizing.float_file import Feed, FloatFile, require_room


@dataclass(frozen=True)
class Source:
    """The float file, how a call of it is made from the example, and what was found while it was made."""

    file: FloatFile
    names: tuple[str, ...]
    example: Inputs | None
    parity: Parity | None = None
    notes: tuple[str, ...] = ()

    def feed(self, inputs: Inputs) -> Feed:
        """The file's inputs for one call of the model."""
        given = dict(zip(self.names, inputs.tensors(), strict=True))
        return feed_of(given, "the example", self.names, self.file.slots)


def source_of(
    model: nn.Module | str | os.PathLike[str],
    folder: Path,
    example_inputs: Example | None,
    example_kwargs: Mapping[str, Any] | None,
    dynamic_shapes: Any,
) -> Source:
    """The model as a float file in `folder`, or where it lies.

    Raises:
        InputError: There is no example where one is needed, or the model or file cannot be used.
        CheckError: The export disagrees with the model.
    """
    given = example_inputs is not None or bool(example_kwargs)
    example = Inputs.of(() if example_inputs is None else example_inputs, example_kwargs) if given else None
    if isinstance(model, nn.Module):
        if example is None:
            raise InputError(
                "a module needs example inputs to be exported", "pass example_inputs, as to surgery.export"
            )
        require_room(size_bytes(model))
        done = export(model, folder / "float.onnx", example.args, example.kwargs, dynamic_shapes=dynamic_shapes)
        names = tuple(FlatModel(model, example).input_names)
        return Source(FloatFile.open(done.path), names, example, done.parity, done.notes)
    if not isinstance(model, str | os.PathLike):
        raise InputError(f"the model is a {type(model).__name__}", "pass an nn.Module, or the path of an .onnx file")
    if dynamic_shapes is not None:
        raise InputError("dynamic_shapes is for modules: a file has its shapes", "leave it out")
    file = FloatFile.open(Path(model))
    slots = [slot.name for slot in file.slots]
    if example is None:
        return Source(file, tuple(slots), None)
    by_place = len(example.tensors()) - len(Inputs((), example.kwargs).tensors())
    if by_place > len(slots):
        raise InputError(f"the example has {by_place} tensors, the file takes {', '.join(slots)}", "give one for each")
    return Source(file, (*slots[:by_place], *example.kwargs), example)
