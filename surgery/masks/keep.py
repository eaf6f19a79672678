"""Masks given apart from the model: a mapping from names to what stays."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from surgery.errors import InputError
from surgery.masks.coats import find_coats
from surgery.tensors import named_tensors


def apply_keep_masks_(model: nn.Module, keep_masks: Mapping[str, Tensor]) -> None:
    """Zero what the masks do not keep; True (or 1) stays.

    Nothing is written unless every mask fits.

    Args:
        model: Its parameters are written in place. Bake it first if it wears masks of its own.
        keep_masks: Names of parameters (`"conv1.weight"`) or of modules (`"conv1"`, meaning its weight), each with
            a mask of the parameter's own shape, or one of `[dim 0]`: one entry per output channel. bool, or 0 and 1.

    Raises:
        InputError: a name is not in the model, a mask has another shape or other values than 0 and 1, or two masks
            want different zeros in one shared parameter.
    """
    tensors = named_tensors(model)
    keeps: dict[int, tuple[str, Tensor, Tensor]] = {}
    for name, mask in keep_masks.items():
        tensor = tensors[_resolve(name, model, tensors)]
        keep = _full(name, mask, tensor)
        first, _, other = keeps.setdefault(id(tensor), (name, tensor, keep))
        if not torch.equal(keep, other):
            raise InputError(
                f"the keep masks of {first!r} and {name!r} differ, but both are one shared parameter",
                "give one mask for it",
            )
    with torch.no_grad():
        for _, tensor, keep in keeps.values():
            tensor.masked_fill_(~keep, 0)


def full_masks(keep_masks: Mapping[str, Tensor], model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The masks as bool in full shape, by the full names of what they mask; two of one tensor keep what both keep.

    Args:
        keep_masks: As for `apply_keep_masks_`.
        model: The model, for the names of its modules.
        tensors: What can be masked, by name.

    Raises:
        InputError: As `apply_keep_masks_`.
    """
    found: dict[str, Tensor] = {}
    for name, mask in keep_masks.items():
        path = _resolve(name, model, tensors)
        keep = _full(name, mask, tensors[path])
        found[path] = found[path] & keep if path in found else keep
    return found


def _resolve(name: str, model: nn.Module, tensors: Mapping[str, Tensor]) -> str:
    """The full name of the parameter that a key means."""
    for candidate in (name, f"{name}.weight"):
        if candidate in tensors:
            return candidate
        if candidate in find_coats(model).names:
            raise InputError(f"{candidate!r} already wears a mask or a parametrization", "bake the model first")
    modules = dict(model.named_modules())
    if name in modules:
        kind = type(modules[name]).__name__
        raise InputError(f"the module {name!r} ({kind}) has no weight to mask", "name a parameter")
    known = [*tensors, *(path for path in modules if f"{path}.weight" in tensors)]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    raise InputError(
        f"a keep mask names {name!r}, which is neither a parameter nor a module of the model",
        f"did you mean {near[0]!r}?" if near else "use the names of model.named_parameters()",
    )


def _full(name: str, mask: Tensor, tensor: Tensor) -> Tensor:
    """The mask as bool, in the shape and on the device of the parameter."""
    if not isinstance(mask, Tensor):
        raise InputError(f"the keep mask of {name!r} is a {type(mask).__name__}", "pass a bool tensor, True stays")
    keep = mask.to(device=tensor.device) != 0
    if mask.dtype != torch.bool and bool((mask != keep.to(mask.device, mask.dtype)).any()):
        odd = mask[mask != keep.to(mask.device, mask.dtype)].flatten()[0].item()
        raise InputError(f"the keep mask of {name!r} holds {odd:g}", "a keep mask is bool, or 0 and 1; True stays")
    if keep.shape == tensor.shape:
        return keep
    if tensor.dim() and keep.shape == tensor.shape[:1]:
        return keep.reshape(-1, *(1,) * (tensor.dim() - 1)).expand_as(tensor)
    raise InputError(
        f"the keep mask of {name!r} has the shape {list(mask.shape)}, its parameter {list(tensor.shape)}",
        f"give it the shape {list(tensor.shape)}"
        + (f", or [{tensor.shape[0]}] for one entry per output channel (dim 0)" if tensor.dim() > 1 else ""),
    )
