"""Random numbers that can be had again: seeds by place, and the state of every generator."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_of(*where: int) -> int:
    """A seed of its own for every place, such as (seed, round, epoch, process)."""
    return int(np.random.SeedSequence(where).generate_state(1)[0])


def state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's generators, in kinds that `torch.load(weights_only=True)` reads."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - what users' transforms draw from
    found = {
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        found["mps"] = torch.mps.get_rng_state()
    return found


def restore(kept: Mapping[str, Any]) -> None:
    """Set all generators to what `state` returned."""
    random.setstate(kept["python"])
    kind, keys, *rest = kept["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(kept["torch"].cpu())
    if "cuda" in kept and torch.cuda.is_available():
        torch.cuda.set_rng_state(kept["cuda"].cpu())
    if "mps" in kept and torch.backends.mps.is_available():
        torch.mps.set_rng_state(kept["mps"].cpu())


def seed(number: int) -> None:
    """Seed all of them."""
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002
    torch.manual_seed(number)


@contextmanager
def kept_apart() -> Iterator[None]:
    """Whatever draws random numbers inside leaves the generators outside as they were."""
    before = state()
    try:
        yield
    finally:
        restore(before)
