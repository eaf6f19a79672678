"""What the masked model computes: recorded before the cut, compared with the slim model after it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import nn

from surgery.errors import InputError, first_line
from surgery.inputs import Inputs
from surgery.proof.float64 import float64_run
from surgery.proof.outputs import Key, Output, Scale, gap, scales
from surgery.proof.resting import RandomOps, resting
from surgery.proof.trials import Attempt, accepted, another_size, batches, same_shape, shapes


@dataclass(frozen=True, eq=False)
class Trial:
    """One call of the masked model and what it returned, in its own dtype and (where that was run) in float64."""

    name: str
    inputs: Inputs
    output: Output
    output64: Output | None = None

    def __str__(self) -> str:
        return f"{self.name} {shapes(self.inputs)}"


@dataclass(frozen=True, eq=False)
class Reference:
    """The recorded outputs of a masked model.

    Attributes:
        trials: The example first.
        scales: What differences of each float output are divided by.
        noise: For each float output, the model's difference between its own dtype and float64, over the spread.
        dtype: What the model computes in.
        in_float64: Whether the trials hold float64 outputs.
        notes: What was skipped, and why.
    """

    trials: tuple[Trial, ...]
    scales: dict[Key, Scale]
    noise: dict[str, float]
    dtype: torch.dtype
    in_float64: bool
    notes: tuple[str, ...]


def record(masked: nn.Module, inputs: Inputs, *, masked64: nn.Module | None = None) -> Reference:
    """Run the masked model on everything that the slim one will be compared on.

    Tried are the example, batch 1 and 3 of fresh values (without a batch of 3: two fresh calls of the example's
    shape), and another size. The model is left as it was found.

    Args:
        masked: The model before the cut.
        inputs: The example; fresh values and other shapes are made from it.
        masked64: The same model in float64; None skips the comparison in float64.

    Raises:
        InputError: The model fails on the example, is random in eval mode, or returns nothing that can be compared.
    """
    notes: list[str] = []
    trials = _run(masked, inputs, notes)
    dtype = dtype_of(masked, inputs)
    if masked64 is None and dtype == torch.float64:
        masked64 = masked
    if masked64 is None:
        notes.append("float64 skipped: no float64 version of the model was given")
    else:
        trials = _run_in_float64(masked64, trials, notes)
    wide = [(t.inputs.batch, t.output64) for t in trials if t.output64 is not None]
    own = [(t.inputs.batch, t.output) for t in trials]
    found = scales(own, dtype) | (scales(wide, torch.float64) if wide else {})
    notes += dict.fromkeys(
        f"{path} {scale.why}: its differences are divided by {scale.divisor:.1e}"
        for (path, _), scale in found.items()
        if scale.why
    )
    if not wide:
        notes.append(f"noise estimated as 4 eps of {_name(dtype)} times the largest output, over the spread")
    return Reference(tuple(trials), found, _noise(trials, found, dtype), dtype, bool(wide), tuple(notes))


def dtype_of(model: nn.Module, inputs: Inputs) -> torch.dtype:
    """The floating-point dtype of most of the model's numbers; of the inputs where the model has none."""
    count: Counter[torch.dtype] = Counter()
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.is_floating_point() or tensor.is_complex():
            count[tensor.dtype.to_real()] += tensor.numel()
    first = next((t.dtype for t in inputs.tensors() if t.is_floating_point()), torch.get_default_dtype())
    return count.most_common(1)[0][0] if count else first


def _run(masked: nn.Module, inputs: Inputs, notes: list[str]) -> list[Trial]:
    """Every trial that the model accepts, in its own dtype."""
    with resting(masked) as reset:

        def run(inputs: Inputs) -> Output:
            reset()
            return Output.of(inputs.call(masked))

        try:
            output = run(inputs)
        except Exception as error:
            fact = f"the model fails on its own example inputs: {first_line(error)}"
            raise InputError(fact, "pass inputs that the model accepts in eval mode") from error
        if output.compares == 0:
            fact = f"the model returns {output.structure} without a single number: there is nothing to compare"
            raise InputError(fact, "let it return at least one tensor that is not empty")
        drawn = RandomOps()
        again = None
        with suppress(Exception), drawn:  # an op that no dispatch mode can watch
            again = run(inputs)
        if again is None:
            torch.compiler.reset()  # what was compiled under the mode is not to be run without it
            again = run(inputs)
        _refuse_random(output, again, drawn)
        notes += [f"{path} is a {kind}: only its type is compared" for path, kind in output.opaque.items()]
        trials = [Trial("example", inputs, output)]

        def attempt(what: Attempt) -> None:
            taken = accepted(what, run)
            if isinstance(taken, str):
                notes.append(f"{what.name} skipped: {taken}")
            else:
                trials.append(Trial(what.name, *taken))

        for what in [*batches(inputs), another_size(inputs)]:
            attempt(what)
        if all(trial.name != "batch 3" for trial in trials):
            for what in same_shape(inputs):
                attempt(what)
    return trials


def _refuse_random(first: Output, second: Output, drawn: RandomOps) -> None:
    """Raise where two runs on one input differ by more than an unordered sum may.

    Raises:
        InputError: The model is random.
    """
    worst = 0.0 if first.structure == second.structure else math.inf
    limit = 0.0
    for path, a in first.floats.items():
        b = second.floats.get(path, a)
        found = gap(a, b) if a.shape == b.shape else None
        largest = float(a[a.isfinite()].abs().max()) if a.isfinite().any() else 1.0
        worst = max(worst, math.inf if found is None or found.disagree else found.largest / (largest or 1.0))
        limit = max(limit, torch.finfo(a.dtype).eps ** 0.5)
    for path, a in first.exact.items():
        worst = worst if torch.equal(a, second.exact.get(path, a)) else math.inf
    if worst > (0.0 if drawn.certain else limit):
        ops = ", ".join(sorted(drawn.names)) or "no random op of PyTorch ran"
        fact = f"the model is random in eval mode ({ops}), e.g. a live dropout: two runs on the same input differ"
        raise InputError(fact, "make it follow the training flag, as in F.dropout(x, p, self.training)")


def _run_in_float64(masked64: nn.Module, trials: list[Trial], notes: list[str]) -> list[Trial]:
    """The trials with float64 outputs; without them where the model cannot run in float64."""
    done: list[Trial] = []
    with closing(outputs64(masked64, trials)) as outputs:
        for trial, output in zip(trials, outputs, strict=True):
            problem = output if isinstance(output, str) else mismatch(trial.output, output)
            if isinstance(output, Output) and problem is None:
                done.append(replace(trial, output64=output))
                continue
            notes.append(f"float64 skipped on {trial}: the masked model cannot run in float64 ({problem})")
            if trial is trials[0]:
                return trials
            done.append(trial)
    example = done[0].output64
    for path, tensor in example.floats.items() if example is not None else ():
        if tensor.dtype != torch.float64:
            notes.append(f"{path} is {_name(tensor.dtype)} even in the float64 run")
    return done


def outputs64(model64: nn.Module, trials: list[Trial] | tuple[Trial, ...]) -> Generator[Output | str]:
    """For each trial the output in float64, or the first line of the exception."""
    with resting(model64) as reset:
        for trial in trials:
            reset()
            try:
                with float64_run():
                    output = Output.of(trial.inputs.to(torch.float64).call(model64))
            except Exception as error:  # no float64 kernel, or the shape is refused
                yield first_line(error)
            else:
                yield output


def mismatch(a: Output, b: Output) -> str | None:
    """How structure, shapes or plain data of two outputs differ; None where they are equal."""
    if a.structure != b.structure:
        return f"{_short(a.structure)} against {_short(b.structure)}"
    for path, tensor in chain(a.floats.items(), a.exact.items()):
        other = b.floats[path] if path in b.floats else b.exact[path]
        if tensor.shape != other.shape:
            return f"{path} has shape {list(tensor.shape)} against {list(other.shape)}"
    for path, value in a.data.items():
        if not bool(value == b.data.get(path)):
            return f"{path} is {_short(repr(value))} against {_short(repr(b.data.get(path)))}"
    return None


def _noise(trials: list[Trial], found: dict[Key, Scale], dtype: torch.dtype) -> dict[str, float]:
    """By path, the model's own rounding over the spread: measured against float64, or estimated from the dtype."""
    measured: dict[str, float] = {}
    estimated: dict[str, float] = {}
    for trial in trials:
        for path, tensor in trial.output.floats.items():
            scale = found[path, tensor.shape]
            if trial.output64 is None:
                rounding = 4 * max(torch.finfo(dtype).eps, torch.finfo(tensor.dtype).eps) * scale.largest
                estimated[path] = max(estimated.get(path, 0.0), rounding / scale.divisor)
            else:
                rounding = gap(tensor, trial.output64.floats[path]).largest
                measured[path] = max(measured.get(path, 0.0), rounding / scale.divisor)
    return estimated | measured


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
