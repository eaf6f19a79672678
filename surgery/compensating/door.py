"""The door: a dense model and a plan in, a masked model out that was repaired rung by rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from surgery.analysis.graph_capture import as_written
from surgery.compensating import data as batches_of
from surgery.compensating.data import Batches
from surgery.compensating.judging import distance
from surgery.compensating.layers import layers_of, norms_of
from surgery.compensating.repairs import Done, repair_layers_, repair_statistics_, some
from surgery.compensating.result import TOLD, Compensated, Rung
from surgery.cutting.twins import sharing_copy
from surgery.deciding.checksums import checksum
from surgery.deciding.parts import AxisCut
from surgery.deciding.study import Study
from surgery.errors import InputError
from surgery.inputs import Example, Inputs
from surgery.judging import Evaluate, evaluated
from surgery.masks import bake, check_finite
from surgery.plans import Plan
from surgery.progress import stage
from surgery.tensors import named_tensors

RUNGS = tuple(TOLD)[1:]
"""What can be done with data, in this order."""


def compensate(
    model: nn.Module,
    plan: Plan,
    example_inputs: Example,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    data: Any = None,
    evaluate: Evaluate | None = None,
    rungs: Sequence[str] = RUNGS,
    samples: int = 512,
) -> Compensated:
    """Repair what a removal costs, without training, before it is cut.

    The ladder: the exact fold (what `plan.apply` does by itself); biases that take up the mean of what is missing;
    weights solved for by least squares, so that every layer that loses inputs answers what it answered in the dense
    net; BatchNorm statistics from the data. A layer, and a rung, that makes the held-out error larger is taken back.

    Args:
        model: The dense model; it is left as it is.
        plan: What will be removed, as from `surgery.choose`.
        example_inputs: A tensor, or a tuple of the positional inputs.
        example_kwargs: Keyword inputs.
        data: Batches like those the model will see, as `surgery.batches.batches` takes them: a DataLoader, a list, a
            generator or a function that returns one, of tensors, tuples (labels may follow the inputs; they are not
            needed) or dicts by argument name; or one tensor with samples along dim 0. One batch in four is held back
            to judge by. Where there is an `attention_mask` `[b, t]`, padding does not count. Without data the exact
            fold is all that is done.
        evaluate: Your own measure of a model, such as accuracy: called with the dense model and after every rung.
        rungs: Which rungs to climb: of `"bias"`, `"lstsq"`, `"batchnorm"`.
        samples: The most samples that are taken of the data.

    Returns:
        The masked model in its old shapes, the plan that cuts it, and the ladder.

    Raises:
        InputError: The data, `evaluate` or a rung cannot be used.
        PlanError: The plan was made for another model.
        CaptureError: The model refused the example inputs or cannot be captured.
    """
    inputs = Inputs.of(example_inputs, example_kwargs)
    unknown = [rung for rung in rungs if rung not in RUNGS]
    if isinstance(rungs, str) or unknown:
        raise InputError(f"unknown rung {rungs if isinstance(rungs, str) else unknown[0]!r}", f"give some of {RUNGS}")
    check_finite(model)
    found = None if data is None else batches_of.read(data, model, inputs, samples)
    dense = bake(model)
    masked = plan.mask(dense)
    training = {path: module.training for path, module in masked.named_modules()}
    with as_written():
        wanted = [rung for rung in RUNGS if rung in rungs]
        done = _climbed(dense.eval(), masked.eval(), plan, inputs, found, evaluate, wanted)
    for path, module in done.model.named_modules():
        module.training = training[path]
    return done


def _climbed(
    dense: nn.Module,
    masked: nn.Module,
    plan: Plan,
    inputs: Inputs,
    data: Batches | None,
    evaluate: Evaluate | None,
    rungs: Sequence[str],
) -> Compensated:
    own = _judged(evaluate, dense, "dense")
    error = None if data is None else distance(masked, dense, data.held, "error of the exact fold")
    ladder = [Rung("fold", error, _judged(evaluate, masked, "masked"))]
    if data is None or plan.empty:
        return Compensated(masked, plan, tuple(ladder), own, *_counts(data))
    with stage("analysing"):
        study = Study.of(dense, inputs)
        (layers, others), norms = layers_of(study, plan), norms_of(study, plan)
        rows = {layer.bias: layer.rows for each in layers for layer in each if layer.bias is not None}
    made: list[str] = []
    for name in rungs:
        trial = sharing_copy(masked)
        if name == "batchnorm":
            done = repair_statistics_(trial, norms, data)
        else:
            done = repair_layers_(trial, dense, layers, data, weights=name == "lstsq")
        before = error
        after = distance(trial, dense, data.held, f"error after {TOLD[name]}")
        taken = before is None or after <= before
        ladder.append(_rung(name, after, done, _judged(evaluate, trial, TOLD[name]), taken))
        if taken:
            masked, error = trial, after
            made += done.made
    fresh = _plan_of(plan, masked, {name: rows[name] for name in made})
    n_fit, n_held, notes = _counts(data)
    if others:
        notes += (f"only the exact fold at {some(others)}: no weight there is read as it is",)
    return Compensated(masked, fresh, tuple(ladder), own, n_fit, n_held, notes)


def _judged(evaluate: Evaluate | None, model: nn.Module, which: str) -> float | None:
    return None if evaluate is None else evaluated(evaluate, model, which)


def _counts(data: Batches | None) -> tuple[int, int, tuple[str, ...]]:
    return (0, 0, ()) if data is None else (data.n_fit, data.n_held, data.notes)


def _rung(name: str, error: float, done: Done, value: float | None, taken: bool) -> Rung:
    notes = list(done.notes)
    if done.made:
        notes.append(f"biases were made where there were none: {some(done.made)}")
    if not taken:
        notes.append("taken back, for the held-out error became larger")
    return Rung(name, error, value, done.layers, taken, tuple(notes))


def _plan_of(plan: Plan, model: nn.Module, made: Mapping[str, tuple[str, int]]) -> Plan:
    """The plan with the checksums of the repaired weights; biases that were made go with the rows of their weights."""
    tensors = named_tensors(model)
    axes, shapes = list(plan.axes), dict(plan.shapes)
    for bias, (weight, dim) in made.items():
        size = tensors[bias].numel()
        rows = next((axis for axis in plan.axes if (axis.name, axis.dim) == (weight, dim)), None)
        shapes[bias] = (size,)
        if rows is not None:
            axes.append(AxisCut(bias, 0, size, rows.keep, 1, (bias,), rows.why))
    checksums = {name: checksum(tensors[name]) for name in shapes} if plan.checksums else {}
    return replace(plan, axes=tuple(axes), shapes=shapes, checksums=checksums)
