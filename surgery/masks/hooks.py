"""Hooks on parameters, which `copy.deepcopy` leaves behind (those on modules it takes along)."""

from __future__ import annotations

import re
from typing import TypeVar

from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def carry_hooks_(source: nn.Module, target: Model) -> Model:
    """Register the hooks on the parameters of `source` on those of the same names in `target`, its copy.

    A hook keeps what it closes over: one that multiplies a gradient by a mask of the old shape does not fit any more.
    """
    made = dict(target.named_parameters())
    for name, parameter in source.named_parameters():
        copied = made.get(_baked(name))
        if copied is None or copied is parameter or not copied.requires_grad:
            continue
        present = [*(copied._backward_hooks or {}).values(), *(copied._post_accumulate_grad_hooks or {}).values()]
        for hook in (parameter._backward_hooks or {}).values():
            if hook not in present:
                copied.register_hook(hook)
        for hook in (parameter._post_accumulate_grad_hooks or {}).values():
            if hook not in present:
                copied.register_post_accumulate_grad_hook(hook)
    return target


def _baked(name: str) -> str:
    """The plain name behind a masked or parametrized one."""
    plain = re.sub(r"parametrizations\.([^.]+)\.original\d*$", r"\1", name)
    return plain.removesuffix("_orig")
