"""The proof: the slim model computes what the masked one does, to rounding, on several inputs and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from surgery.cutting.twins import float64_copy
from surgery.errors import first_line
from surgery.inputs import Example, Inputs
from surgery.proof.comparison import Comparison, compare, in_float64, slim_runs
from surgery.proof.cost import size_bytes
from surgery.proof.reference import Reference, dtype_of, outputs64, record

BOUND_FLOAT64 = 1e-9
"""What a plan applied to a float64 copy may differ by, over the spread."""
BOUND_OWN = 1e-5
"""The least that is allowed in the model's own dtype; a noisy model is allowed four times its noise."""
FLOAT64_LIMIT_BYTES = 4 * 2**30
"""`verify` makes no float64 copies of a model where each would take more than this."""


@dataclass(frozen=True)
class Proof:
    """What came out of comparing two models. Relative errors are max|a - b| over the spread of that output.

    Attributes:
        passed: Whether every comparison held.
        max_abs_error: The largest max|a - b| in the models' own dtype; None where nothing could be compared.
        max_rel_error: The relative error in that dtype, of the output nearest to (or furthest beyond) its bound.
        max_rel_error_float64: The largest relative error in float64; None where float64 was skipped.
        noise: The masked model's own rounding over the spread, of the output that `max_rel_error` is about;
            None where float64 was skipped and it could only be estimated.
        spread: The largest change of an element of that output across the test inputs.
        bound: What `max_rel_error` may be: max(1e-5, 4 · noise).
        bound_float64: What `max_rel_error_float64` may be.
        dtype: The dtype that the models compute in, as `float32`.
        n_inputs: How many inputs were compared; entries of a batch count one by one.
        shapes: What was tried, as `batch 3 [3, 3, 224, 224]`.
        notes: What was skipped or is unusual, and why.
        failure: Why the proof failed, None where it passed.
    """

    passed: bool
    max_abs_error: float | None
    max_rel_error: float | None
    max_rel_error_float64: float | None
    noise: float | None
    spread: float | None
    bound: float
    bound_float64: float
    dtype: str
    n_inputs: int
    shapes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    failure: str | None = None

    def __str__(self) -> str:
        wide = "float64 skipped"
        if self.max_rel_error_float64 is not None:
            wide = f"{self.max_rel_error_float64:.1e} in float64 (bound {self.bound_float64:.1e})"
        own = f"nothing compared in {self.dtype}"
        if self.max_rel_error is not None:
            noise = "estimated" if self.noise is None else f"{self.noise:.1e}"
            own = f"{self.max_rel_error:.1e} in {self.dtype} as used (bound {self.bound:.1e}, noise {noise})"
        lines = [
            f"proof {'passed' if self.passed else 'FAILED'}: relative error {wide}, {own}",
            f"  on {self.n_inputs} inputs: {'; '.join(self.shapes)}",
        ]
        lines += [f"  failure: {self.failure}"] if self.failure else []
        lines += [f"  notes: {'; '.join(self.notes)}"] if self.notes else []
        return "\n".join(lines)


def prove(
    masked: nn.Module,
    slim: nn.Module,
    inputs: Inputs,
    *,
    masked64: nn.Module | None = None,
    slim64: nn.Module | None = None,
) -> Proof:
    """Compare the model before and after the cut, in float64 and in its own dtype.

    Args:
        masked: The model before the cut, in the dtype that it is used in.
        slim: The model after it.
        inputs: The example; fresh values and other shapes are made from it.
        masked64: The masked model in float64; None skips the comparison in float64.
        slim64: The same plan applied to `masked64` (not `slim` cast up, which would show its rounded biases).

    Raises:
        InputError: The masked model fails on the example, is random in eval mode, or returns nothing comparable.
    """
    return prove_against(record(masked, inputs, masked64=masked64), slim, slim64=slim64)


def verify(
    a: nn.Module, b: nn.Module, example_inputs: Example, example_kwargs: Mapping[str, Any] | None = None
) -> Proof:
    """Judge any two models: does `b` compute what `a` does? For models shrunk by others, too.

    In float64 both are compared as copies cast up. What `b` was given by its maker (a folded bias, a rescaled gain)
    is rounded to its own dtype, and that shows. So the bound there is max(1e-9, 4 eps of that dtype, noise): rounding
    a few parameters once may not cost more than what `a` loses by rounding every operation.

    Raises:
        InputError: `a` fails on the example, is random in eval mode, or returns nothing comparable.
    """
    inputs = Inputs.of(example_inputs, example_kwargs)
    own = torch.finfo(dtype_of(a, inputs)).bits // 8
    skipped: str | None = None
    a64 = b64 = None
    if (needed := size_bytes(a) * 8 // own) > FLOAT64_LIMIT_BYTES:
        skipped = f"float64 skipped: a copy would take {needed / 2**30:.0f} GiB"
    else:
        try:
            a64, b64 = float64_copy(a), float64_copy(b)
        except Exception as error:  # a tensor type that cannot be cast
            skipped = f"float64 skipped: no float64 copy can be made ({first_line(error)})"
    proof = prove_against(record(a, inputs, masked64=a64), b, slim64=b64, cast_up=True)
    return proof if skipped is None else replace(proof, notes=(skipped, *proof.notes))


def prove_against(
    reference: Reference, slim: nn.Module, *, slim64: nn.Module | None = None, cast_up: bool = False
) -> Proof:
    """Compare a slim model with what was recorded before the cut.

    Args:
        reference: From `record`.
        slim: The model after the cut.
        slim64: The slim model in float64, where the reference has float64 outputs.
        cast_up: `slim64` is `slim` cast up, so that the rounding of its parameters shows (see `verify`).
    """
    notes = list(reference.notes)
    trials = reference.trials
    with closing(slim_runs(slim, trials)) as runs:
        own = compare(runs, reference, "the slim model")
    wide: Comparison | None = None
    if slim64 is None and reference.dtype == dtype_of(slim, trials[0].inputs) == torch.float64:
        slim64 = slim
    if reference.in_float64 and slim64 is None:
        notes.append("float64 skipped: no float64 version of the slim model was given")
    elif slim64 is not None and reference.in_float64 and own.failure is None:
        wide_trials = [in_float64(trial) for trial in trials if trial.output64 is not None]
        with closing(outputs64(slim64, wide_trials)) as outputs:
            wide = compare(zip(wide_trials, outputs, strict=True), reference, "in float64 the slim model")
    return _judge(reference, own, wide, notes, cast_up)


def _judge(reference: Reference, own: Comparison, wide: Comparison | None, notes: list[str], cast_up: bool) -> Proof:
    """Hold every error against its bound; the first thing that is wrong is the failure."""
    dtype = str(reference.dtype).removeprefix("torch.")
    bounds = {path: max(BOUND_OWN, 4 * noise) for path, noise in reference.noise.items()}
    eps = torch.finfo(reference.dtype).eps
    bounds64 = {
        path: max(BOUND_FLOAT64, 4 * eps, noise) if cast_up else BOUND_FLOAT64
        for path, noise in reference.noise.items()
    }
    failure = own.failure
    if wide is not None:
        failure = failure or wide.failure or _flips(wide, "float64") or _beyond(wide, bounds64, "float64")
        if cast_up:
            notes.append("float64 compares copies cast up: the rounding of parameters written by the cut shows there")
    failure = failure or _flips(own, dtype, excused=wide is not None) or _beyond(own, bounds, dtype)
    if failure is None:
        notes += [f"{text} differ in {dtype}, none in float64: rounding decides them" for _, text in own.flipped]
    if own.non_finite:
        notes.append(f"{own.non_finite} output values are NaN or infinite")
    worst = _worst(own, bounds)
    worst64 = _worst(wide, bounds64) if wide is not None else None
    compared = own.errors[worst] if worst is not None else None
    return Proof(
        passed=failure is None,
        max_abs_error=max((e.absolute for e in own.errors.values()), default=0.0 if own.finite else None),
        max_rel_error=compared.relative if compared else (0.0 if own.finite else None),
        max_rel_error_float64=wide.errors[worst64].relative if wide is not None and worst64 is not None else None,
        noise=reference.noise[worst] if worst is not None and reference.in_float64 else None,
        spread=compared.scale.spread if compared else None,
        bound=bounds[worst] if worst is not None else BOUND_OWN,
        bound_float64=bounds64[worst64] if worst64 is not None else BOUND_FLOAT64,
        dtype=dtype,
        n_inputs=sum(trial.inputs.batch or 1 for trial in reference.trials),
        shapes=tuple(str(trial) for trial in reference.trials),
        notes=tuple(dict.fromkeys(notes)),
        failure=failure,
    )


def _worst(found: Comparison, bounds: Mapping[str, float]) -> str | None:
    """The output nearest to its bound, or furthest beyond it."""
    return max(found.errors, key=lambda path: found.errors[path].relative / bounds[path], default=None)


def _beyond(found: Comparison, bounds: Mapping[str, float], dtype: str) -> str | None:
    """What to say where the worst output is beyond its bound, None where it is not."""
    path = _worst(found, bounds)
    if path is None or found.errors[path].relative <= bounds[path]:
        return None
    error = found.errors[path]
    over = f"its spread {error.scale.spread:.1e}" if not error.scale.why else f"{error.scale.divisor:.1e}"
    text = (
        f"{path} differs in {dtype} by {error.relative:.1e} of {over} (bound {bounds[path]:.1e}), most on {error.trial}"
    )
    if dtype == "float64" and error.absolute <= 4096 * torch.finfo(torch.float64).eps * error.scale.largest:
        text += (
            f"; that is float64's own rounding, for the largest output is {error.scale.largest:.1e}: "
            "rescale the model so that its outputs depend more on its inputs"
        )
    return text


def _flips(found: Comparison, dtype: str, *, excused: bool = False) -> str | None:
    """What to say where integer or boolean outputs differ; `excused` are those that float64 has shown to be equal."""
    flipped = [text for trial, text in found.flipped if not (excused and trial.output64 is not None)]
    return f"in {dtype} {flipped[0]} differ" if flipped else None
