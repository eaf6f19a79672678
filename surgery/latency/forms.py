"""The forms in which models are timed, as files in a private folder: each is written when a cell first needs it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from surgery.errors import InputError
from surgery.exporting.preparing import source_of
from surgery.exporting.table import target_for
from surgery.exporting.target import first_line
from surgery.inputs import Inputs
from surgery.latency.int8 import quantise_onnx, quantise_package
from surgery.latency.parity import Reference, eager_outputs, reference
from surgery.latency.precisions import INT8, OWN, cast_inputs, dtype_of
from surgery.latency.protocol import Form
from surgery.latency.runtime import Runtime
from surgery.latency.sending import send
from surgery.latency.subjects import FileSubject, ModuleSubject, Subject, bytes_on_disk
from surgery.progress import stage
from surgery.proof.cost import size_bytes

LARGEST_BYTES = 1_000_000_000
"""A larger model is not copied into float64: its rounding is taken for less than the tolerance."""


@dataclass(frozen=True)
class Batch:
    """One call to be timed, and a fresh one that shows how far outputs vary."""

    size: int | None
    inputs: Inputs
    fresh: Inputs
    number: int


@dataclass(frozen=True)
class _Made:
    """A file that was written, or the reason why not."""

    path: Path
    order: tuple[int, ...] | None = None
    size_bytes: int | None = None
    failure: str = ""


class Forms:
    """The folder of one benchmark."""

    def __init__(self, subjects: tuple[Subject, ...], batches: tuple[Batch, ...], folder: Path) -> None:
        self.folder = folder
        self.batches = batches
        self.subjects = subjects
        self._references: dict[tuple[int, int], Reference] = {}
        self._made: dict[str, _Made] = {}
        for batch in batches:
            for subject in subjects:
                own = _reference(subject, batch)
                self._references[subject.number, batch.number] = own
                send(own, self._reference_file(subject, batch))

    def form(self, subject: Subject, batch: Batch, runtime: Runtime, precision: str, device: str) -> Form:
        """The model's file for this runtime, with all that the measuring process needs beside it.

        Raises:
            InputError: It cannot be written, or is of another format; the message is the reason.
        """
        if isinstance(subject, FileSubject):
            target = subject.opened.target
            if target.name != runtime.format:
                raise InputError(f"{subject.opened.kind} ({target.name}) does not run in {runtime.name}")
            made = _Made(subject.opened.path.resolve(), subject.opened.order, subject.size_bytes)
            cast, precision = "", OWN
        else:
            precision = subject.precision if precision == OWN else precision
            written = runtime.written_in(precision)
            made = self._module(subject, batch, runtime, written, device)
            cast = "" if written == subject.precision else written
        if made.failure:
            raise InputError(made.failure)
        first = self._reference_file(self.subjects[0], batch)
        return Form(
            subject.name,
            str(made.path),
            str(self._inputs(batch, cast)),
            str(self._wanted(subject, batch, precision)),
            str(first),
            made.order,
            made.size_bytes,
        )

    def reference_files(self, subject: Subject, batch: Batch) -> tuple[Path, Path]:
        """The files with its own outputs, and with those of the first model."""
        return self._reference_file(subject, batch), self._reference_file(self.subjects[0], batch)

    def _reference_file(self, subject: Subject, batch: Batch) -> Path:
        return self.folder / f"reference-{subject.number}-{batch.number}"

    def _inputs(self, batch: Batch, cast: str) -> Path:
        """The file with the inputs of a batch, cast to a precision; as they were given for ""."""
        path = self.folder / f"inputs-{batch.number}-{cast}"
        if not path.exists():
            send(cast_inputs(batch.inputs, cast) if cast else batch.inputs, path)
        return path

    def _wanted(self, subject: Subject, batch: Batch, precision: str) -> Path:
        """The file with the model's own outputs, and what may be lost of them in this precision."""
        if not isinstance(subject, ModuleSubject) or precision in (subject.precision, "float64"):
            return self._reference_file(subject, batch)
        path = self.folder / f"reference-{subject.number}-{batch.number}-{precision}"
        if not path.exists():
            own = self._references[subject.number, batch.number]
            if precision == INT8:
                send(own.unbounded(), path)
            else:
                lowered = eager_outputs(subject.cast(precision), cast_inputs(batch.inputs, precision))
                send(own.lowered(lowered, dtype_of(precision)), path)
        return path

    def _module(self, subject: ModuleSubject, batch: Batch, runtime: Runtime, precision: str, device: str) -> _Made:
        """The file of a module, written if it is not there yet."""
        if runtime.format is None:
            name = f"model-{subject.number}-{precision}"
        else:
            target = target_for(Path(), runtime.format)
            place = "cpu" if target.cpu_only else device.replace(":", "")
            name = f"model-{subject.number}-{batch.number}-{precision}-{place}{target.suffixes[0]}"
        if name not in self._made:
            with stage(f"benchmark: writing {subject.name} for {runtime.name}"):
                try:
                    self._made[name] = self._written(subject, batch, runtime, precision, device, self.folder / name)
                except InputError as error:
                    self._made[name] = _Made(self.folder / name, failure=error.fact)
                except Exception as error:
                    said = f"{type(error).__name__}: {first_line(error)}"
                    self._made[name] = _Made(self.folder / name, failure=said)
        return self._made[name]

    def _written(
        self, subject: ModuleSubject, batch: Batch, runtime: Runtime, precision: str, device: str, path: Path
    ) -> _Made:
        if runtime.format is None:
            send(subject.cast(precision), path)
            return _Made(path)
        target = target_for(path, runtime.format)
        model = subject.cast("float32" if precision == INT8 else precision)
        inputs, fresh = batch.inputs, batch.fresh
        if precision != subject.precision:
            inputs, fresh = (cast_inputs(call, precision) for call in (inputs, fresh))
        place = torch.device("cpu" if target.cpu_only else device)
        try:
            # exactly these shapes: a graph of any batch size is another, and often a slower one
            source = source_of(model.to(place), inputs.to(place), target, {})
        finally:
            model.to("cpu")
        if precision != INT8:
            target.write(source, path)
        elif runtime.format == "aoti":
            quantise_package(source, (inputs, fresh), path)
        else:
            whole = path.with_name(f"{path.name}.float")
            target.write(source, whole)
            quantise_onnx(whole, (inputs, fresh), source.model.input_names, path)
        count = len(inputs.tensors())
        return _Made(path, tuple(range(count)), bytes_on_disk(path))


def _reference(subject: Subject, batch: Batch) -> Reference:
    """The subject's own outputs."""
    if isinstance(subject, ModuleSubject):
        own = reference(subject.model, subject.name, batch.inputs, batch.fresh)
        if subject.copy is None or size_bytes(subject.model) > LARGEST_BYTES:
            return own
        return own.rounded(eager_outputs(subject.cast("float64"), cast_inputs(batch.inputs, "float64")))
    try:
        fresh = subject.outputs(batch.fresh)
    except InputError:  # made-up inputs may be refused
        fresh = ()
    return Reference(subject.outputs(batch.inputs), fresh)
