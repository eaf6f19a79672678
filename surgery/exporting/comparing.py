"""Two of {model, exported file}: do they compute the same? Tried at the sizes that both take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from surgery.errors import InputError
from surgery.exporting.flat import FlatModel
from surgery.exporting.opening import Opened
from surgery.exporting.parity import Examiner, Trial, Verdict, judge
from surgery.exporting.program import BATCH
from surgery.exporting.shapes import symbol
from surgery.exporting.sizes import FreeDims
from surgery.exporting.state import eval_copy
from surgery.exporting.target import first_line
from surgery.inputs import Inputs
from surgery.proof.prove import BOUND_FLOAT64, Proof

Side = FlatModel | Opened


@dataclass(frozen=True)
class _Compared:
    """The trials that both sides answered."""

    trials: list[Trial]
    answers: list[list[Tensor]]
    notes: tuple[str, ...]


def flat_model(model: nn.Module, inputs: Inputs) -> FlatModel:
    """An eval copy of `model` on the CPU, tensors in and tensors out.

    Raises:
        InputError: It has no weights, cannot run on the example inputs, or returns no tensor.
    """
    flat = FlatModel(eval_copy(model).to("cpu"), inputs)
    try:
        output = inputs.call(flat.model)
    except Exception as error:
        fact = f"{flat.kind} cannot run on the example inputs: {first_line(error)}"
        raise InputError(fact, "pass inputs that it accepts") from error
    flat.learn_outputs_(output)
    return flat


def compare(a: Side, b: Side, inputs: Inputs) -> Proof:
    """Whether `b` computes what `a` does, output by output in order, over the spread of the outputs.

    A model runs in float64, too, which shows its rounding: the bound is max(1e-5, 4 · that noise). Between two files
    the noise is estimated as 4 eps of the dtype times the largest output. What a file says of its sizes is tried; a
    TorchScript file says nothing, so other batches and sizes are tried as far as it takes them.

    Raises:
        InputError: One of them cannot run on the example inputs, or `a` answers differently each time.
    """
    reference, other = (b, a) if isinstance(b, FlatModel) and not isinstance(a, FlatModel) else (a, b)
    examiner = Examiner(reference, inputs)
    found = _ask(examiner, other, _sizes(reference, other, inputs))
    expected = found.trials[0].expected
    names = (
        reference.output_names if isinstance(reference, FlatModel) else [f"output_{j}" for j in range(len(expected))]
    )
    guessed = all(trial.exact is None for trial in found.trials)
    verdict = judge(found.trials, found.answers, names, estimate_noise=guessed)
    notes = [f"compared as {_who(reference)} and {_who(other)}", *found.notes]
    if guessed:
        notes.append("neither runs in float64: the noise is taken for 4 eps of the dtype times the largest output")
    return _proof(verdict, found.trials, expected, noise_known=not guessed, notes=tuple(notes))


def _ask(examiner: Examiner, other: Side, dynamic: Sequence[FreeDims]) -> _Compared:
    """Put every trial to `other`; what it refuses at another size than the example's is noted, not judged.

    Raises:
        InputError: It refuses the example inputs.
    """
    trials, answers, refused = [], [], []
    for trial in examiner.trials(dynamic):
        try:
            answer = [tensor.cpu() for tensor in other.outputs(trial.tensors)]
        except Exception as error:
            fact = f"{other.kind} cannot run on {trial.label}: {first_line(error)}"
            if not trial.resized:
                raise InputError(fact, "pass inputs that it accepts") from error
            refused.append(f"not compared on {trial.label}: {fact}")
            continue
        trials.append(trial)
        answers.append(answer)
    return _Compared(trials, answers, (*examiner.notes, *refused))


def _sizes(a: Side, b: Side, inputs: Inputs) -> tuple[FreeDims, ...]:
    """The dims that both leave free: batch, space, time and tokens where neither tells. Equal sizes are taken for one.

    Files do not say which sizes must be equal.
    """
    told = [side.dynamic for side in (a, b) if isinstance(side, Opened) and side.dynamic is not None]

    def free(i: int, dim: int, tensor: Tensor) -> bool:
        guessed = (dim == 0 and inputs.batch is not None) or dim >= (2 if tensor.is_floating_point() else 1)
        if told:
            return all((known := dims[i]) is None or dim in known for dims in told)
        return guessed and (dim == 0 or tensor.shape[dim] > 1)

    def name(dim: int, size: int) -> str:
        return BATCH if dim == 0 and inputs.batch is not None else f"size {size}"

    return tuple(
        {dim: symbol(name(dim, size)) for dim, size in enumerate(tensor.shape) if free(i, dim, tensor)}
        for i, tensor in enumerate(inputs.tensors())
    )


def _who(side: Side) -> str:
    return f"{side.kind} ({side.target.name})" if isinstance(side, Opened) else side.kind


def _proof(
    verdict: Verdict, trials: Sequence[Trial], expected: Sequence[Tensor], *, noise_known: bool, notes: tuple[str, ...]
) -> Proof:
    parity = verdict.parity
    dtype = next((t.dtype for t in expected if t.is_floating_point()), expected[0].dtype)
    failure = None
    if not parity.passed:
        failure = f"{verdict.where}: relative error {parity.max_rel_error:.1e}, bound {parity.bound:.1e}"
    return Proof(
        passed=parity.passed,
        max_abs_error=parity.max_abs_error,
        max_rel_error=parity.max_rel_error,
        max_rel_error_float64=None,
        noise=verdict.noise if noise_known else None,
        spread=verdict.spread,
        bound=parity.bound,
        bound_float64=BOUND_FLOAT64,
        dtype=str(dtype).removeprefix("torch."),
        n_inputs=sum(trial.batch or 1 for trial in trials),
        shapes=tuple(f"{trial.label} {', '.join(str(list(t.shape)) for t in trial.tensors)}" for trial in trials),
        notes=notes,
        failure=failure,
    )
