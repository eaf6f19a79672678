"""Lively random nets, and three ways of putting zeros into them: by a plan, layer by layer, in the columns that read.

A net fresh from a library hides errors: its BatchNorms send nothing on, its layer scales are 1e-6, its outputs barely
depend on the input. `lively_` makes it one in which they show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils import prune

import surgery
from benchmarks.architecture import Architecture
from benchmarks.families import CLASSES
from benchmarks.prepared import prepare_
from surgery.inputs import Inputs

Layer = _ConvNd | nn.Linear
BATCH = 8


def layers_of(model: nn.Module) -> dict[str, Layer]:
    """Convolutions and linear layers by path."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Layer)}


def lively_(model: nn.Module, fed: Inputs, seed: int = 0) -> nn.Module:
    """Random statistics, biases, gains and layer scales; weights such that each layer's output differs by 1.

    Parameters that are the same everywhere (gains, layer scales, gates) become U(0.5, 1.5), weights that no layer here
    owns (stacked experts, position embeddings) get a deviation of at least 0.1, all others of at least 0.01 (some
    libraries draw them at 1e-10, which no input would get through); `prepare_` does the rest.
    """
    prepare_(model, seed)
    generator = torch.Generator().manual_seed(seed)
    levelled = {layer.weight for layer in layers_of(model).values()}
    with torch.no_grad():
        for parameter in model.parameters():
            if bool((parameter == parameter.flatten()[0]).all()):
                parameter.uniform_(0.5, 1.5, generator=generator)
            elif parameter.dim() > 1:
                least = 0.01 if parameter in levelled else 0.1
                parameter.mul_((least / parameter.std()).clamp_min(1))
    return levelled_(model, fed)


def levelled_(model: nn.Module, fed: Inputs) -> nn.Module:
    """Scale the weights layer by layer, in the order they run, until each output differs by 1 from input to input.

    Done again to a masked net: half of the signal is gone from every layer, and after fifty layers all of it would be.
    Layers that see no batch, or the same for each input (position tables), are left alone. `fed` is a call with a
    batch of `BATCH`.
    """

    def level(layer: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor | None:
        change = (out - out.mean(0, keepdim=True)).std()
        if out.shape[0] % BATCH or change < 1e-6:
            return None
        layer.weight.div_(change)  # type: ignore[operator]  # a parameter
        again: Tensor = layer.forward(*args)  # what it really gives now: some layers standardise their weight
        return again

    layers = [m for m in model.modules() if isinstance(m, Layer) or type(m).__name__ == "Conv1D"]  # transformers' own
    hooks = [layer.register_forward_hook(level) for layer in layers]
    with torch.no_grad():
        fed.call(model.eval())
    for hook in hooks:
        hook.remove()
    return model


def drawn(architecture: Architecture) -> Inputs:
    """The batch on which nets are levelled."""
    return architecture.inputs(seed=0, B=BATCH)


def by_plan(model: nn.Module, architecture: Architecture) -> nn.Module:
    """Half of every group's channels, chosen together: `choose`, then `mask`."""
    example = architecture.inputs()
    plan = surgery.choose(model, example.args, example.kwargs, keep_ratio=0.5)
    return levelled_(plan.mask(model), drawn(architecture))


def by_layers(model: nn.Module, architecture: Architecture) -> nn.Module:
    """Half of each layer's filters, those of the lowest norm, whatever the other layers do; BatchNorms as they are.

    Only the layers that are no wider than the net's outputs keep their filters.
    """
    for layer in layers_of(model).values():
        filters = 1 if isinstance(layer, _ConvTransposeNd) else 0
        if layer.weight.shape[filters] > CLASSES:
            prune.ln_structured(layer, "weight", amount=0.5, n=2, dim=filters)
            prune.remove(layer, "weight")
    return levelled_(model, drawn(architecture))


def by_columns(model: nn.Module, architecture: Architecture) -> nn.Module:
    """Half of every group's channels, chosen together, but zero where they are read; what writes them stays."""
    example = architecture.inputs()
    plan = surgery.choose(model, example.args, example.kwargs, keep_ratio=0.5)
    axes = {(axis.name, axis.dim): axis for axis in plan.axes}
    with torch.no_grad():
        for path, layer in layers_of(model).items():
            transposed = isinstance(layer, _ConvTransposeNd)
            conv_groups = 1 if transposed or isinstance(layer, nn.Linear) else layer.groups
            axis = axes.get((f"{path}.weight", 0 if transposed else 1))
            if axis is None or (conv_groups > 1 and layer.weight.shape[1] == 1):  # depthwise: it passes channels on
                continue
            gone = sorted(set(range(axis.size)) - set(axis.keep))
            if transposed or conv_groups == 1:
                layer.weight.index_fill_(0 if transposed else 1, torch.tensor(gone, dtype=torch.long), 0)
                continue
            by_group = layer.weight.unflatten(0, (conv_groups, -1))  # [groups, filters, columns, ...]
            for position in gone:
                by_group[position // layer.weight.shape[1], :, position % layer.weight.shape[1]] = 0
    return levelled_(model, drawn(architecture))


PREPARATIONS: dict[str, Callable[[nn.Module, Architecture], nn.Module]] = {
    "plan": by_plan,
    "layers": by_layers,
    "columns": by_columns,
}
"""Each takes a lively net, which it may change, and returns a masked one."""
