"""`surgery.sensitivity`: how much worse a model is without a share of one group's channels, group by group."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from surgery.analysis.capture import evaluating
from surgery.batches import Batch, batches, first
from surgery.caches import forget_
from surgery.choosing import zeroed_exactly
from surgery.compensating.judging import answer, apart
from surgery.compensating.repairs import some
from surgery.deciding.build import sides_of, zeros_of
from surgery.deciding.criteria import Feed, Loss
from surgery.deciding.criteria.gradients import has_own_loss, scalar_loss
from surgery.deciding.cuts import zero_
from surgery.deciding.importance import Importance, check_importance, importance_scores, name_of
from surgery.deciding.pick import Ranking
from surgery.deciding.steps import protected
from surgery.deciding.stranded import axes_by_group
from surgery.deciding.study import Study
from surgery.errors import InputError
from surgery.inputs import Example, Inputs
from surgery.iterating import kept
from surgery.judging import Evaluate, value_of
from surgery.layout import Bools
from surgery.masks import bake, check_finite
from surgery.progress import stage, track
from surgery.sensitivities import ERROR, EVALUATE, LOSS, Curve, Point, Sensitivity
from surgery.tensors import named_tensors

RATIOS = (0.25, 0.5, 0.75, 0.9)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a sensitivity study; `sensitivity` holds the groups that were measured until then."""

    def __init__(self, sensitivity: Sensitivity) -> None:
        super().__init__()
        self.sensitivity = sensitivity


def sensitivity(
    model: nn.Module,
    example_inputs: Example,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    loss: Loss | None = None,
    evaluate: Evaluate | None = None,
    importance: str | Importance = "l2",
    ratios: Sequence[float] = RATIOS,
    protect: Sequence[str] = (),
    samples: int = 512,
    seed: int = 0,
) -> Sensitivity:
    """Measure how much worse the model gets when one group alone gives up a share of its channels, all others whole.

    What is measured is what `evaluate` returns; without it the mean loss over the data, where there is a loss; else the
    error of the outputs beside the dense model's (as in `surgery.compensate`), which needs no labels. Channels are
    masked in place in one copy of the model, as `plan.mask` does it, so that what is measured is what a cut computes.

    Args:
        model: The dense model; it is left as it is.
        example_inputs: A tensor, or a tuple of the positional inputs.
        example_kwargs: Keyword inputs.
        data: Batches, as for `surgery.choose`. An importance that looks at data looks at all of it.
        loss: A function of (outputs, targets), as for `surgery.choose`; None where the model's output has a `loss`.
        evaluate: Your own measure of a model, such as accuracy: more is better.
        importance: As for `surgery.choose`: the lowest channels of a group go first.
        ratios: The shares of a group that go, each above 0 and below 1.
        protect: Names of modules and tensors that are not to be measured, as for `surgery.choose`.
        samples: The most samples of the data that are measured on.
        seed: Of what is drawn at random.

    Returns:
        The curves of all groups: a table, a plot, and an importance for `surgery.choose`.

    Raises:
        InputError: There is nothing to measure, or the data, `loss`, `evaluate` or an option cannot be used.
        CaptureError: The model refused the inputs or cannot be captured.
        Interrupted: Ctrl-C; it holds what was measured.
    """
    wanted = _ratios(ratios)
    check_importance(importance, data)
    if evaluate is None and data is None:
        raise InputError("there is nothing to measure the model by", "pass evaluate=, or data= (and loss=)")
    check_finite(model)
    data = None if data is None else kept(data, samples)
    with stage("analysing"):
        study = Study.of(bake(model), Inputs.of(example_inputs, example_kwargs))
    held = protected(study.model, study.coupling, protect)
    ranking = Ranking.of(study.coupling, importance_scores(study, importance, Feed(data, loss, seed)), held)
    gauge = _gauge(study, data, loss, evaluate, samples)
    found = Sensitivity(
        model=type(model).__name__,
        measured=gauge.measured,
        dense=gauge.dense,
        importance=name_of(importance),
        ratios=wanted,
        samples=gauge.samples,
        curves=(),
    )
    return _measured(study, ranking, gauge, found)


def _ratios(ratios: Sequence[float]) -> tuple[float, ...]:
    try:
        wanted = tuple(sorted({float(ratio) for ratio in ratios}))
    except (TypeError, ValueError) as error:
        raise InputError(f"ratios is {ratios!r}", "give shares of channels that go, such as (0.25, 0.5)") from error
    if not wanted or not all(0 < ratio < 1 for ratio in wanted):
        told = ", ".join(f"{ratio:g}" for ratio in wanted) or "empty"
        raise InputError(f"ratios is {told}", "give shares of channels that go, each above 0 and below 1")
    return wanted


@dataclass(frozen=True)
class _Gauge:
    """What a model is measured by: `value` of a model (None: no finite number), and what that is of the dense one."""

    measured: str
    value: Callable[[str], float | None]
    dense: float
    samples: int = 0


def _gauge(study: Study, data: Any, loss: Loss | None, evaluate: Evaluate | None, samples: int) -> _Gauge:
    """What the study's model, which is masked in place, is measured by.

    Raises:
        InputError: The data cannot be used, or the dense model has no finite value.
    """
    model = study.model
    if evaluate is not None:
        with stage("evaluating dense"):
            dense = value_of(evaluate, model, "dense")
        return _Gauge(EVALUATE, lambda which: _finite(value_of(evaluate, model, which)), dense)
    found = list(first(batches(data, model, study.inputs), samples))
    size = sum(batch.size for batch in found)
    with stage("running dense"), evaluating(model), torch.no_grad():
        if loss is not None or has_own_loss(found[0].run(model)):
            dense = _mean_loss(model, found, loss)
            if not math.isfinite(dense):
                raise InputError(f"the loss of the dense model is {dense}", "look at the data, and at the loss")
            return _Gauge(LOSS, lambda which: _finite(_mean_loss(model, found, loss)), dense, size)
        calls = [batch.inputs for batch in found]
        answers = [answer(model, call) for call in calls]
        apart(zip(calls, answers, answers, strict=True))  # NaN, or nothing to compare

    def error(which: str) -> float | None:
        now = [answer(model, call) for call in calls]
        if not all(tensor.isfinite().all() for one in now for tensor in one.floats.values()):
            return None
        return _finite(apart(zip(calls, answers, now, strict=True)))

    return _Gauge(ERROR, error, 0.0, size)


def _mean_loss(model: nn.Module, found: Sequence[Batch], loss: Loss | None) -> float:
    total = sum(float(scalar_loss(batch.run(model), batch, loss)) * batch.size for batch in found)
    return total / sum(batch.size for batch in found)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _measured(study: Study, ranking: Ranking, gauge: _Gauge, found: Sensitivity) -> Sensitivity:
    """The curve of every group.

    Raises:
        Interrupted: Ctrl-C.
    """
    starts = _starts(study, ranking, found.ratios)
    steps = [(start, ratio) for start in starts for ratio in found.ratios]
    points: list[Point] = []
    rows = columns = np.zeros(study.coupling.n_channels, bool)
    try:
        for start, ratio in track(steps, f"sensitivity of {len(starts)} groups"):
            if ratio == found.ratios[0]:
                points = []
                most = ranking.chosen(start.shares(ranking, found.ratios[-1]))
                _, rows, columns = zeroed_exactly(study, most, np.zeros_like(most))
            going = ranking.chosen(start.shares(ranking, ratio)) & rows
            removed = int((going & start.members).sum())
            if removed > (points[-1].removed if points else 0):
                with _masked(study, going, going & columns), evaluating(study.model), torch.no_grad():
                    value = gauge.value(f"less {ratio:.0%} of {start.curve.name}")
                points.append(Point(ratio, removed, value))
            if ratio == found.ratios[-1] and points:
                found = replace(found, curves=(*found.curves, replace(start.curve, points=tuple(points))))
    except KeyboardInterrupt:
        raise Interrupted(replace(found, interrupted=True)) from None
    return replace(found, notes=tuple(_notes(found, [start.curve for start in starts])))


def _notes(found: Sensitivity, asked: Sequence[Curve]) -> Iterator[str]:
    """What a reader should know of what was measured."""
    measured = {curve.axis for curve in found.curves}
    left = [curve.name for curve in asked if curve.axis not in measured]
    if left:
        yield f"not measured, for no such share can go while all others stay: {some(left)}"
    values = [point.value for curve in found.curves for point in curve.points if point.value is not None]
    if found.measured == EVALUATE and sum(value > found.dense for value in values) > len(values) / 2:
        yield "evaluate returned more for most cuts than for the whole model, which counts as better: is that meant?"


@dataclass(frozen=True)
class _Start:
    """A group before it is measured: its number, its channels that may go `[n_channels]`, its curve without points."""

    group: int
    members: Bools
    curve: Curve

    def shares(self, ranking: Ranking, ratio: float) -> Any:
        """This share of this group, none of the others, `[n_groups]`."""
        shares = np.zeros(ranking.sizes.size)
        shares[self.group] = ratio
        return shares


def _starts(study: Study, ranking: Ranking, ratios: Sequence[float]) -> list[_Start]:
    """Every group of which something may go, in the order in which the model hands them out.

    Raises:
        InputError: There is none.
    """
    coupling = study.coupling
    order = {key: place for place, key in enumerate(sides_of(study.program, coupling)[0])}
    lived_on = axes_by_group(coupling)
    gone_at = np.full(coupling.n_channels, np.inf)
    gone_at[ranking.atoms] = ranking.share
    gone_at = gone_at[ranking.atom_of]  # the share at which each channel goes
    found: list[tuple[int, _Start]] = []
    for group in np.unique(ranking.group).tolist():
        axis = min(lived_on[group], key=lambda axis: order.get((axis.name, axis.dim), len(order)))
        channels = coupling.channel_of[axis.ids].ravel()
        inside, places = np.unique(channels, return_index=True)
        mine = (coupling.group_of[inside] == group) & np.isfinite(gone_at[inside])
        inside, places = inside[mine], places[mine]
        members = np.zeros(coupling.n_channels, bool)
        members[inside] = True
        sorted_ = places[np.argsort(gone_at[inside], kind="stable")]
        size = int(ranking.sizes[group])
        curve = Curve(axis.name, str(axis), int(channels.size), size, tuple(sorted_.tolist()), ())
        found.append((order.get((axis.name, axis.dim), len(order)), _Start(group, members, curve)))
    if not found:
        raise InputError("no channel may go", "see surgery.analyze for what pins them, and protect less")
    return [start for _, start in sorted(found, key=lambda one: one[0])]


@contextmanager
def _masked(study: Study, rows: Bools, columns: Bools) -> Iterator[None]:
    """The study's model with these channels zeroed inside; as it was afterwards, whatever happens."""
    tensors = named_tensors(study.model)
    zeros = zeros_of(study.program, study.coupling, rows, columns)
    before: dict[str, Tensor] = {one.name: tensors[one.name].detach().clone() for one in zeros}
    try:
        with torch.no_grad():
            for one in zeros:
                zero_(tensors[one.name], one)
        forget_(study.model)
        yield
    finally:
        with torch.no_grad():
            for name, tensor in before.items():
                tensors[name].copy_(tensor)
        forget_(study.model)
