"""What is prepared before a process is started: private copies, their eager outputs, and a file per runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.latency.forms import eval_
from surgery.latency.parity import reference
from surgery.latency.protocol import Form
from surgery.latency.runtime import Runtime
from surgery.latency.sending import receive, send
from surgery.latency.subnormals import count_subnormals
from surgery.progress import stage


@dataclass(frozen=True)
class Subject:
    """One model: a private copy of it, or the caller's own where it cannot be copied, with the reason in `unsent`."""

    name: str
    model: nn.Module
    number: int
    unsent: str = ""


@dataclass(frozen=True)
class Batch:
    """One call to be timed, and a fresh one that shows how far outputs vary."""

    size: int | None
    inputs: Inputs
    fresh: Inputs
    number: int


class Preparation:
    """The folder of one benchmark: each file is written when a cell first needs it."""

    def __init__(self, models: Mapping[str, nn.Module], batches: tuple[Batch, ...], folder: Path) -> None:
        self.folder = folder
        self.batches = batches
        self.subjects = tuple(self._subject(name, model, at) for at, (name, model) in enumerate(models.items()))
        self._forms: dict[Path, str] = {}
        for batch in batches:
            send(batch.inputs, self.inputs(batch))
            for subject in self.subjects:
                outputs = reference(subject.model, subject.name, batch.inputs, batch.fresh)
                send(outputs, self.reference(subject, batch))

    def inputs(self, batch: Batch) -> Path:
        """The file with the inputs of a batch."""
        return self.folder / f"inputs-{batch.number}"

    def reference(self, subject: Subject, batch: Batch) -> Path:
        """The file with a model's eager outputs."""
        return self.folder / f"reference-{subject.number}-{batch.number}"

    def form(self, subject: Subject, batch: Batch, runtime: Runtime) -> Form:
        """The model's file for this runtime, written if it is not there yet.

        Raises:
            InputError: It cannot be written; the message is the reason.
        """
        part = f"-{batch.number}" if runtime.per_batch else ""
        path = self.folder / f"model-{subject.number}{part}{runtime.suffix}"
        if path not in self._forms:
            with stage(f"benchmark: writing {subject.name} for {runtime.name}"):
                try:
                    runtime.write(subject.model, batch.inputs, path)
                    self._forms[path] = ""
                except Exception as error:
                    self._forms[path] = f"{type(error).__name__}: {_first_line(error)}"
        if self._forms[path]:
            raise InputError(self._forms[path])
        return Form(subject.name, str(path), str(self.reference(subject, batch)))

    def notes(self) -> tuple[str, ...]:
        """What is suspicious about the models themselves."""
        counts = ((subject.name, count_subnormals(subject.model)) for subject in self.subjects)
        return tuple(
            f"{name} holds {count} subnormal weights (below 1.2e-38 in float32, but not 0): processors are many times "
            "slower on them, so that any model without them looks fast. Set them to exactly 0 and measure again "
            "(surgery.shrink does with flush_subnormals=True)"
            for name, count in counts
            if count
        )

    def _subject(self, name: str, model: nn.Module, number: int) -> Subject:
        path = self.folder / f"copy-{number}"
        try:
            send(model, path)
            return Subject(name, eval_(receive(path)), number)
        except Exception as error:
            return Subject(name, model, number, f"{type(error).__name__}: {_first_line(error)}")
        finally:
            path.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    """What an exporter's error says, without the pages of diagnosis that may follow."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "no message"
