"""Caches: what a model hands out for its own next call, or keeps of its weights until they change."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def forget_(model: nn.Module) -> None:
    """Empty what modules keep of their weights between calls (`attention_bias_cache` of LeViT): those are others now.

    That is every dict whose name says cache and that holds tensors only; forward fills it again.
    """
    for module in model.modules():
        for name, value in vars(module).items():
            if "cache" in name and isinstance(value, dict) and all(isinstance(kept, Tensor) for kept in value.values()):
                value.clear()


def is_cache(value: Any) -> bool:
    """Whether this is a cache as `transformers` has them (`DynamicCache`, `EncoderDecoderCache`, ...).

    It becomes narrower with the model that fills it, so its units are not held as those of an output are.
    """
    return any(kind.__name__.endswith("Cache") for kind in type(value).__mro__)
