"""Models of transformers: a plain directory where the config can say the widths, else the config before the cut."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgery.errors import InputError, SurgeryError
from surgery.results import Result
from surgery.sources.configs import Configured, quiet
from surgery.sources.libraries import from_transformers
from surgery.uniform import filled, plain, same

GENERATION = "generation_config.json"


def configured_before(result: Result) -> Configured | None:
    """The model's class and its config before the cut; None for one that is not of transformers, has its own code, or
    was cut before, so that no config made it.
    """
    found = result.configured
    if found is None or not found.kind.__module__.startswith("transformers."):
        return None
    made = found.shapes()
    fits = all(made.get(name, shape) == tuple(shape) for name, shape in result.plans[0].shapes.items())
    return found.spoken() if fits else None


def save_plain(result: Result, before: Configured, place: Path) -> bool:
    """Write config and weights as transformers does, where that makes the same model; False (and nothing) where not.

    What was written is loaded again and compared with the slim model.
    """
    if result.inputs is None:
        return False
    made: Any = plain(before, result.model, result.plan, result.inputs)
    if made is None:
        return False
    there = set(place.rglob("*"))
    with quiet():
        made.save_pretrained(place)
    try:
        with quiet():
            loaded = from_transformers(place)[0].train(result.model.training)
        if same(result.model, loaded, result.inputs):
            return True
    except SurgeryError:
        pass
    for path in sorted(set(place.rglob("*")) - there, reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    return False


def save_weights(model: nn.Module, place: Path) -> None:
    """Write a model of transformers, trained since it was read from a plain directory, as transformers does.

    Raises:
        InputError: Read again, it has other weights.
    """
    configured = Configured.of(model)
    assert configured is not None, "a plain directory holds a model of transformers"
    made: Any = filled(configured, model)
    with quiet():
        made.save_pretrained(place)
        again = from_transformers(place)[0].state_dict()
    state = model.state_dict()
    odd = [name for name, value in state.items() if name not in again or not torch.equal(again[name], value.cpu())]
    if odd or again.keys() - state.keys():
        named = ", ".join(odd or sorted(again.keys() - state.keys()))
        raise InputError(f"transformers reads other weights than were written: {named}", "report it to the project")


def save_generation(slim: Any, place: Path) -> None:
    """Write how a model generates (ends, penalties, lengths), which is no part of its config, where it says so.

    As it is: `save_pretrained` refuses what many a checkpoint holds, such as a temperature beside greedy decoding.
    """
    if getattr(slim, "generation_config", None) is not None:
        slim.generation_config.to_json_file(place / GENERATION)


def read_generation_(model: Any, directory: Path) -> None:
    """Have a model generate as a saved one did."""
    if (directory / GENERATION).is_file() and getattr(model, "generation_config", None) is not None:
        try:
            with quiet():
                model.generation_config = type(model.generation_config).from_pretrained(directory)
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"{str(directory / GENERATION)!r} cannot be read: {reason}", "copy it again") from error


def save_config(before: Configured, place: Path) -> None:
    """Write a config that `from_transformers` builds the model of."""
    place.mkdir()
    config = copy.deepcopy(before.config)
    config.architectures = [before.kind.__name__]
    with quiet():
        text = config.to_json_string(use_diff=False)
    (place / "config.json").write_text(json.dumps(json.loads(text), indent=2) + "\n", encoding="utf-8")
