"""`surgery.choose`: pick the channels that matter least, of such as can then be cut exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from surgery.cutting.fallback import operate_anyhow
from surgery.cutting.operate import Operation
from surgery.deciding.build import zeros_of
from surgery.deciding.dead import decide
from surgery.deciding.importance import IMPORTANCES, Scores, importance_scores
from surgery.deciding.pick import lowest
from surgery.deciding.study import Study
from surgery.deciding.widths import ANY, Widths
from surgery.errors import InputError
from surgery.inputs import Example, Inputs
from surgery.layout import Bools
from surgery.masks import bake, check_finite
from surgery.plans import Plan
from surgery.progress import stage
from surgery.uniform import uniform_widths


def choose(
    model: nn.Module,
    example_inputs: Example,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    keep_ratio: float = 0.5,
    importance: str | Callable[[nn.Module], Scores] = "l2",
    round_to: int = 1,
    uniform: bool = False,
    keep_class: bool = False,
) -> Plan:
    """Choose the least important channels of every group, such that they can be cut exactly once they are zeroed.

    Nothing is changed: `plan.mask(model)` zeroes them, `plan.apply(model)` cuts them.

    Args:
        model: The dense model.
        example_inputs: A tensor, or a tuple of the positional inputs.
        example_kwargs: Keyword inputs.
        keep_ratio: The share of each group's channels that stays, in (0, 1]; at least one does.
        importance: `"l1"` or `"l2"`: the norm of everything that writes the channel. Or a function of the model that
            returns scores per parameter axis, `{"conv1.weight": [out_channels], ...}`; bigger is kept.
        round_to: Widths that stay are multiples of this.
        uniform: The same part of every layer stays as wide, and what the config of a model of transformers has no
            number for stays whole (see `shrink`).
        keep_class: Choose only what the model's code, as it is, can do without (see `shrink`).

    Raises:
        InputError: A ratio outside (0, 1], an unknown importance, scores of the wrong shape.
        CaptureError: The model refused the inputs or cannot be captured.
    """
    if not 0 < keep_ratio <= 1:
        raise InputError(f"keep_ratio is {keep_ratio}", "give the share of channels to keep, above 0 and at most 1")
    if isinstance(importance, str) and importance not in IMPORTANCES:
        raise InputError(
            f"unknown importance {importance!r}", f"choose one of {', '.join(IMPORTANCES)}, or pass a function"
        )
    if not isinstance(round_to, int) or round_to < 1:
        raise InputError(f"round_to is {round_to}", "give a whole number of channels, at least 1")
    check_finite(model)
    with stage("analysing"):
        study = Study.of(bake(model), Inputs.of(example_inputs, example_kwargs))
    with stage("choosing"):
        scores = importance_scores(study, importance)
        chosen, widths = lowest(study.coupling, scores, keep_ratio), Widths()

        def attempt(asked: Widths) -> Operation[Plan]:
            return exact_operation(study, chosen, widths=asked, keep_class=keep_class)[0]

        if uniform:
            widths = uniform_widths(study.model, study.inputs, 1, attempt)
        plan, carriers = exact_plan(study, chosen, widths=widths, keep_class=keep_class)
        if round_to == 1:
            return plan
        # a carrier takes one of the places in a rounded width
        chosen = lowest(study.coupling, scores, keep_ratio, round_to=round_to, taken=carriers)
        return exact_plan(study, chosen, widths=replace(widths, multiple=round_to), keep_class=keep_class)[0]


def exact_plan(
    study: Study, chosen: Bools, *, widths: Widths = ANY, dead_too: bool = False, keep_class: bool = False
) -> tuple[Plan, Bools]:
    """The plan that cuts the chosen channels, less those that could not go exactly; and its carriers, `[n_channels]`.

    With `dead_too` it cuts what is dead beside them, as well: that is not zeroed, for it asks for nothing.
    """
    done, carriers = exact_operation(study, chosen, widths=widths, dead_too=dead_too, keep_class=keep_class)
    return done.cuts, carriers


def exact_operation(
    study: Study, chosen: Bools, *, widths: Widths = ANY, dead_too: bool = False, keep_class: bool = False
) -> tuple[Operation[Plan], Bools]:
    """As `exact_plan`: the operation of which it is the plan."""
    columns = np.zeros_like(chosen)
    while True:
        masked, chosen, columns = zeroed_exactly(study, chosen, columns, widths=widths, dead_too=dead_too)
        allowed = None if dead_too else chosen
        done = operate_anyhow(masked, Plan, allowed=allowed, columns=columns, widths=widths, keep_class=keep_class)
        carriers = _carriers_of(masked, done)
        final = chosen & (~done.alive | carriers)
        if np.array_equal(final, chosen):
            return done, carriers
        chosen, columns = final, columns & final


def zeroed_exactly(
    study: Study, chosen: Bools, columns: Bools, *, widths: Widths = ANY, dead_too: bool = False
) -> tuple[Study, Bools, Bools]:
    """`(the study of a masked copy, the channels zeroed in it, those that are zeroed where they are read, too)`.

    Chosen channels are zeroed where they are written. Those that something would still notice are zeroed where they
    are read, too; those that stay all the same are dropped from the choice, until what is zeroed is what goes (or
    stays to carry a constant).
    """
    while True:
        masked = _zeroed(study, chosen, columns)
        decision = decide(masked.case, allowed=None if dead_too else chosen, widths=widths)
        zeroed = ~decision.alive | decision.carrying(masked.readings)
        blocked = chosen & ~zeroed
        if not blocked.any():
            return masked, chosen, columns
        # read all the same: zero the columns that read them; if that was done already, they stay
        chosen, columns = (chosen, blocked) if not columns.any() else (chosen & zeroed, columns & zeroed)


def _carriers_of(study: Study, done: Operation[Plan]) -> Bools:
    """Carriers of a finished operation, `[n_channels]`."""
    found = np.zeros(study.coupling.n_channels, bool)
    by_weight = {reading.weight_name: reading for reading in study.readings if reading.weight_name}
    for carry in done.cuts.carries:
        reading = by_weight[carry.weight]
        found[reading.channels.ravel()[carry.onto]] = True
    return found


def _zeroed(study: Study, chosen: Bools, columns: Bools) -> Study:
    """The study of a copy whose chosen channels are zero; the study itself where none are."""
    if not chosen.any():
        return study
    model = copy.deepcopy(study.model)
    masked = study.with_weights_of(model)
    Plan(axes=(), zeros=tuple(zeros_of(study.program, study.coupling, chosen, columns))).mask_(model)
    return masked
