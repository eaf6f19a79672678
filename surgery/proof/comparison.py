"""Hold the slim model's outputs against the recorded ones, trial by trial."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace

from torch import nn

from surgery.errors import first_line
from surgery.proof.outputs import Output, Scale, gap
from surgery.proof.reference import Reference, Trial, mismatch
from surgery.proof.resting import resting


@dataclass(frozen=True)
class Error:
    """The largest error of one output, and the trial that shows it."""

    relative: float
    absolute: float
    scale: Scale
    trial: Trial


@dataclass
class Comparison:
    """What comparing all trials in one dtype found; filled trial by trial."""

    errors: dict[str, Error] = field(default_factory=dict)
    failure: str | None = None
    flipped: list[tuple[Trial, str]] = field(default_factory=list)
    non_finite: int = 0
    finite: int = 0


def in_float64(trial: Trial) -> Trial:
    """The trial with its float64 output as the one to compare with."""
    assert trial.output64 is not None, "only trials with a float64 output are compared in float64"
    return replace(trial, output=trial.output64)


def slim_runs(slim: nn.Module, trials: Iterable[Trial]) -> Generator[tuple[Trial, Output | str]]:
    """Each trial with the slim model's output, or the first line of its exception."""
    with resting(slim) as reset:
        for trial in trials:
            reset()
            try:
                output: Output | str = Output.of(trial.inputs.call(slim))
            except Exception as error:  # whatever the slim model raises is the finding
                output = first_line(error)
            yield trial, output


def compare(runs: Iterable[tuple[Trial, Output | str]], reference: Reference, who: str) -> Comparison:
    """Go through the runs until one differs in structure; numbers are collected, not judged."""
    found = Comparison()
    for trial, output in runs:
        if isinstance(output, str):
            found.failure = f"{who} raises on {trial}, which the masked model accepts: {output}"
            return found
        if (unlike := mismatch(trial.output, output)) is not None:
            found.failure = f"{who} returns something else on {trial}, masked against slim: {unlike}"
            return found
        for path, a in trial.output.floats.items():
            between = gap(a, output.floats[path])
            scale = reference.scales[path, a.shape]
            error = Error(between.largest / scale.divisor, between.largest, scale, trial)
            if path not in found.errors or error.relative > found.errors[path].relative:
                found.errors[path] = error
            found.finite += between.finite
            found.non_finite += a.numel() - between.finite
            if between.disagree and found.failure is None:
                found.failure = (
                    f"{who} is NaN or infinite at other places on {trial}: "
                    f"{between.disagree} of {a.numel()} values of {path}"
                )
        for path, a in trial.output.exact.items():
            found.finite += a.numel()
            if differ := int((a != output.exact[path]).sum()):
                found.flipped.append((trial, f"{differ} of {a.numel()} values of {path} ({a.dtype}) on {trial}"))
    if found.finite == 0 and found.failure is None:
        found.failure = "every output of the masked model is NaN or infinite: nothing can be compared"
    return found
