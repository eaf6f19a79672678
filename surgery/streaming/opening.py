"""A model on the meta device and a checkpoint, as a study whose weights are read when they are looked at."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from surgery.analysis.standing import hollow
from surgery.deciding.cuts import zero_
from surgery.deciding.importance import DATA_DRIVEN, IMPORTANCES
from surgery.deciding.parts import Zeros
from surgery.deciding.study import Study
from surgery.errors import InputError
from surgery.inputs import Inputs
from surgery.masks import bake, check_finite, find_coats
from surgery.progress import stage
from surgery.sources.configs import Configured
from surgery.streaming.fitting import fitted, precision_of
from surgery.streaming.shards import Place, places_in
from surgery.streaming.stored import Holder, Stored
from surgery.tensors import named_tensors

BUILD = "build it on the meta device: with torch.device('meta'): ..."
LOAD = "load the weights into the model, and leave checkpoint= out"


def open_stored(model: nn.Module, inputs: Inputs, checkpoint: str | os.PathLike[str]) -> Study:
    """The study of a model on the meta device with the weights of a checkpoint, which stay there.

    The study's model is a copy on the meta device, in the precision of the checkpoint. What the checkpoint does not
    hold (buffers that are not part of the state) counts as unknown: it varies.

    Args:
        model: On the meta device, as `check_streamable` has seen; buffers outside the state may hold values.
        inputs: The example inputs, where the model would be; floating-point ones follow its precision.
        checkpoint: A `.safetensors` file, or a directory of shards.

    Raises:
        InputError: The checkpoint cannot be read or does not fit, or holds NaN.
        CaptureError: The model refused the inputs or cannot be captured.
    """
    source = repr(str(checkpoint))
    places = fitted(model, places_in(Path(checkpoint)), source)
    bare = bake(model)
    before = {parameter.dtype for parameter in bare.parameters() if parameter.is_floating_point()}
    dtype = precision_of(places, source)
    cast_(bare, places, dtype)
    inputs = inputs.map(lambda t: t.to(dtype) if t.dtype in before else t)
    with stage("analysing"):
        study = Study.of(bare, inputs)
    stored = stored_tensors(bare, places)
    study = study.with_stored(stored)
    with stage(f"reading {sum(place.size_bytes for place in set(places.values())):,} bytes"):
        check_finite(scored(study).model)
    return study


def check_held(model: nn.Module) -> None:
    """Refuse a model without weights where no checkpoint says what they are.

    Raises:
        InputError: So it is.
    """
    if hollow(model):
        fact = f"{type(model).__name__} is on the meta device: it has no weights to choose by"
        raise InputError(fact, "pass checkpoint=, a directory of .safetensors files, or load the weights into it")


def check_streamable(model: nn.Module, importance: object, data: object, *, uniform: bool) -> None:
    """Refuse what cannot be done with weights that are in files.

    Raises:
        InputError: The model holds weights or wears masks; there is data, which it would have to be run on; or
            `uniform` is asked of a model of transformers, whose outputs would be compared.
    """
    name = type(model).__name__
    if not hollow(model):
        raise InputError(
            f"{name} holds its weights, and checkpoint= names others", f"{BUILD}, or leave checkpoint= out"
        )
    if coats := find_coats(model):
        raise InputError(f"{name} wears masks or norms over its weights, which need them: {coats}", LOAD)
    if data is not None or importance in DATA_DRIVEN:
        what = f"importance {importance!r}" if importance in DATA_DRIVEN else "data="
        free = ", ".join(name for name in IMPORTANCES if name not in DATA_DRIVEN)
        fact = f"{what} needs a model that runs, and {name} is on the meta device"
        raise InputError(fact, f"choose by weights alone ({free}), or load the weights into the model")
    if uniform and Configured.of(model) is not None:
        fact = f"uniform compares the outputs of models of transformers, and {name} is on the meta device"
        raise InputError(fact, "leave uniform out, or load the weights into the model")


def cast_(model: nn.Module, places: Mapping[str, Place], dtype: torch.dtype) -> None:
    """Give what a checkpoint holds the precision of the checkpoint; on the meta device."""
    for name, tensor in named_tensors(model).items():
        if name in places and (tensor.is_floating_point() or not tensor.is_meta):
            kind = dtype if tensor.is_floating_point() else tensor.dtype
            tensor.data = torch.empty_like(tensor, dtype=kind, device="meta")


def stored_tensors(model: nn.Module, places: Mapping[str, Place]) -> dict[str, Stored]:
    """What stands for the model's tensors, by every name; tied ones are one."""
    holder = Holder()
    made: dict[int, Stored] = {}
    found = {}
    for name, tensor in named_tensors(model).items():
        if name in places:
            if id(tensor) not in made:
                made[id(tensor)] = Stored.of(partial(_read, places[name], tensor.dtype), tensor, holder)
            found[name] = made[id(tensor)]
    return found


def _read(place: Place, dtype: torch.dtype) -> Tensor:
    return place.read().to(dtype)


def scored(study: Study) -> Study:
    """The same study with a model whose parameters and buffers read themselves, for those who look at it.

    A study of a model that holds its weights is returned as it is.
    """
    if not study.stored:
        return study
    model = copy.deepcopy(study.model)
    for path, module in model.named_modules(remove_duplicate=False):
        for held in (module._parameters, module._buffers):
            for name in held:
                stored = study.stored.get(f"{path}.{name}" if path else name)
                if stored is not None:
                    held[name] = stored
    return replace(study, model=model)


def masked(study: Study, zeros: Iterable[Zeros]) -> Study:
    """The study of the same weights with zeros at some places, whenever they are read."""
    by_name: dict[str, list[Zeros]] = {}
    for one in zeros:
        by_name.setdefault(one.name, []).append(one)
    stored = dict(study.stored)
    for name, those in by_name.items():
        old = stored.get(name)
        if isinstance(old, Stored):
            new = old.changed(partial(_zero_, those))
            stored |= {other: new for other, tensor in study.stored.items() if tensor is old}
    return study.with_stored(stored)


def _zero_(zeros: Sequence[Zeros], tensor: Tensor) -> None:
    for one in zeros:
        zero_(tensor, one)
