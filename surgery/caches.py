"""Key-value caches: what a model hands out for its own next call, and nobody else reads."""

from __future__ import annotations

from typing import Any


def is_cache(value: Any) -> bool:
    """Whether this is a cache as `transformers` has them (`DynamicCache`, `EncoderDecoderCache`, ...).

    It becomes narrower with the model that fills it, so its units are not held as those of an output are.
    """
    return any(kind.__name__.endswith("Cache") for kind in type(value).__mro__)
