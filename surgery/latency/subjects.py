"""What is timed: modules, of which private copies are made, and exported files, which are taken as they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from surgery.errors import InputError
from surgery.exporting.flat import input_names
from surgery.exporting.opening import Opened, open_file
from surgery.exporting.target import first_line
from surgery.inputs import Inputs
from surgery.latency.precisions import cast_, precision_of
from surgery.latency.results import Model
from surgery.latency.sending import receive, send
from surgery.masks import count_subnormals, flush_subnormals_
from surgery.proof.cost import cost, count_params, size_bytes
from surgery.proof.resting import rest_

Timed = nn.Module | str | os.PathLike[str]
"""What users name: a module, or the path of an exported file or of a directory that `surgery.save` wrote."""


@dataclass(frozen=True)
class ModuleSubject:
    """A module: a private copy of it, or the caller's own where it cannot be copied, with the reason in `unsent`.

    Attributes:
        name: The user's.
        number: Its place among all.
        model: In eval mode, subnormal weights set to zero (the caller's own is as it was).
        precision: That it has by itself.
        copy: The file that another copy can be read from.
        unsent: Why it cannot leave this process, "" where it can.
        subnormals: How many subnormal weights it has.
    """

    name: str
    number: int
    model: nn.Module
    precision: str
    copy: Path | None
    unsent: str = ""
    subnormals: int = 0

    def cast(self, precision: str) -> nn.Module:
        """The model in another precision.

        Raises:
            InputError: It cannot be copied.
        """
        if precision == self.precision:
            return self.model
        if self.copy is None:
            raise InputError(f"{self.name} cannot be copied into {precision} ({self.unsent})")
        model = cast_(rest_(receive(self.copy)), precision)
        flush_subnormals_(model)
        return model

    def described(self, inputs: Inputs) -> Model:
        """What it costs."""
        kind = type(self.model).__name__
        try:
            found = cost(self.model, inputs)
        except Exception:  # a count of the table: what cannot be counted is left open
            params, size = count_params(self.model), size_bytes(self.model)
            return Model(self.name, kind, params, size, subnormals=self.subnormals)
        return Model(self.name, kind, found.params, found.size_bytes, found.macs, self.subnormals)


@dataclass(frozen=True)
class FileSubject:
    """An exported file, in its own precision."""

    name: str
    number: int
    opened: Opened

    @property
    def unsent(self) -> str:
        """Files can be read by any process."""
        return ""

    def outputs(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """What it gives in its own runtime, opened as anyone would.

        Raises:
            InputError: It refuses the inputs.
        """
        try:
            return tuple(tensor.clone() for tensor in self.opened.outputs(inputs.tensors()))
        except Exception as error:
            shapes = ", ".join(str(tuple(t.shape)) for t in inputs.tensors())
            fact = f"{self.name}: {self.opened.kind} refuses the inputs ({shapes}): {first_line(error)}"
            raise InputError(fact, "pass inputs, and batch sizes, that it was exported for") from error

    def described(self, inputs: Inputs) -> Model:
        """What it is."""
        return Model(self.name, f"{self.opened.path.name} ({self.opened.target.name})", size_bytes=self.size_bytes)

    @property
    def size_bytes(self) -> int:
        """Of the file, and of the weights beside it."""
        return bytes_on_disk(self.opened.path)


Subject = ModuleSubject | FileSubject


def bytes_on_disk(path: Path) -> int:
    """Size of an exported file, and of the weights beside it."""
    return sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}.data")) if file.exists())


def subjects_of(
    models: Mapping[str, Timed], inputs: Inputs, folder: Path, *, trust: bool, flush: bool
) -> tuple[Subject, ...]:
    """What users named, ready to be timed; copies are written to `folder`.

    Raises:
        InputError: A file or a directory cannot be opened.
    """
    modules = {name: one if isinstance(one, nn.Module) else _saved(Path(one)) for name, one in models.items()}
    module = next((one for one in modules.values() if one is not None), None)
    found: list[Subject] = []
    for number, (name, one) in enumerate(models.items()):
        model = modules[name]
        if model is not None:
            found.append(_module(name, model, number, folder, flush=flush))
            continue
        assert not isinstance(one, nn.Module), "every module is among the modules"
        names = input_names(module, inputs)
        try:
            found.append(FileSubject(name, number, open_file(Path(one), names, trust=trust)))
        except InputError as error:
            raise InputError(f"{name}: {error.fact}", error.way_out) from error
    return tuple(found)


def _saved(path: Path) -> nn.Module | None:
    """The model of a directory that `surgery.save` wrote; None for a file.

    Raises:
        InputError: It is a directory of something else, or made from code that is not here.
    """
    if not path.is_dir():
        return None
    from surgery.checkpoints import load

    return load(path)


def _module(name: str, model: nn.Module, number: int, folder: Path, *, flush: bool) -> ModuleSubject:
    path = folder / f"copy-{number}"
    subnormals = sum(count_subnormals(model).values())
    try:
        send(model, path)
        copied = rest_(receive(path))
    except Exception as error:
        path.unlink(missing_ok=True)
        why = f"{type(error).__name__}: {first_line(error)}"
        return ModuleSubject(name, number, model, precision_of(model), None, why, subnormals)
    if flush and subnormals:
        flush_subnormals_(copied)
        send(copied, path)
    return ModuleSubject(name, number, copied, precision_of(copied), path, subnormals=subnormals)
