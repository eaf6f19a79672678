"""A copy of a model that takes no room: modules of its own, parameters over the same memory."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn


def sharing_copy(model: nn.Module) -> nn.Module:
    """A deep copy whose parameters are new objects over the old memory; buffers are copied, for forward may write them.

    The cut replaces what it changes and writes into nothing (`cut_`), so what stays whole is never there twice. Ties
    stay ties.
    """
    memo: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
        if type(parameter) is nn.Parameter
    }
    return copy.deepcopy(model, memo)
