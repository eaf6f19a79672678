"""The tensors of a model as safetensors can hold them: each once, with the other names of shared ones beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from surgery.errors import InputError


def stored(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The model's state, contiguous and on the CPU, and `{name: name of the same tensor that is stored}`.

    Raises:
        InputError: A part of the state is no tensor, or has no values.
    """
    tensors: dict[str, Tensor] = {}
    ties: dict[str, str] = {}
    first: dict[Any, str] = {}
    storages: set[int] = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"the model's state holds {name!r}, a {type(value).__name__}, which is not a tensor",
                "keep it as a buffer, or outside the state_dict",
            )
        if value.is_meta:
            raise InputError(f"{name} has no values: it is on the meta device", "save a model that holds its weights")
        if value.layout is not torch.strided:
            raise InputError(f"{name} has the layout {value.layout}", "make it dense first")
        place = _place(value)
        if place in first:
            ties[name] = first[place]
            continue
        first[place] = name
        own = value.detach().cpu().contiguous()
        if own.untyped_storage()._cdata in storages or own.untyped_storage().nbytes() != own.nbytes:
            own = own.clone()  # a part of somebody else's memory
        storages.add(own.untyped_storage()._cdata)
        tensors[name] = own
    return tensors, ties


def unstored_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the buffers that are not part of the state (`persistent=False`)."""
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name in module._non_persistent_buffers_set:
                yield (f"{path}.{name}" if path else name), buffer


def with_ties(tensors: Mapping[str, Tensor], ties: Mapping[str, str], where: str) -> dict[str, Tensor]:
    """The stored tensors under all their names.

    Raises:
        InputError: A tie names a tensor that is not stored, or a name that is.
    """
    state = dict(tensors)
    for name, canonical in ties.items():
        if canonical not in tensors or name in tensors:
            raise InputError(f"{where} ties {name!r} to {canonical!r}, which does not fit its tensors", "copy it again")
        state[name] = tensors[canonical]
    return state


def _place(tensor: Tensor) -> Any:
    """Equal for two names of the same tensor; an empty tensor shares nothing."""
    if tensor.numel() == 0:
        return id(tensor)
    return tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride())
