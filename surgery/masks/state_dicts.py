"""Masks and parametrizations in a bare state_dict, where there is no module to ask."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from surgery.errors import InputError

Part = tuple[str, Callable[[], Tensor]] | None
"""The plain name that a key is a part of, and how to compute its tensor; None where the key stands for itself."""

PARAMETRIZED = re.compile(r"(?P<module>(?:.*\.)?)parametrizations\.(?P<name>[^.]+)\.(?P<rest>.+)")


def merge_state_dict(
    state_dict: Mapping[str, Any], *, strip_prefix: str = "", keep: Collection[str] = ()
) -> dict[str, Any]:
    """The same weights with every coat merged into the plain tensor.

    `X_orig` and `X_mask` (`torch.nn.utils.prune`) become `X`, as do `X_g` and `X_v` (the old weight_norm), and
    `parametrizations.X.original` with masks, or `original0` and `original1` (the new weight_norm). All else is passed
    through; the order is that of the first key of each.

    Args:
        state_dict: Names to tensors.
        strip_prefix: Taken off every name (`"module."`); nothing is taken off unless asked.
        keep: Names that pass through as they are, because the model that receives them wears the same coat.

    Raises:
        InputError: a name lacks the prefix, a mask does not fit its tensor, or a parametrization cannot be computed
            from what the state_dict holds.
    """
    state = _stripped(state_dict, strip_prefix)
    for part_of in (_part_of_masked, _part_of_normed, _part_of_parametrized):  # a mask may lie on `weight_v`
        merged: dict[str, Any] = {}
        for key, value in state.items():
            found = None if key in keep else part_of(key, state)
            if found is None:
                merged[key] = value
                continue
            name, compute = found
            if name in state:
                raise InputError(f"the state_dict holds both {name!r} and {key!r}", f"remove one: both mean {name!r}")
            if name not in merged:
                merged[name] = compute()
        state = merged
    return state


def _stripped(state_dict: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    without = [key for key in state_dict if not key.startswith(prefix)]
    if without:
        raise InputError(
            f"{len(without)} of {len(state_dict)} names do not start with {prefix!r}, the first is {without[0]!r}",
            "strip a prefix that all names share",
        )
    return {key[len(prefix) :]: value for key, value in state_dict.items()}


def _part_of_masked(key: str, state: Mapping[str, Any]) -> Part:
    """`X_orig` and `X_mask`, of torch.nn.utils.prune."""
    base, _, part = key.rpartition("_")
    if part in {"orig", "mask"} and f"{base}_orig" in state and f"{base}_mask" in state:
        return base, lambda: _masked(base, state[f"{base}_orig"], state[f"{base}_mask"])
    return None


def _part_of_normed(key: str, state: Mapping[str, Any]) -> Part:
    """`X_g` and `X_v`, of the old weight_norm; those of the old spectral_norm need the module."""
    base, _, part = key.rpartition("_")
    if part == "orig" and f"{base}_u" in state:
        raise InputError(f"{base!r} was saved under spectral_norm", "put spectral_norm on the model first")
    g, v = state.get(f"{base}_g"), state.get(f"{base}_v")
    if part in {"g", "v"} and g is not None and v is not None and _are_length_and_direction(g, v):
        return base, lambda: _weight_norm(v, g)
    return None


def _part_of_parametrized(key: str, state: Mapping[str, Any]) -> Part:
    """`parametrizations.X.original` and what stands beside it."""
    match = PARAMETRIZED.fullmatch(key)
    if match is None:
        return None
    whole = match["module"] + match["name"]
    prefix = f"{match['module']}parametrizations.{match['name']}."
    parts = {name[len(prefix) :]: state[name] for name in state if name.startswith(prefix)}
    return whole, lambda: _parametrized(whole, parts)


def _masked(name: str, original: Tensor, mask: Tensor) -> Tensor:
    if original.shape != mask.shape:
        raise InputError(
            f"the mask of {name!r} has the shape {list(mask.shape)}, its tensor {list(original.shape)}",
            "save the state_dict again: the two belong to different models",
        )
    return original * mask.to(original.dtype)


def _parametrized(name: str, parts: Mapping[str, Any]) -> Tensor:
    """The tensor that the parametrization computes from its saved parts."""
    masks = {part: tensor for part, tensor in parts.items() if re.fullmatch(r"\d+\.mask", part)}
    rest = sorted(set(parts) - set(masks))
    if rest == ["original0", "original1"] and _are_length_and_direction(parts["original0"], parts["original1"]):
        value = _weight_norm(parts["original1"], parts["original0"])
    elif rest == ["original"] and masks:
        value = parts["original"]
    elif rest == ["original"]:
        raise InputError(
            f"{name!r} was saved under a parametrization whose mask was not saved (torch.ao.pruning leaves it out)",
            "call the sparsifier's squash_mask() before saving, or give the masks apart as keep masks",
        )
    else:
        raise InputError(
            f"{name!r} was saved under a parametrization of unknown kind, with {', '.join(sorted(parts))}",
            "call torch.nn.utils.parametrize.remove_parametrizations before saving, or put the same one on the model",
        )
    for mask in masks.values():
        value = _masked(name, value, mask)
    return value


def _are_length_and_direction(g: Any, v: Any) -> bool:
    """Whether g can be the lengths of v along one of its dims (or one length for all of it)."""
    if not isinstance(g, Tensor) or not isinstance(v, Tensor):
        return False
    kept = [dim for dim, size in enumerate(g.shape) if size != 1]
    return g.dim() == 0 or (g.dim() == v.dim() and len(kept) <= 1 and all(g.shape[d] == v.shape[d] for d in kept))


def _weight_norm(v: Tensor, g: Tensor) -> Tensor:
    """torch's own: g · v / |v|, the norm over all dims but one (or over all)."""
    if g.dim() == 0:
        return torch._weight_norm(v, g, -1)
    dim = next((dim for dim, size in enumerate(g.shape) if size != 1), None)
    if dim is None:  # g is one number: any dim of size 1 gives it, all of them otherwise
        dim = next((dim for dim, size in enumerate(v.shape) if size == 1), -1)
    return torch._weight_norm(v, g, dim)
