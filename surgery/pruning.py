"""`surgery.prune`: choose what goes, win back what that costs, and cut it, exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from surgery.budgets import MEASURES, Budget
from surgery.choosing import choose
from surgery.compensating import RUNGS, Compensated, compensate
from surgery.deciding.criteria import Loss
from surgery.errors import InputError
from surgery.inputs import Example, Inputs
from surgery.iterating import kept
from surgery.judging import Evaluate
from surgery.masks import carry_hooks_
from surgery.plans import Plan
from surgery.proof.cost import count_params
from surgery.results import Result
from surgery.shrinking import shrink
from surgery.targeting import measured_again

ATTEMPTS = 3
"""So many times less is asked for where the biases that the ladder makes are too many for the budget."""


@dataclass(frozen=True)
class Pruned(Result):
    """A slim model with the ladder that led to it.

    Attributes:
        chosen: The plan for the dense model.
        compensated: The masked model that was cut, and the error after each rung.
    """

    chosen: Plan = field(kw_only=True)
    compensated: Compensated = field(kw_only=True)

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.compensated}"


def prune(
    model: nn.Module,
    example_inputs: Example,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    loss: Loss | None = None,
    evaluate: Evaluate | None = None,
    rungs: Sequence[str] = RUNGS,
    samples: int = 512,
    prove: bool = True,
    **choosing: Any,
) -> Pruned:
    """Choose what matters least, compensate for it on your data without training, and cut it with a proof.

    The proof is of the cut: masked and compensated against slim. How far that is from the dense model is what the
    ladder tells, on samples that were held back.

    Args:
        model: The dense model; it is left as it is.
        example_inputs: A tensor, or a tuple of the positional inputs.
        example_kwargs: Keyword inputs.
        data, evaluate, rungs, samples: As for `surgery.compensate`; without data nothing but the exact fold is done.
            An importance that looks at data looks at all of it; the first samples are kept meanwhile, so that a
            generator will do.
        loss: For an importance by gradients, as `surgery.choose` takes it.
        prove: Compare the masked and the slim model, in float64 and in the model's own precision.
        choosing: Everything that `surgery.choose` takes: `keep_ratio`, `latency`, `importance`, `round_to`, ...

    Returns:
        The slim model with its plan, proof and costs, and the ladder. With a latency, `plan.aim` is what was measured
        of the slim model itself.

    Raises:
        InputError: The data, `evaluate` or an option cannot be used.
        CaptureError: The model refused the inputs or cannot be captured.
        CheckError: The proof fails.
    """
    if choosing.get("checkpoint") is not None:
        fact = "prune computes with the weights, and checkpoint= leaves them in their files"
        raise InputError(fact, "use choose with it, and plan.apply on the loaded model")
    data = None if data is None else kept(data, samples)
    widths = {name: choosing[name] for name in ("round_to", "uniform", "keep_class") if choosing.get(name) is not None}
    counted = next((name for name in MEASURES if choosing.get(name) is not None), None)
    over, most = 0.0, float("inf")
    for _ in range(ATTEMPTS):
        try:
            plan = choose(model, example_inputs, example_kwargs, data=data, loss=loss, **choosing)
        except InputError:
            if not over:
                raise
            break  # less cannot be had: some biases too many
        if counted is not None and most == float("inf"):
            budget, inputs = Budget(counted, choosing[counted]), Inputs.of(example_inputs, example_kwargs)
            most = budget.limit(budget.measure(model, inputs))
        compensated = compensate(
            model, plan, example_inputs, example_kwargs, data=data, evaluate=evaluate, rungs=rungs, samples=samples
        )
        result = shrink(
            compensated.model, example_inputs, example_kwargs, prove=prove, depth=bool(plan.bypasses), **widths
        )
        if counted is None or (excess := budget.measure(result.model, inputs) - most) <= 0:
            break
        over += excess  # biases that the ladder made; so much less is asked for
        choosing = {**choosing, counted: most - over}
    made = tuple(name for name in result.plan.shapes if name not in plan.shapes)
    result = replace(result, plan=replace(result.plan, made=made), params_before=count_params(model))
    if plan.aim is not None:
        aim = measured_again(plan.aim, model, result.model, Inputs.of(example_inputs, example_kwargs))
        more = result.plan.removed_channels - plan.removed_channels
        if more > 0 and aim.off < 0 and not aim.reached:
            notes = [*filter(None, [aim.note]), f"{more} channels more than were chosen did nothing, and went, too"]
            aim = replace(aim, note="; ".join(notes))
        result = replace(result, plan=replace(result.plan, aim=aim))
    carry_hooks_(model, result.model)
    return Pruned(**vars(result), chosen=plan, compensated=compensated)
