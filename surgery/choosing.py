"""`surgery.choose`: pick the channels that matter least, of such as can then be cut exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import nn

from surgery.coupling import Bools, Coupling
from surgery.cutting.operate import Operation, operate
from surgery.deciding.build import zeros_of
from surgery.deciding.dead import Decision, decide
from surgery.deciding.importance import IMPORTANCES, Scores, importance_scores
from surgery.deciding.study import Study
from surgery.errors import InputError
from surgery.inputs import Example, Inputs
from surgery.layout import Ids
from surgery.masks import bake, check_finite
from surgery.plans import Plan
from surgery.progress import stage


def choose(
    model: nn.Module,
    example_inputs: Example,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    keep_ratio: float = 0.5,
    importance: str | Callable[[nn.Module], Scores] = "l2",
    round_to: int = 1,
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
        chosen = lowest(study.coupling, scores, keep_ratio, round_to)
        return exact_plan(study, chosen, round_to)


def lowest(coupling: Coupling, scores: np.ndarray, keep_ratio: float, round_to: int) -> Bools:  # type: ignore[type-arg]
    """The channels with the lowest scores of each group, equally many from each row of every rectangle.

    Args:
        coupling: The coupling.
        scores: One per channel, `[n_channels]`.
        keep_ratio: Share to keep.
        round_to: Multiple to keep.
    """
    cells = _cells(coupling)
    free = (coupling.pin_of < 0) & ~coupling.virtual
    chosen = np.zeros(coupling.n_channels, bool)
    members = np.flatnonzero(~coupling.virtual)
    sizes = np.bincount(coupling.group_of[members], minlength=int(coupling.group_of.max(initial=-1)) + 1)
    keep = np.maximum(np.ceil(sizes * keep_ratio - 1e-9).astype(np.int64), 1)
    keep = np.minimum(-(-keep // round_to) * round_to, sizes)
    # one key per (group, cell); the same share of every cell goes
    _, cell_of = np.unique(np.stack([coupling.group_of, cells]), axis=1, return_inverse=True)
    cell_of = cell_of.ravel()
    candidates = members[free[members]]
    order = candidates[np.lexsort((scores[candidates], cell_of[candidates]))]
    starts = np.searchsorted(cell_of[order], np.arange(cell_of.max(initial=-1) + 1))
    rank = np.arange(order.size) - starts[cell_of[order]]
    cell_sizes = np.bincount(cell_of[members], minlength=starts.size)
    group = coupling.group_of[order]
    share = (sizes[group] - keep[group]) / sizes[group]
    chosen[order[rank < np.floor(cell_sizes[cell_of[order]] * share + 1e-9)]] = True
    return chosen


def _cells(coupling: Coupling) -> Ids:
    """A label for every channel: in which row of each rectangle it lies, `[n_channels]`."""
    generator = np.random.default_rng(1)
    label = np.zeros(coupling.n_channels, np.int64)
    for uniform in coupling.uniforms:
        for array in uniform.arrays:
            rows, columns = array.shape
            if rows == 1 or columns == 1:
                continue
            salt = generator.integers(1, 2**61, rows)
            channel = coupling.channel_of[array]
            # a channel that lies in several rows is no part of any one of them
            first = np.full(coupling.n_channels, -1, np.int64)
            first[channel.ravel()] = np.repeat(np.arange(rows), columns)
            spread = np.zeros(coupling.n_channels, bool)
            spread[channel[first[channel] != np.arange(rows)[:, None]]] = True
            inside = np.unique(channel)
            inside = inside[~spread[inside]]
            label[inside] += salt[first[inside]]
    return label


def exact_plan(study: Study, chosen: Bools, round_to: int) -> Plan:
    """The plan that cuts the chosen channels, less those that could not go exactly.

    Chosen channels are zeroed where they are written. Those that something would still notice are zeroed where they
    are read, too; those that stay all the same are dropped from the choice, until what is zeroed is what goes (or
    stays to carry a constant).
    """
    columns = np.zeros_like(chosen)
    while True:
        masked = _zeroed(study, chosen, columns)
        decision = decide(masked.case, allowed=chosen, round_to=round_to)
        zeroed = ~decision.alive | _carriers(masked, decision)
        blocked = chosen & ~zeroed
        if blocked.any():
            # read all the same: zero the columns that read them; if that was done already, they stay
            chosen, columns = (chosen, blocked) if not columns.any() else (chosen & zeroed, columns & zeroed)
            continue
        done = operate(masked, Plan, allowed=chosen, columns=columns, round_to=round_to)
        final = chosen & (~done.alive | _zeroed_by(masked, done))
        if np.array_equal(final, chosen):
            return done.cuts
        chosen, columns = final, columns & final


def _carriers(study: Study, decision: Decision) -> Bools:
    """Channels that stay to carry constants, `[n_channels]`."""
    found = np.zeros(study.coupling.n_channels, bool)
    for index, carriers in decision.carriers.items():
        for carrier in carriers:
            found[study.readings[index].channels[carrier.conv_group, carrier.position]] = True
    return found


def _zeroed_by(study: Study, done: Operation[Plan]) -> Bools:
    """Carriers of a finished operation, `[n_channels]`."""
    found = np.zeros(study.coupling.n_channels, bool)
    by_weight = {reading.weight_name: reading for reading in study.readings if reading.weight_name}
    for carry in done.cuts.carries:
        reading = by_weight[carry.weight]
        found[reading.channels.ravel()[carry.onto]] = True
    return found


def _zeroed(study: Study, chosen: Bools, columns: Bools) -> Study:
    """The study of a copy whose chosen channels are zero."""
    model = copy.deepcopy(study.model)
    masked = study.with_weights_of(model)
    Plan(axes=(), zeros=tuple(zeros_of(study.program, study.coupling, chosen, columns))).mask_(model)
    return masked
