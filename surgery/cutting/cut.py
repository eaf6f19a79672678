"""The cut: fold, gather every tensor, correct the modules' own numbers. In place; the caller hands a copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from surgery.caches import forget_
from surgery.cutting.methods import rewrite_
from surgery.cutting.modules import correct_numbers_
from surgery.cutting.repair import set_
from surgery.cutting.rewriting import is_literal, set_literal_
from surgery.deciding.cuts import Cuts
from surgery.deciding.parts import AxisCut, Carry, Fold, Scale
from surgery.errors import PlanError
from surgery.pieces import AT_ONCE

Owners = Mapping[str, nn.Module]
"""The modules of a model by path."""


def cut_(model: nn.Module, cuts: Cuts) -> nn.Module:
    """Apply the cuts to a model whose weights are masked already (see `Cuts.mask_`).

    Tensors get new memory where they change; the old is not written into.

    Tied parameters stay tied; dtype, device, requires_grad and hooks on parameters survive. Tensors on the meta device
    get their shapes only: nothing is computed for them.

    Raises:
        PlanError: The model is not the one that the cuts were made for.
    """
    tensors = cuts.tensors_of(model)
    with torch.no_grad():
        for name in dict.fromkeys(carry.weight for carry in cuts.carries):
            tensors[name].data = tensors[name].data.clone()
        for carry in cuts.carries:
            carry_(tensors[carry.weight], carry)
        for fold in cuts.folds:
            fold_(model, fold)
        for scale in cuts.scales:
            scale_(tensors[scale.name], scale)
        _gather_all_(model, cuts)
    for edit in cuts.edits:
        (set_literal_ if is_literal(edit) else set_)(model, edit)
    rewrite_(model, cuts.rewrites)
    correct_numbers_(model)
    forget_(model)
    return model


def fold_(model: nn.Module, fold: Fold) -> None:
    """`bias += delta`, in float64 and cast once; a missing bias is made."""
    path, _, attribute = fold.bias.rpartition(".")
    module = model.get_submodule(path)
    bias = getattr(module, attribute, None)
    delta = torch.tensor(fold.delta, dtype=torch.float64)
    if bias is None:
        weight = next(module.parameters(recurse=False))
        made = nn.Parameter(delta.to(weight.device, weight.dtype), requires_grad=weight.requires_grad)
        setattr(module, attribute, made)
        return
    if bias.numel() != delta.numel():
        raise PlanError(f"{fold.bias} has {bias.numel()} entries, the plan {delta.numel()}", "make the plan again")
    if bias.is_meta:
        return
    bias.data = (bias.detach().to("cpu", torch.float64) + delta).to(bias.device, bias.dtype)


def carry_(weight: Tensor, carry: Carry) -> None:
    """`W[:, onto] += sum of W[:, take] * ratio`, in float64 and cast once."""
    if weight.is_meta:
        return
    dim = 1 if carry.orientation == "out_in" else 0
    if carry.orientation == "out_in":
        per_group = weight.shape[1]
        group = weight.data.unflatten(0, (carry.conv_groups, -1))[carry.onto // per_group]  # (o, i, ...)
    else:
        per_group = weight.shape[0] // carry.conv_groups
        group = weight.data.unflatten(0, (carry.conv_groups, per_group))[carry.onto // per_group].movedim(0, 1)
        dim = 1
    take = torch.tensor([t % per_group for t in carry.take], device=weight.device)
    ratio = torch.tensor(carry.ratio, dtype=torch.float64, device=weight.device)
    shape = [-1 if d == dim else 1 for d in range(group.dim())]
    added = (group.index_select(dim, take).to(torch.float64) * ratio.reshape(shape)).sum(dim)
    target = group.select(dim, carry.onto % per_group)
    target.copy_((target.to(torch.float64) + added).to(weight.dtype))


def scale_(tensor: Tensor, scale: Scale) -> None:
    """Multiply (some positions of) a tensor, in float64 and cast once; it gets new memory."""
    if tensor.is_meta:
        return
    old = tensor.data
    new = ((old.to(torch.float64) + scale.offset) * scale.factor - scale.offset).to(old.dtype)
    if scale.positions is not None:
        chosen = torch.zeros(old.shape[scale.dim], dtype=torch.bool, device=old.device)
        chosen[torch.tensor(scale.positions, device=old.device)] = True
        new = torch.where(chosen.reshape([-1 if d == scale.dim else 1 for d in range(old.dim())]), new, old)
    tensor.data = new


def _gather_all_(model: nn.Module, cuts: Cuts) -> None:
    """Every tensor that loses positions, gathered once over all its dims."""
    by_name: dict[str, list[AxisCut]] = {}
    for axis in cuts.axes:
        if axis.removed:
            by_name.setdefault(axis.name, []).append(axis)
    folded = {fold.bias for fold in cuts.folds}
    owners = dict(model.named_modules(remove_duplicate=False))
    positions: Positions = {}
    for name, axes in by_name.items():
        old = _tensor(owners, name)
        new = gathered(old.detach(), axes, positions)
        _replace_(owners, axes[0].aliases or (name,), old, new)
    _gather_made_biases_(owners, cuts, folded)


def _gather_made_biases_(owners: Owners, cuts: Cuts, folded: set[str]) -> None:
    """A bias that a fold made has no axis of its own: it follows the rows of its module's weight."""
    made = folded - {alias for axis in cuts.axes for alias in (axis.name, *axis.aliases)} - set(cuts.shapes)
    if not made:
        return
    every = [(alias, axis) for axis in cuts.axes for alias in (axis.name, *axis.aliases)]
    rows = {alias: axis for alias, axis in every if _hands_out(owners, alias, axis)}
    for name in made:
        path = name.rpartition(".")[0]
        axis = rows.get(f"{path}.weight" if path else "weight")
        if axis is not None and axis.removed:
            old = _tensor(owners, name)
            keep = torch.tensor(axis.keep, device=old.device)
            _replace_(owners, (name,), old, old.detach().index_select(0, keep))


def _hands_out(owners: Owners, name: str, axis: AxisCut) -> bool:
    path, _, attribute = name.rpartition(".")
    if attribute != "weight":
        return False
    transposed = isinstance(owners[path], nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    return axis.dim == (1 if transposed else 0)


def _tensor(owners: Owners, name: str) -> Tensor:
    path, _, attribute = name.rpartition(".")
    tensor: Tensor = getattr(owners[path], attribute)
    return tensor


Positions = dict[tuple[int, torch.device], Tensor]
"""What stays as tensors, by the identity of the tuple and the device: axes of the same channels share it."""


def gathered(tensor: Tensor, axes: Sequence[AxisCut], positions: Positions | None = None) -> Tensor:
    """The positions that stay, over all dims; a grouped weight group by group."""
    positions = {} if positions is None else positions
    grouped = [axis for axis in axes if axis.conv_groups > 1]
    plain = [axis for axis in axes if axis.conv_groups == 1]
    if grouped:
        return _gathered_by_group(tensor, grouped[0], plain)
    picked: dict[int, Tensor] = {}
    for axis in plain:
        key = id(axis.keep), tensor.device
        if key not in positions:
            positions[key] = torch.tensor(axis.keep, device=tensor.device)
        picked[axis.dim] = positions[key]
    rows = picked.pop(0, None)
    if rows is None or not picked or tensor.numel() <= AT_ONCE:
        return _selected(tensor if rows is None else tensor.index_select(0, rows), picked)
    shape = [rows.numel(), *(picked[d].numel() if d in picked else tensor.shape[d] for d in range(1, tensor.dim()))]
    made, done = tensor.new_empty(shape), 0
    for some in rows.split(max(1, AT_ONCE * tensor.shape[0] // tensor.numel())):
        made[done : (done := done + some.numel())] = _selected(tensor.index_select(0, some), picked)
    return made


def _selected(tensor: Tensor, picked: Mapping[int, Tensor]) -> Tensor:
    for dim, positions in picked.items():
        tensor = tensor.index_select(dim, positions)
    return tensor.contiguous()


def _gathered_by_group(tensor: Tensor, inner: AxisCut, others: Sequence[AxisCut]) -> Tensor:
    """Dim 1 of a grouped weight: the rows of conv group g take the columns that stay in g."""
    width = inner.size // inner.conv_groups
    keep = torch.tensor(inner.keep)  # on the CPU, for the meta device has no values to sort
    groups = keep // width
    staying = groups.unique()
    columns = (keep % width).reshape(staying.numel(), -1)  # (surviving groups, columns left)
    outer = next((axis for axis in others if axis.dim == 0), None)
    rows = torch.tensor(outer.keep) if outer else torch.arange(tensor.shape[0])
    group_of_row = rows // (tensor.shape[0] // inner.conv_groups)
    place = torch.searchsorted(staying, group_of_row)
    picked = tensor[rows[:, None].to(tensor.device), columns[place].to(tensor.device)]  # (rows, columns left, ...)
    for axis in others:
        if axis.dim > 1:
            picked = picked.index_select(axis.dim, torch.tensor(axis.keep, device=tensor.device))
    return picked.contiguous()


def _replace_(owners: Owners, names: Sequence[str], old: Tensor, new: Tensor) -> None:
    """Put the new tensor under all names of the old one; parameters keep what is attached to them."""
    if isinstance(old, nn.Parameter):
        # the same Parameter object with other data: ties, hooks and requires_grad survive
        old.data = new
        if old.grad is not None:
            old.grad = None
        made: Tensor = old
    else:
        made = new
    for name in names:
        path, _, attribute = name.rpartition(".")
        module = owners[path]
        if attribute in module._parameters or attribute in module._buffers:
            setattr(module, attribute, made)
