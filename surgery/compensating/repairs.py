"""The rungs themselves: each changes a masked model in place and says what it did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from surgery.compensating.data import Batches
from surgery.compensating.layers import Layer, Norm
from surgery.compensating.moments import Correction, Moments, best
from surgery.compensating.rows import inputs_at, outputs_at, pick
from surgery.compensating.taps import Op, listen
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.progress import track
from surgery.rules.convolution import oriented
from surgery.tensors import named_tensors

ROWS_PER_UNKNOWN = 32
"""So many rows are looked at for every weight of an output that is solved for, where there are more."""

ROWS_AT_LEAST = 1 << 14
"""But for small layers, at least so many in all."""

ROWS_OF_MEANS = 1 << 16
"""At most so many rows of a batch are looked at where only means are taken."""

MOST_UNKNOWNS = 12_288
"""Above this the normal equations would take more than a gigabyte, and a layer keeps its weights."""


@dataclass
class Done:
    """What a rung changed (mutable while it runs): how many layers, and what is to be said of it."""

    layers: int = 0
    made: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def repair_layers_(
    model: nn.Module, dense: nn.Module, stages: Sequence[Sequence[Layer]], data: Batches, *, weights: bool
) -> Done:
    """Bias correction or least squares, layer by layer in the order in which they run.

    The inputs are those of the masked net as it is repaired so far, the targets the outputs of the dense one (where
    these are added to a residual stream, the sums). Without `weights` the bias takes up the mean of what is missing: of
    the first layers that is `W[:, removed]` times the mean of what was removed (An et al. 2024, FLAP), of later ones
    also what the layers before them could not make up for. With `weights` the inputs that stay take up what they can
    (He et al. 2017). A layer whose error on the held-out batches does not get smaller keeps what it had.

    Args:
        model: The masked model; changed.
        dense: The model before.
        stages: The layers that lose inputs.
        data: The batches.
        weights: Solve for the weights, too.
    """
    done = Done()
    left: dict[str, list[str]] = {}
    usable = [[layer for layer in stage if not _refused(left, layer, weights)] for stage in stages]
    sides = [(side, place) for side, calls in enumerate((data.fit, data.held)) for place in range(len(calls))]
    steps = [(stage, side, place) for stage in usable if stage for side, place in sides]
    sums: dict[str, tuple[Moments, Moments]] = {}
    for stage, side, place in track(steps, "least squares" if weights else "mean activations"):
        if (side, place) == sides[0]:
            sums = {layer.name: (Moments(), Moments()) for layer in stage}
        calls = (data.fit, data.held)[side]
        share = 1 / len(calls) if weights else None
        _gather(model, dense, stage, calls[place], {name: both[side] for name, both in sums.items()}, share, place)
        if (side, place) == sides[-1]:
            for layer in stage:
                _solve_(model, layer, *sums[layer.name], weights, done, left)
    done.notes += [f"{why}: {some(places)}" for why, places in left.items()]
    return done


NOT_BETTER = "held-out error not smaller, kept as they were"


def _refused(left: dict[str, list[str]], layer: Layer, weights: bool) -> bool:
    """Whether nothing can be done for a layer, and why."""
    reason = ""
    if not weights:
        reason = "" if layer.bias is not None else f"no bias, for {layer.no_bias}"
    elif layer.refusal:
        reason = f"weights left alone, for {layer.refusal}"
    elif not layer.groups.size:
        reason = "weights left alone, for nothing is left that they read"
    elif np.unique(layer.inputs[layer.groups].sum(1)).size > 1:
        reason = "weights left alone, for their conv groups read unequal numbers of inputs"
    elif layer.inputs.sum(1).max() > MOST_UNKNOWNS:
        reason = f"weights left alone, for they read more than {MOST_UNKNOWNS} inputs"
    if reason:
        left.setdefault(reason, []).append(layer.place)
    return bool(reason)


def _gather(
    model: nn.Module,
    dense: nn.Module,
    stage: Sequence[Layer],
    call: Inputs,
    sums: Mapping[str, Moments],
    share: float | None,
    seed: int,
) -> None:
    """Add the rows of one batch to the sums of a stage's layers; where `share` is None, without their inputs."""
    layers = {layer.name: layer for layer in stage}
    calls = {layer.name: layer.calls for layer in stage}
    joining = {layer.name for layer in stage if layer.joins}
    targets: dict[str, list[Tensor]] = {}

    def heard(name: str, op: Op) -> None:
        targets.setdefault(name, []).append(outputs_at(op, _rows(op, layers[name], call, share, seed)))

    def hit(name: str, op: Op) -> None:
        layer = layers[name]
        if not targets.get(name):
            return
        target, rows = targets[name].pop(0), _rows(op, layer, call, share, seed)
        missing = (_wide(target) - _wide(outputs_at(op, rows))).unflatten(1, (layer.inputs.shape[0], -1))
        missing = missing.masked_fill(~torch.from_numpy(layer.outputs).to(missing.device), 0)
        if share is None:
            sums[name].add(missing.new_zeros((*missing.shape[:2], 0)), missing)
            return
        missing = missing[:, layer.groups]
        groups, inputs = _places(layer, op.input.device)
        for places, seen in inputs_at(op, layer, rows):
            sums[name].add(
                _wide(seen[:, groups, inputs].flatten(2)), missing[places.to(missing.device)]
            )  # (n, g, inputs * kernel)

    listen(dense, call, calls, heard, joining)
    listen(model, call, calls, hit, joining)


def _rows(op: Op, layer: Layer, call: Inputs, share: float | None, seed: int) -> Tensor:
    """The rows of a batch to look at: (nearly) all of them, or its share of what it takes to solve for the weights."""
    if share is None:
        return pick(op, call, ROWS_OF_MEANS, seed)
    kernel = op.settings["weight"].shape[2:].numel() if "weight" in op.settings else 1
    unknowns = int(layer.inputs.sum(1).max()) * kernel + 1
    return pick(op, call, math.ceil(max(ROWS_PER_UNKNOWN * unknowns, ROWS_AT_LEAST) * share), seed)


def _wide(tensor: Tensor) -> Tensor:
    """In float64, where the device has it."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).to(torch.float64)


def _places(layer: Layer, device: torch.device) -> tuple[Tensor, Tensor]:
    """`(conv groups that stay [g, 1], their inputs that stay [g, i])`."""
    inputs = layer.inputs[layer.groups].nonzero()[1].reshape(layer.groups.size, -1)
    return torch.from_numpy(layer.groups[:, None]).to(device), torch.from_numpy(inputs).to(device)


def _solve_(
    model: nn.Module,
    layer: Layer,
    fit: Moments,
    held: Moments,
    weights: bool,
    done: Done,
    left: dict[str, list[str]],
) -> None:
    """Give a layer what is best on the held-out rows."""
    if not fit.n or not held.n:
        left.setdefault("the data does not reach them", []).append(layer.place)
        return
    if not fit.finite or not held.finite:
        raise _not_finite(layer.place)
    found = best(fit, held, with_bias=layer.bias is not None, with_weights=weights)
    if found is None:
        left.setdefault(NOT_BETTER, []).append(layer.place)
        return
    if weights:
        _write_(model, layer, found)
    if layer.bias is not None:
        delta = torch.zeros(layer.outputs.shape, dtype=torch.float64)
        delta[layer.groups if weights else slice(None)] = found.bias.cpu()
        done.made += add_to_bias_(model, layer.bias, delta.reshape(-1))
    done.layers += 1


def _write_(model: nn.Module, layer: Layer, found: Correction) -> None:
    """Add a correction to the weights that stay; in float64, cast once. The weight gets new memory."""
    parameter = named_tensors(model)[layer.name]
    weight = parameter.detach().permute(layer.dims)
    full = oriented(weight, layer.inputs.shape[0], layer.orientation).to("cpu", torch.float64, copy=True)
    groups, inputs = _places(layer, torch.device("cpu"))
    delta = found.weight.cpu().unflatten(2, (inputs.shape[1], -1))  # (g, o, i, k)
    full[groups, :, inputs] += delta.transpose(1, 2)  # indices around a slice come first: (g, i, o, k)
    if layer.orientation == "in_out":
        full = full.transpose(1, 2)
    back = [layer.dims.index(dim) for dim in range(len(layer.dims))]
    new = full.reshape(weight.shape).permute(back).contiguous()
    parameter.data = new.to(parameter.device, parameter.dtype)


def add_to_bias_(model: nn.Module, name: str, delta: Tensor) -> list[str]:
    """`bias += delta` in float64, cast once; its name, where the bias had to be made."""
    path, _, attribute = name.rpartition(".")
    module = model.get_submodule(path)
    bias = getattr(module, attribute, None)
    if bias is None:
        weight = next(module.parameters(recurse=False))
        made = delta.to(weight.device, weight.dtype)
        setattr(module, attribute, nn.Parameter(made, requires_grad=weight.requires_grad))
        return [name]
    bias.data = (bias.detach().to("cpu", torch.float64) + delta.cpu()).to(bias.device, bias.dtype)
    return []


def repair_statistics_(model: nn.Module, stages: Sequence[Sequence[Norm]], data: Batches) -> Done:
    """Every BatchNorm gets the mean and the variance that arrive at it on the data, one after the other as they run.

    Of the channels that stay; those that go keep theirs, and so the constants that they send on.

    Args:
        model: The masked model; changed.
        stages: Its BatchNorms.
        data: The batches.
    """
    done = Done()
    sums: dict[str, list[Tensor]] = {}
    counts: dict[str, int] = {}
    steps = [(stage, place) for stage in stages for place in range(len(data.fit))]
    for stage, place in track(steps, "BatchNorm statistics"):

        def hit(name: str, op: Op) -> None:
            x = _wide(op.input).movedim(1, 0).flatten(1)  # (c, samples x positions)
            mine = sums.setdefault(name, [torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0])])
            mine[0] += x.sum(1)
            mine[1] += x.square().sum(1)
            counts[name] = counts.get(name, 0) + x.shape[1]

        listen(model, data.fit[place], {norm.mean: norm.calls for norm in stage}, hit)
        if place == len(data.fit) - 1:
            tensors = named_tensors(model)
            for norm in (norm for norm in stage if counts.get(norm.mean, 0) > 1):
                total, squares = sums.pop(norm.mean)
                n = counts[norm.mean]
                mean = total / n
                var = ((squares - n * mean.square()) / (n - 1)).clamp(min=0)
                if not (mean.isfinite().all() and var.isfinite().all()):
                    raise _not_finite(norm.mean.rpartition(".")[0])
                _settle_(tensors, norm, mean, var)
                done.layers += 1
    return done


def _settle_(tensors: Mapping[str, Tensor], norm: Norm, mean: Tensor, var: Tensor) -> None:
    keep = torch.from_numpy(norm.keep)
    for name, value in ((norm.mean, mean), (norm.var, var)):
        old = tensors[name]
        old.copy_(torch.where(keep.to(old.device), value.to(old.device, old.dtype), old))


def _not_finite(place: str) -> InputError:
    return InputError(
        f"what arrives at {place} on the data is NaN or infinite",
        "clean the data, or run the model in a wider precision: what is learnt from it would be meaningless",
    )


def some(places: Sequence[str]) -> str:
    """The first few of them, and how many more."""
    more = f" and {len(places) - 4} more" if len(places) > 4 else ""
    return ", ".join(places[:4]) + more
