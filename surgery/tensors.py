"""A model's tensors by name, and a hash of them all."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter, then every buffer, under each of its names (a tied tensor has several)."""
    parameters = model.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(model.named_buffers(remove_duplicate=False))}


def sha256_of(model: nn.Module) -> str:
    """The hash of a model's state in hexadecimal: of every tensor's name, type, shape and bytes; "" without values."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if not isinstance(value, Tensor):
            continue
        if value.is_meta:
            return ""
        digest.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
