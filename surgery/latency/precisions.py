"""The number formats that a model can be timed in, and the model in one of them."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from surgery.inputs import Inputs

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "float64": torch.float64}
"""By the name that users write."""

INT8 = "int8"
"""Weights and activations of products in 8 bits, in float elsewhere: not a dtype, but another file."""

OWN = "own"
"""Each model in the precision that it has by itself, where these differ."""

FLOATS = (*DTYPES, OWN)
PRECISIONS = (*FLOATS, INT8)


def precision_of(model: nn.Module) -> str:
    """The precision that a model has by itself: that of most of its floating-point weights."""
    counts: Counter[torch.dtype] = Counter()
    for parameter in model.parameters():
        if parameter.is_floating_point():
            counts[parameter.dtype] += parameter.numel()
    names = {dtype: name for name, dtype in DTYPES.items()}
    return names.get(counts.most_common(1)[0][0], "float32") if counts else "float32"


def dtype_of(precision: str) -> torch.dtype:
    """The dtype of weights and inputs before a file is made of them: int8 files are made from float32."""
    return DTYPES.get(precision, torch.float32)


def cast_(model: nn.Module, precision: str) -> nn.Module:
    """Cast the model's floating-point parameters and buffers in place. Returns it."""
    return model.to(dtype_of(precision))


def cast_inputs(inputs: Inputs, precision: str) -> Inputs:
    """The same call with its floating-point tensors in that precision."""
    return inputs.to(dtype_of(precision))
