"""What torch-pruning's OBD-C criterion (Wang et al. 2019, EigenDamage) has to know: the Fisher matrix of every layer.

Its class takes gradients sample by sample from what goes into a layer and what comes back, for linear layers on
`[samples, features]` and convolutions, both without bias (with one the shapes of its own formula disagree). So it is
shown twins without bias that hold the same weights, a linear layer as a convolution over the tokens of each sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from surgery.batches import Batch
from surgery.deciding.criteria.gradients import Loss, loss_of
from surgery.deciding.criteria.groups import Scored


def fisher_(
    criterion: Any, model: nn.Module, batches: Iterator[Batch], loss: Loss | None
) -> Callable[[Scored], Scored]:
    """Run all batches through the model and leave in the criterion what it accumulates; returns how it is shown groups.

    Args:
        criterion: An `OBDCImportance`.
        model: The model; its parameters ask for gradients.
        batches: The data.
        loss: See `loss_of`.

    Raises:
        InputError: As `loss_of`.
    """
    twins = {module: _twin(module) for module in model.modules() if _taken(module)}
    criterion._clear_buffer()
    handles = [module.register_forward_hook(_keeper(criterion, twin)) for module, twin in twins.items()]
    try:
        for batch in batches:
            criterion.modules = []
            loss_of(batch.run(model), batch, loss).backward()
            criterion.modules = [twin for twin in twins.values() if criterion.DS.get(twin) is not None]
            fresh = [twin for twin in criterion.modules if twin not in criterion.Fisher]
            criterion.Fisher.update((twin, torch.zeros_like(twin.weight.detach().flatten(1))) for twin in fresh)
            criterion.steps += 1  # its first step would throw away what is there
            criterion.step()
            criterion.steps -= 1
    finally:
        for handle in handles:
            handle.remove()
    return lambda scored: _shown(criterion, twins, scored)


def _taken(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def _twin(module: Any) -> nn.Conv2d:
    """The layer as a convolution without bias, on the same weights."""
    weight = module.weight.detach()
    kernel = weight if weight.dim() == 4 else weight[:, :, None, None]
    return _convolution(kernel, getattr(module, "stride", 1), getattr(module, "padding", 0))


def _convolution(weight: Tensor, stride: Any = 1, padding: Any = 0) -> nn.Conv2d:
    made = nn.Conv2d(1, 1, 1, stride=stride, padding=padding, bias=False, device="meta")
    made.weight = nn.Parameter(weight)
    made.weight.grad = torch.zeros_like(weight)  # it skips layers without one
    made.out_channels, made.in_channels = weight.shape[:2]
    made.kernel_size = (int(weight.shape[2]), int(weight.shape[3]))
    return made


def _keeper(criterion: Any, twin: nn.Conv2d) -> Callable[..., None]:
    """A forward hook that notes what goes in, and has what comes back noted."""

    def laid(tensor: Tensor, kernel: bool) -> Tensor:
        tensor = tensor.detach()
        if kernel:
            return tensor
        tokens = tensor.reshape(tensor.shape[0], -1, tensor.shape[-1]) if tensor.dim() > 1 else tensor[None, None]
        return tokens.transpose(1, 2)[..., None]  # [b, features, tokens, 1]

    def keep(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        kernel = isinstance(module, nn.Conv2d)
        criterion.A[twin], criterion.DS[twin] = laid(args[0], kernel), None

        def note(gradient: Tensor) -> None:
            criterion.DS[twin] = laid(gradient, kernel)

        if output.requires_grad:  # not under a no_grad() of the model's own
            output.register_hook(note)

    return keep


def _shown(criterion: Any, twins: dict[nn.Module, nn.Conv2d], scored: Scored) -> Scored:
    """The group with those items alone that have a Fisher matrix, each as a twin that holds its rows and no other."""
    from torch_pruning import _helpers
    from torch_pruning.dependency import Dependency, Group
    from torch_pruning.dependency.node import Node
    from torch_pruning.pruner import function

    outputs = (function.prune_conv_out_channels, function.prune_linear_out_channels)
    group = Group()
    group._DG = scored.group._DG
    for item in scored.group.items:
        twin = twins.get(item.dep.target.module)
        fisher = None if twin is None else criterion.Fisher.get(twin)
        if twin is None or fisher is None or item.dep.handler not in outputs:
            continue
        rows = _convolution(twin.weight.detach()[item.idxs])
        criterion.Fisher[rows] = fisher[item.idxs]
        node = Node(rows, None, item.dep.target.name)
        handler = function.prune_conv_out_channels
        entry = _helpers.GroupItem(Dependency(handler, handler, source=node, target=node), list(range(len(item.idxs))))
        entry.root_idxs = item.root_idxs
        group.items.append(entry)
    return replace(scored, group=group)
