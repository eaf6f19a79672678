"""The user's samples: checked one by one, some to calibrate with, others held back to compare with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surgery.batches import CHUNK, no_batch_dim, no_items, not_finite, placed, require_some
from surgery.errors import InputError
from surgery.iterating import items
from surgery.quantizing.float_file import Array, Feed, Slot, rows

EVERY = 4
"""One sample of so many is held back."""

HELD_BACK = "held back from the calibration"
TOO_FEW = "those of the calibration, too few to hold any back"
GIVEN = "the given data"


@dataclass(frozen=True)
class Samples:
    """What there is to run the files on.

    Attributes:
        calibration: Calls to learn ranges from.
        comparison: Calls to compare float and int8 on.
        calibrated: How many samples the first holds.
        compared: How many the second holds.
        compared_on: What these are, in words.
        notes: What was left out of the items.
    """

    calibration: tuple[Feed, ...]
    comparison: tuple[Feed, ...]
    calibrated: int
    compared: int
    compared_on: str
    notes: tuple[str, ...] = ()

    def uncalibrated(self) -> Samples:
        """The same samples where no range is learnt: all of them are there to compare on."""
        if self.compared_on != HELD_BACK:
            return replace(self, calibration=(), calibrated=0, compared_on=GIVEN)
        compared = self.calibrated + self.compared
        return Samples((), self.calibration + self.comparison, 0, compared, GIVEN, self.notes)


def read(data: Any, names: Sequence[str], slots: Sequence[Slot], most: int) -> Samples:
    """Take up to `most` samples of the data, and hold back every fourth.

    Args:
        data: As for `surgery.batches.batches`.
        names: The names of the inputs, in the order of a tuple's tensors; those that the file has dropped included.
        slots: The inputs of the file.
        most: Nothing is taken of the data beyond so many samples.

    Raises:
        InputError: The data is empty or cannot be iterated, or an item has another shape, dtype or number of tensors
            than the model takes, or holds NaN or infinity.
    """
    left_out: dict[str, None] = {}
    feeds: list[Feed] = []
    taken = 0
    for number, item in enumerate(items(data)):
        for part in _chunks(feed_of(item, f"item {number} of the data", names, slots, left_out), slots):
            if rows(part, slots) is not None:
                part = {name: value[: most - taken] for name, value in part.items()}
            feeds.append(part)
            taken += count_samples(part, slots)
            if taken >= most:
                return _split(feeds, slots, tuple(left_out))
    if not taken:
        raise no_items()
    return _split(feeds, slots, tuple(left_out))


def feed_of(
    item: Any, where: str, names: Sequence[str], slots: Sequence[Slot], left_out: dict[str, None] | None = None
) -> Feed:
    """One item as a checked feed; what was not used of it is noted in `left_out`.

    Raises:
        InputError: It is not what the file takes; `where` is named.
    """
    found = placed(item, where, [(name, 1) for name in names], [slot.name for slot in slots])
    if left_out is not None:
        left_out |= dict.fromkeys(found.notes)
    return {slot.name: _checked(found.values[slot.name][0], slot, where) for slot in slots}


def _checked(value: Tensor | Array, slot: Slot, where: str) -> Array:
    """The value as the array that the slot takes."""
    what = f"{where}: input {slot.name!r}"
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    fits = len(value.shape) == len(slot.shape)
    if not fits or any(want not in (None, size) for want, size in zip(slot.shape, value.shape, strict=True)):
        free = "pass inputs as the model takes them, or free that dim in the export (dynamic_shapes=)"
        fact = f"{what} has shape {list(value.shape)}, the model takes {slot}"
        raise InputError(fact, no_batch_dim(value.ndim, len(slot.shape)) or free)
    require_some(what, value.shape)
    if value.dtype.kind != slot.dtype.kind and not {value.dtype.kind, slot.dtype.kind} <= {"i", "u"}:
        raise InputError(f"{what} is {value.dtype}, the model takes {slot.dtype}", "prepare it as for the model itself")
    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is told below
        cast = value.astype(slot.dtype)
    if cast.dtype.kind == "f" and not np.isfinite(cast).all():
        raise not_finite(what, bool(np.isnan(cast).any()))
    if cast.dtype.kind in "iu" and not np.array_equal(cast, value):
        raise InputError(f"{what} holds values beyond {slot.dtype}", "prepare it as for the model itself")
    return cast


def _chunks(feed: Feed, slots: Sequence[Slot]) -> Iterator[Feed]:
    """The same rows, at most 32 at a time where the batch is free."""
    count = rows(feed, slots)
    if count is None:
        yield feed
        return
    for start in range(0, count, CHUNK):
        yield {name: value[start : start + CHUNK] for name, value in feed.items()}


def one_of(feed: Feed, slots: Sequence[Slot]) -> Feed:
    """The call with its first row alone, where its batch is free."""
    return feed if rows(feed, slots) is None else {name: value[:1] for name, value in feed.items()}


def count_samples(feed: Feed, slots: Sequence[Slot]) -> int:
    """How many samples a call holds: the size that dim 0 of all inputs shares, or 1."""
    sizes = {feed[slot.name].shape[0] if slot.shape else 1 for slot in slots}
    return sizes.pop() if len(sizes) == 1 else 1


def _split(feeds: Sequence[Feed], slots: Sequence[Slot], notes: tuple[str, ...]) -> Samples:
    """Hold back every fourth row, or every fourth call where rows cannot be taken apart."""
    kept: list[Feed] = []
    held: list[Feed] = []
    place = 0
    for feed in feeds:
        count = rows(feed, slots)
        back = (place + np.arange(count or 1)) % EVERY == EVERY - 1
        place += len(back)
        for side, wanted in ((kept, ~back), (held, back)):
            if wanted.any():
                side.append(feed if count is None else {name: value[wanted] for name, value in feed.items()})
    calibrated, compared = (sum(count_samples(feed, slots) for feed in side) for side in (kept, held))
    if not held:
        return Samples(tuple(kept), tuple(kept), calibrated, calibrated, TOO_FEW, notes)
    return Samples(tuple(kept), tuple(held), calibrated, compared, HELD_BACK, notes)
