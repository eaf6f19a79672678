"""The user's batches: some to repair with, others held back to judge by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from surgery.batches import batches, first
from surgery.inputs import Inputs
from surgery.iterating import is_one, made

EVERY = 4
"""One of so many batches is held back; of a single batch one row of so many."""


@dataclass(frozen=True)
class Batches:
    """Calls of the model.

    Attributes:
        fit: What is repaired with.
        held: What the error is measured on; the same as `fit` where there was too little to hold any back.
        n_fit, n_held: How many samples these are.
        notes: What a reader should know of them.
    """

    fit: tuple[Inputs, ...]
    held: tuple[Inputs, ...]
    n_fit: int
    n_held: int
    notes: tuple[str, ...] = ()


def read(data: Any, model: nn.Module, example: Inputs, samples: int) -> Batches:
    """Take up to `samples` samples of the data and hold some back: every fourth batch, or row where there are few.

    Args:
        data, model, example: As for `surgery.batches.batches`.
        samples: The most that is taken.

    Raises:
        InputError: As `batches`.
    """
    data = made(data)
    found = list(first(batches(data, model, example), samples))
    notes = dict.fromkeys(note for batch in found for note in batch.notes)
    return _split([batch.inputs for batch in found], is_one(data), tuple(notes))


def _count(call: Inputs) -> int:
    return call.batch or 1


def _split(calls: list[Inputs], rows: bool, notes: tuple[str, ...]) -> Batches:
    """Hold back every fourth batch; every fourth row where there are fewer, or `rows` are known to be samples."""
    if len(calls) >= EVERY and not rows:
        held = [call for place, call in enumerate(calls) if place % EVERY == EVERY - 1]
        fit = [call for place, call in enumerate(calls) if place % EVERY != EVERY - 1]
    else:
        fit, held = [], []
        for call in calls:
            place = torch.arange(call.batch or 1) % EVERY
            for side, back in ((fit, place != EVERY - 1), (held, place == EVERY - 1)):
                if back.all():
                    side.append(call)
                elif back.any():
                    side.append(call.map(lambda tensor, back=back: tensor[back.to(tensor.device)]))
    if not held:
        fit, held = calls, calls
        notes += ("too few samples to hold any back: errors are those on the data that was repaired with",)
    return Batches(tuple(fit), tuple(held), sum(map(_count, fit)), sum(map(_count, held)), notes)
