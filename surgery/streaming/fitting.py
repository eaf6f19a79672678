"""Which tensor of a checkpoint belongs to which of a model: every name and every shape must fit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from surgery.errors import InputError
from surgery.sources.weights import check_fit, prefix_of
from surgery.streaming.shards import Place
from surgery.tensors import named_tensors

_log = logging.getLogger("surgery")

PRECISIONS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
"""Types that models compute in."""

Places = Mapping[str, Place]


def fitted(model: nn.Module, places: Places, source: str) -> dict[str, Place]:
    """The place of every tensor of the model that the checkpoint holds, by each of its names.

    Names of the checkpoint may all carry a prefix; or the `base_model_prefix` of transformers, as those of a model with
    a head do beside the one without (what is the head's is left aside then), or lack that.

    Args:
        model: The model.
        places: What the checkpoint holds.
        source: What it is called.

    Raises:
        InputError: Names are missing or too many, a shape is another, or weights that the model ties differ.
    """
    state = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if isinstance(tensor, Tensor)}
    everything = named_tensors(model)
    found = _renamed(model, places, state)
    # what is not of the state (`persistent=False`) may have been saved before it was so
    beside = {name for name in found if name not in state and _shape_of(everything, name) == found[name].shape}
    check_fit(source, _shapes({name: place for name, place in found.items() if name not in beside}), state)
    by_tensor: dict[int, str] = {}
    for name in found:
        first = by_tensor.setdefault(id(everything[name]), name)
        if first != name and not torch.equal(found[first].read(), found[name].read()):
            fact = f"{first!r} and {name!r} are one shared parameter of the model, but differ in {source}"
            raise InputError(fact, "untie them in the model, or make them equal in the file")
    return {name: found[by_tensor[id(t)]] for name, t in everything.items() if id(t) in by_tensor}


def _renamed(model: nn.Module, places: Places, state: Mapping[str, Tensor]) -> dict[str, Place]:
    """The places by the model's names, with or without a prefix: whichever leaves the least missing."""
    plain = dict(places)
    base = f"{getattr(model, 'base_model_prefix', '')}."
    found, left, least = plain, "", _missing(plain, state)
    for prefix in {base, prefix_of(places, state)} - {".", ""}:
        inside = {name[len(prefix) :]: place for name, place in places.items() if name.startswith(prefix)}
        if (missing := _missing(inside, state)) < least:
            found, left, least = inside, prefix, missing
    outside = {f"{base}{name}": place for name, place in places.items()}
    if _missing(outside, state) < least:
        return outside
    if others := [name for name in places if not name.startswith(left)]:
        _log.warning(
            "%d tensors of the checkpoint, not under %r, are left aside: %s, ...", len(others), left, others[0]
        )
    return found


def _missing(found: Places, state: Mapping[str, Tensor]) -> int:
    """How many tensors of the state have no place, under whatever name."""
    arrived = {id(state[name]) for name in found if name in state}
    return len({id(tensor) for tensor in state.values()} - arrived)


def _shape_of(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def _shapes(places: Places) -> dict[str, Tensor]:
    """Tensors of the same shapes, without numbers."""
    return {name: torch.empty(place.shape, dtype=place.dtype, device="meta") for name, place in places.items()}


def precision_of(places: Places, source: str) -> torch.dtype:
    """The floating-point type that most numbers of some weights have: the model's once it is loaded.

    Raises:
        InputError: It is none that a model computes in (8 bits), or there are none.
    """
    count: Counter[torch.dtype] = Counter()
    for place in {(place.file, place.name): place for place in places.values()}.values():
        if place.dtype.is_floating_point:
            count[place.dtype] += place.size_bytes // place.dtype.itemsize
    most = max(count, key=lambda dtype: count[dtype], default=None)
    if most not in PRECISIONS:
        fact = f"the weights in {source} are {'whole numbers' if most is None else most}: they are quantized"
        raise InputError(fact, "choose on the weights from before they were quantized")
    return most
