"""Does the file compute what the model does? Asked on several inputs and batch sizes, against the model's own noise."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from surgery.errors import InputError
from surgery.exporting.flat import FlatModel
from surgery.exporting.result import Parity
from surgery.exporting.sizes import SEED, FreeDims, other_batches, other_sizes
from surgery.exporting.target import first_line
from surgery.inputs import Inputs

TOLERANCE = 1e-5
"""Relative error that is always allowed: float32 sums in another order."""

NOISES = 4.0
"""Allowed multiple of the model's own rounding noise; sound runtimes stay below 2 on deep nets, by our measurements."""

LOOSE = 1e-2
"""A bound above this deserves a note: the model's rounding hides smaller faults."""


@dataclass(frozen=True)
class Trial:
    """One input and what the model answers: `expected` in its own dtype, `exact` in float64 where it can run so.

    `resized` inputs have other shapes than the example.
    """

    label: str
    batch: int | None
    tensors: list[Tensor]
    expected: list[Tensor]
    exact: list[Tensor] | None
    resized: bool


@dataclass(frozen=True)
class Verdict:
    """The figures, in words where the file came closest to its bound, and on which trials it broke it.

    `noise` (over the spread) and `spread` are those of the output that `where` names.
    """

    parity: Parity
    where: str
    broken: tuple[Trial, ...]
    noise: float
    spread: float


class Subject(Protocol):
    """What can be asked: tensors in, tensors out; `kind` says in words what it is."""

    @property
    def kind(self) -> str:
        """What it is, in words."""

    def outputs(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Its output tensors, in order."""


class Examiner:
    """Puts questions to the model: in its own dtype and, for its noise, in float64.

    Attributes:
        notes: What could not be asked, and why.

    Raises:
        InputError: The model refuses the example inputs, or answers them differently each time.
    """

    def __init__(self, model: Subject, inputs: Inputs) -> None:
        self.model = model
        self.inputs = inputs
        self.notes: list[str] = []
        self._double = self._in_float64()
        self.example = self._ask("the example inputs", inputs)
        _require_numbers(self.example.expected)
        _require_repeatable(self.example.expected, model.outputs(inputs.tensors()))

    def trials(self, dynamic: Sequence[FreeDims]) -> Iterator[Trial]:
        """The example, fresh inputs, and other sizes of all that the file says is free (per input tensor)."""
        yield self.example
        fresh = (("fresh inputs", self.inputs.fresh(SEED + i)) for i in range(2))
        for label, inputs in (*fresh, *other_batches(self.inputs, dynamic)):
            try:
                yield self._ask(label, inputs)
            except InputError as error:
                self.notes.append(f"not compared on {label}: {error.fact}")
        for name, candidates in other_sizes(self.inputs, dynamic):
            if (trial := self._first_accepted(candidates)) is not None:
                yield trial
            else:
                self.notes.append(f"no other size of {name} could be compared, though the file says that it is free")

    def _first_accepted(self, candidates: Iterable[Inputs]) -> Trial | None:
        """The first of `candidates` that the model takes."""
        for other in candidates:
            with contextlib.suppress(InputError):
                return self._ask(f"inputs of shape {_shapes(other.tensors())}", other)
        return None

    def _ask(self, label: str, inputs: Inputs) -> Trial:
        tensors = inputs.tensors()
        try:
            expected = _on_cpu(self.model.outputs(tensors))
        except Exception as error:
            fact = f"{self.model.kind} cannot run on {label}: {first_line(error)}"
            raise InputError(fact, "pass inputs that it accepts") from error
        exact = None
        if self._double is not None:
            exact = _on_cpu(self._double.outputs(inputs.to(torch.float64).tensors()))
        resized = any(a.shape != b.shape for a, b in zip(tensors, self.inputs.tensors(), strict=True))
        return Trial(label, inputs.batch, tensors, expected, exact, resized)

    def _in_float64(self) -> FlatModel | None:
        """A float64 copy, if the model can run as one."""
        if not isinstance(self.model, FlatModel):
            return None
        double = self.inputs.to(torch.float64)
        try:
            model = FlatModel(copy.deepcopy(self.model.model).double(), double)
            model.outputs(double.tensors())
        except Exception as error:
            self.notes.append(f"its rounding noise is unknown, since it does not run in float64: {first_line(error)}")
            return None
        return model


def judge(
    trials: Sequence[Trial],
    answers: Sequence[Sequence[Tensor]],
    output_names: Sequence[str],
    *,
    estimate_noise: bool = False,
) -> Verdict:
    """Compare a file's `answers` with what the model gave, output by output, each against its own spread and noise.

    Args:
        trials: What was asked, and the model's outputs.
        answers: Per trial, the file's outputs.
        output_names: For the words.
        estimate_noise: Where nothing ran in float64, take the noise for 4 eps of the output's dtype times its largest
            value; otherwise for 0.
    """
    broken: list[Trial] = []
    max_abs, worst = 0.0, (-1.0, 0.0, TOLERANCE, 0.0, 1.0, "")
    for j, name in enumerate(output_names):
        expected = [trial.expected[j] for trial in trials]
        spread = _spread(expected)
        noise = max((_rounding(t.expected[j], t.exact[j]) / spread for t in trials if t.exact is not None), default=0.0)
        if estimate_noise and expected[0].is_floating_point():
            noise = 4 * torch.finfo(expected[0].dtype).eps * max(_largest(t) for t in expected) / spread
        bound = max(TOLERANCE, NOISES * noise)
        for trial, answer in zip(trials, answers, strict=True):
            wrong = _wrong_kind(trial.expected, answer, j)
            error = float("inf") if wrong else _error(trial.expected[j], answer[j])
            max_abs = max(max_abs, error)
            if error / spread > bound:
                broken.append(trial)
            if error / spread / bound > worst[0]:
                where = f"output {name!r}, on {trial.label}" + (f": {wrong}" if wrong else "")
                worst = (error / spread / bound, error / spread, bound, noise, spread, where)
    batches = tuple(sorted({trial.batch for trial in trials if trial.batch is not None}))
    parity = Parity(max_abs, worst[1], worst[2], not broken, len(trials), batches)
    return Verdict(parity, worst[5], tuple(broken), worst[3], worst[4])


def _spread(outputs: Sequence[Tensor]) -> float:
    """The largest change of an element across outputs of the first one's shape; without any, the largest value."""
    same = [_real(output) for output in outputs if output.shape == outputs[0].shape]
    low, high = same[0], same[0]
    for output in same[1:]:
        low, high = torch.minimum(low, output), torch.maximum(high, output)
    return next((largest for t in (high - low, *same) if (largest := _largest(t)) > 0), 1.0)


def _largest(tensor: Tensor) -> float:
    """The largest finite |element|, 0 without one."""
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _error(a: Tensor, b: Tensor) -> float:
    """Largest difference; equal infinities and NaN in the same place count 0, other non-finite ones infinity."""
    if a.shape != b.shape:
        return float("inf")
    a, b = _real(a), _real(b)
    same = (a == b) | (a.isnan() & b.isnan())
    difference = torch.where(same, 0.0, (a - b).abs()).nan_to_num(nan=float("inf"), posinf=float("inf"))
    return float(difference.max()) if difference.numel() else 0.0


def _rounding(own: Tensor, exact: Tensor) -> float:
    """Largest difference where both are finite: what is infinite in one dtype only says nothing about rounding."""
    return _largest(_real(own) - _real(exact))


def _wrong_kind(expected: Sequence[Tensor], answer: Sequence[Tensor], j: int) -> str:
    """What is wrong with the j-th answer before its values are looked at, or nothing."""
    if len(expected) != len(answer):
        return f"{len(answer)} outputs instead of {len(expected)}"
    if expected[j].shape != answer[j].shape:
        return f"shape {list(answer[j].shape)} instead of {list(expected[j].shape)}"
    if expected[j].dtype != answer[j].dtype:
        return f"{answer[j].dtype} instead of {expected[j].dtype}"
    return ""


def _require_numbers(outputs: Sequence[Tensor]) -> None:
    """Where nothing is finite, any two models agree."""
    if not any(bool(_real(output).isfinite().any()) for output in outputs):
        fact = "every output for the example inputs is NaN, infinite or empty: nothing can be compared"
        raise InputError(fact, "pass inputs for which it gives numbers")


def _require_repeatable(once: Sequence[Tensor], again: Sequence[Tensor]) -> None:
    for a, b in zip(once, _on_cpu(again), strict=True):
        if _error(a, b) > 1e-3 * _spread([a]):
            fact = "the model answers the same input differently each time, though it is in eval mode"
            raise InputError(fact, "look for F.dropout without training=self.training, or other live random operators")


def _real(tensor: Tensor) -> Tensor:
    """As float64; a complex tensor as pairs."""
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).to(torch.float64)


def _on_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.cpu() for tensor in tensors]


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ", ".join("x".join(map(str, tensor.shape)) for tensor in tensors)
