"""MODEL on the command line: from a word to an `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from surgery.errors import InputError
from surgery.sources.factories import from_factory
from surgery.sources.libraries import RANDOM, from_timm, from_torchvision, from_transformers
from surgery.sources.weights import load_checkpoint_

SAVED = "surgery.json"
"""The file by which a directory that `surgery.save` wrote is known."""

LIBRARIES: dict[str, Callable[[str], nn.Module]] = {"timm": from_timm, "torchvision": from_torchvision}
FORMS = (
    "a model is package.module:factory, timm:NAME, torchvision:NAME, a transformers directory (config.json inside), "
    "or a directory that surgery wrote"
)


@dataclass(frozen=True)
class LoadedModel:
    """A model, how it was named, what kind of source that is, and what the user should know about it.

    `kind` is "factory", "timm", "torchvision", "transformers" or "saved". `notes` are whole sentences for stderr.
    """

    model: nn.Module
    spec: str
    kind: str
    checkpoint: Path | None
    notes: tuple[str, ...]


def load_model(
    spec: str,
    *,
    checkpoint: Path | None = None,
    strip_prefix: str = "",
    trust: bool = False,
    open_saved: Callable[[Path], nn.Module] | None = None,
) -> LoadedModel:
    """The model that `spec` names, with the weights of `checkpoint` if one is given.

    The model is as its source made it: its training flags, masks and parametrizations are not touched.

    Args:
        spec: One of the five forms of MODEL.
        checkpoint: A file of weights, see `load_checkpoint_`.
        strip_prefix: Taken off the names in the checkpoint.
        trust: Allow the Python code inside a transformers directory to run. Naming a factory is itself the consent to
            run it; pickles are never run.
        open_saved: How a directory written by `surgery.save` is opened.

    Raises:
        InputError: the spec is none of the forms, its source fails, or the checkpoint does not fit.
    """
    kind, model, notes = _from_source(spec, checkpoint is None, trust, open_saved)
    if checkpoint is not None:
        notes += load_checkpoint_(model, checkpoint, strip_prefix=strip_prefix)
    return LoadedModel(model, spec, kind, checkpoint, notes)


def empty_model(spec: str, *, trust: bool = False) -> LoadedModel:
    """The model that `spec` names on the meta device: its shapes, and no weights.

    Args:
        spec: One of the forms of MODEL, but a directory that surgery wrote.
        trust: As for `load_model`.

    Raises:
        InputError: the spec is none of the forms, or its source fails.
    """
    if (Path(spec) / SAVED).is_file():
        raise InputError(
            f"{spec!r} was written by surgery, and is opened with its weights", "name what it was made from"
        )
    with torch.device("meta"):
        kind, model, notes = _from_source(spec, False, trust, None)
    return LoadedModel(model, spec, kind, None, notes)


def is_library_model(spec: str) -> bool:
    """Whether the spec names a model of a library, which can be built again without running the user's code."""
    library, colon, _ = spec.partition(":")
    return bool(colon) and library in LIBRARIES


def _from_source(
    spec: str, weights: bool, trust: bool, open_saved: Callable[[Path], nn.Module] | None
) -> tuple[str, nn.Module, tuple[str, ...]]:
    """Kind, model and notes. `weights`: no others follow."""
    head, colon, name = spec.partition(":")
    directory = Path(spec)
    if spec and directory.is_dir():
        return _from_directory(directory, weights, trust, open_saved)
    if colon and not (head and name):
        raise InputError(f"the model {spec!r} lacks what belongs {'after' if head else 'before'} the colon", FORMS)
    if head in LIBRARIES and colon:
        return head, LIBRARIES[head](name), (f"{spec}: {RANDOM}",) if weights else ()
    if colon:
        return "factory", from_factory(spec), ()
    if directory.is_file():
        raise InputError(f"the model {spec!r} is a file", "give it as the checkpoint, beside a model; " + FORMS)
    raise InputError(f"the model {spec!r} is none of the known forms, and no directory", FORMS)


def _from_directory(
    directory: Path, weights: bool, trust: bool, open_saved: Callable[[Path], nn.Module] | None
) -> tuple[str, nn.Module, tuple[str, ...]]:
    if (directory / SAVED).is_file():
        if open_saved is None:
            raise InputError(
                f"{str(directory)!r} was written by surgery", "open it with surgery.load(directory, a fresh model)"
            )
        return "saved", open_saved(directory), ()
    if (directory / "config.json").is_file():
        model, note = from_transformers(directory, weights=weights, trust=trust)
        return "transformers", model, (note,)
    raise InputError(f"the directory {str(directory)!r} holds neither config.json nor {SAVED}", FORMS)
