"""Our groups of channels as torch-pruning's `Group` objects, so that what scores its groups scores ours.

A group of torch-pruning is a list of items: a layer, the function that would cut it there (by which criteria tell
outputs from inputs), the positions on it and, for each, the channel that it belongs to. Every axis that a group of
ours lives on becomes such an item. Where the layer is one that torch-pruning knows (a convolution, a linear layer, a
norm, an embedding, a PReLU), it is that layer; any other weight that channels are contracted with (a bare parameter,
the fused weight of an attention, experts, the gates of a recurrent layer, a grouped transposed kernel) is shown as a
linear layer that holds the slices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from surgery.coupling import Axis
from surgery.deciding.build import sides_of
from surgery.deciding.criteria.slices import slices
from surgery.deciding.study import Study
from surgery.deciding.widths import axes_of_groups
from surgery.layout import Ids

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
KNOWN = (
    nn.Linear,
    nn.Embedding,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.PReLU,
)
"""Layers, beside convolutions, that torch-pruning has a name for."""


@dataclass(frozen=True)
class Scored:
    """One group of ours, ready for a criterion.

    Attributes:
        group: The `torch_pruning` group.
        channels: Our channel for each root index, `[n]`.
        name: The tensor that hands the channels out first.
    """

    group: Any
    channels: Ids
    name: str


@dataclass(frozen=True)
class _Item:
    """A layer, what would cut it, and the positions on it; `reads` where these are its inputs."""

    layer: nn.Module
    handler: Any
    positions: Ids
    roots: Ids
    name: str
    reads: bool = False


def groups_of(study: Study, handlers: dict[Any, Any] | None = None, *, graded: bool = False) -> Iterator[Scored]:
    """Every group of the study that has a channel that may go.

    Args:
        study: The model and its coupling; gradients that its parameters have are shown, too.
        handlers: Functions to name in the place of others.
        graded: Leave out what has no gradient (a stem under `no_grad`).
    """
    import torch_pruning as tp

    builder = _Builder(study, handlers or {}, graded)
    coupling = study.coupling
    graph = tp.DependencyGraph()
    graph.model = study.model
    graph._module2name = {module: path for path, module in study.model.named_modules()}
    for number, axes in enumerate(axes_of_groups(coupling)):
        inside = (coupling.group_of == number) & ~coupling.virtual
        if not (inside & coupling.reported & (coupling.pin_of < 0)).any():
            continue
        items, channels = builder.items(axes, inside)
        if items:
            group = _group(tp, items)
            group._DG = graph
            yield Scored(group, channels, items[0].name)


def _group(tp: Any, items: Sequence[_Item]) -> Any:
    """The items as torch-pruning holds them."""
    from torch_pruning import _helpers
    from torch_pruning.dependency.node import Node

    group = tp.dependency.Group()
    nodes = [Node(item.layer, None, item.name) for item in items]
    for item, node in zip(items, nodes, strict=True):
        dependency = tp.dependency.Dependency(items[0].handler, item.handler, source=nodes[0], target=node)
        entry = _helpers.GroupItem(dep=dependency, idxs=item.positions.tolist())
        entry.root_idxs = item.roots.tolist()
        group.items.append(entry)
    return group


_Shown = tuple[nn.Module, Any, bool]
"""A layer, what would cut it, and whether it reads the channels."""


class _Builder:
    """What the tensors of a study are to torch-pruning."""

    def __init__(self, study: Study, handlers: dict[Any, Any], graded: bool) -> None:
        self.study, self.graded = study, graded
        self.handlers = handlers
        producers, consumers = sides_of(study.program, study.coupling)
        self.producers, self.consumers = set(producers), set(consumers)
        self.contracted = {name for name, _ in consumers}
        self.number = {key: place for place, key in enumerate(study.coupling.axes)}
        self.layers: dict[tuple[str, int], _Shown | None] = {}

    def items(self, axes: Sequence[Axis], inside: Any) -> tuple[list[_Item], Ids]:
        """The items of a group, its root first, then the other outputs, then the inputs; and the channels by root."""
        axes = sorted(axes, key=lambda axis: self.number[axis.name, axis.dim])
        root = self._root(axes, inside)
        of = self.study.coupling.channel_of
        on_root = of[root.ids].ravel()
        _, first = np.unique(np.where(inside[on_root], on_root, -1), return_index=True)
        channels = on_root[np.sort(first[inside[on_root[first]]])]
        rank = np.full(self.study.coupling.n_channels, -1, np.int64)
        rank[channels] = np.arange(channels.size)
        found: list[_Item] = []
        for axis in [root, *(axis for axis in axes if axis is not root)]:
            roots = rank[of[axis.ids].ravel()]
            positions = np.flatnonzero(roots >= 0)
            shown = self._shown(axis)
            if shown is None or any(item.layer is shown[0] and item.handler == shown[1] for item in found):
                continue
            layer, handler, reads = shown
            rounds = self._rounds(positions, roots) if axis is root else [positions]
            found += [_Item(layer, handler, places, roots[places], axis.name, reads) for places in rounds]
        if not found or found[0].positions.size != channels.size:
            return [], channels
        return [found[0], *sorted(found[1:], key=lambda item: item.reads)], channels

    def _root(self, axes: Sequence[Axis], inside: Any) -> Axis:
        """The first axis that hands the channels out, one position for each where there is such."""
        of = self.study.coupling.channel_of
        n = int(inside.sum())

        def badness(axis: Axis) -> tuple[bool, bool, bool]:
            key = axis.name, axis.dim
            weight = key in self.producers and self._shown(axis) is not None
            return not weight, self._shown(axis) is None, int(inside[of[axis.ids]].sum()) != n

        return min(axes, key=badness)  # the first of the best

    def _rounds(self, positions: Ids, roots: Ids) -> list[Ids]:
        """The root's positions so that each channel is there once, in as many rounds as it has positions."""
        order = np.lexsort((positions, roots[positions]))
        ranked = roots[positions][order]
        starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1])) if ranked.size else ranked
        turn = np.empty(positions.size, np.int64)
        turn[order] = np.arange(positions.size) - np.repeat(starts, np.diff(np.append(starts, ranked.size)))
        return [positions[turn == number] for number in range(int(turn.max(initial=-1)) + 1)]

    def _shown(self, axis: Axis) -> _Shown | None:
        """What an axis is to torch-pruning; None where nothing can be shown."""
        key = axis.name, axis.dim
        if key not in self.layers:
            shown = self._layer(axis) or self._stand_in(axis)
            weight = None if shown is None else getattr(shown[0], "weight", None)
            self.layers[key] = None if self.graded and (weight is None or weight.grad is None) else shown
        return self.layers[key]

    def _layer(self, axis: Axis) -> _Shown | None:
        """The layer of a kind that torch-pruning knows."""
        from torch_pruning import ops
        from torch_pruning.pruner import function

        owner, _, attribute = axis.name.rpartition(".")
        module = self.study.model.get_submodule(owner)
        reads = (axis.name, axis.dim) in self.consumers
        if isinstance(module, CONVOLUTIONS):  # criteria take what reads one conv group for what reads them all
            known = module.groups == 1 or not (module.transposed or reads)
        else:
            known = isinstance(module, KNOWN)
        if not known or attribute not in ("weight", "bias", "running_mean", "running_var"):
            return None
        pruner = function.PrunerBox[ops.module2type(module)]
        handler = pruner.prune_in_channels if reads else pruner.prune_out_channels
        return module, self.handlers.get(handler, handler), reads

    def _stand_in(self, axis: Axis) -> _Shown | None:
        """A linear layer whose outputs (or inputs) are the positions of an axis, with their gradients."""
        from torch_pruning.pruner import function

        key, tensor = (axis.name, axis.dim), self.study.program.tensors[axis.name]
        reads = key in self.consumers
        if axis.name not in self.contracted or not (reads or key in self.producers):
            return None

        def shown(tensor: Tensor) -> Tensor:
            rows = slices(tensor, axis)
            return rows.transpose(0, 1) if reads else rows

        layer = nn.Linear(1, 1, bias=False, device="meta")
        layer.weight = nn.Parameter(shown(tensor.detach()))
        if tensor.grad is not None:
            layer.weight.grad = shown(tensor.grad)
        layer.out_features, layer.in_features = layer.weight.shape[:2]
        return layer, function.prune_linear_in_channels if reads else function.prune_linear_out_channels, reads
