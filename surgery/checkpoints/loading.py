"""`surgery.load`: the saved weights in the user's own class, cut to their shapes without computing anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from surgery.checkpoints.anatomy import check_anatomy
from surgery.checkpoints.beside import SOURCE
from surgery.checkpoints.directories import sha256
from surgery.checkpoints.manifest import Saved, describe
from surgery.checkpoints.pretrained import read_generation_
from surgery.checkpoints.tensors import unstored_buffers, with_ties
from surgery.cutting.twins import twin
from surgery.errors import InputError
from surgery.masks import bake, find_coats
from surgery.progress import stage
from surgery.sources.libraries import from_transformers
from surgery.sources.models import is_library_model, load_model

LISTED = 4
"""How many names of each kind an error lists."""

NAME_IT = "pass it before it was shrunk: surgery.load(directory, model)"

SAME_MODEL = "pass the very model that it was made from, before it was shrunk"


def load(directory: str | Path, model: nn.Module | Callable[[], nn.Module] | None = None) -> nn.Module:
    """The slim model of a directory that `save` wrote.

    Nothing in the directory is executed, and no class is looked up that it names: a model of the user's own has to be
    given. Models of timm, torchvision and transformers are built from their libraries.

    Weights, persistent buffers and their dtypes come from the file; the code, the training flags, buffers that are not
    stored and all other attributes come from `model`, as do the device and `requires_grad`.

    Args:
        directory: From `save`.
        model: A fresh instance of the model before it was shrunk, which is left as it is; or a function that makes
            one. Its weights do not matter and may be on the meta device. Not needed where `save` was told that the
            model is one of a library's, and for models of transformers; such a model comes back in eval mode.

    Raises:
        InputError: A file is missing or damaged, the model is not the one that was saved, the factory fails, or no
            model was given where one is needed.
    """
    saved = describe(directory)
    with stage(f"loading {directory}"):
        _check_weights(saved)
        if model is None and saved.plain:
            return from_transformers(saved.directory)[0].eval()
        skeleton, home = _skeleton(_fresh(_unless_given(model, saved)))
        skeleton = _replayed(skeleton, saved)
        if saved.manifest.anatomy is not None:
            check_anatomy(saved.manifest.anatomy, skeleton, str(directory), SAME_MODEL)
        tensors = {name: tensor.to(home) for name, tensor in _tensors(saved).items()}
        _fill_(skeleton, tensors, saved)
        _cast_buffers_(skeleton, saved.manifest.buffer_dtypes)
        _refuse_meta(skeleton)
    return skeleton if model is not None else skeleton.eval()


def _unless_given(
    model: nn.Module | Callable[[], nn.Module] | None, saved: Saved
) -> nn.Module | Callable[[], nn.Module]:
    """The model that was given, or the one that the directory names, where a library has it.

    Raises:
        InputError: It names none, or one that is made by code which was not named.
    """
    if model is not None:
        return model
    if saved.manifest.transformers is not None:
        made = from_transformers(saved.directory / SOURCE, weights=False)[0]
        read_generation_(made, saved.directory)
        return made
    recorded = saved.manifest.source
    if recorded is None or not is_library_model(recorded):
        unasked = "whose code is not run unasked" if ":" in (recorded or "") else "which has to be opened first"
        asked = f"{recorded!r}, {unasked}" if recorded else "a model that it does not name"
        raise InputError(f"{str(saved.directory)!r} was made from {asked}", NAME_IT)
    return load_model(recorded).model


def _tensors(saved: Saved) -> dict[str, Tensor]:
    """The state under all its names; of a plain directory as transformers reads it, which may name it otherwise."""
    if saved.plain:
        return from_transformers(saved.directory)[0].state_dict(keep_vars=True)
    return with_ties(_read(saved.weights), saved.manifest.ties, str(saved.directory))


def _check_weights(saved: Saved) -> None:
    """Whether the files that are read from here on are those that were written.

    Raises:
        InputError: One of them is missing, cannot be read or was changed.
    """
    if saved.manifest.weights_sha256:
        _check_file(saved.weights, saved.manifest.weights_sha256)
    for name, expected in saved.manifest.files.items():
        if name.startswith(f"{SOURCE}/") or name == "config.json" or ".safetensors" in name:
            _check_file(saved.directory / name, expected)


def _check_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}", "copy the whole directory")
    try:
        found = sha256(path)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}", "check the permissions") from error
    if found != expected:
        raise InputError(
            f"{str(path)!r} ({path.stat().st_size} bytes) is not the file that was saved: "
            f"its sha256 is {found[:12]}..., surgery.json says {expected[:12]}...",
            "copy the whole directory again",
        )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}", "copy the whole directory again") from error


def _fresh(model: nn.Module | Callable[[], nn.Module]) -> nn.Module:
    """The given model, or the factory's; without masks and parametrizations, which the cut took off."""
    if not isinstance(model, nn.Module):
        if not callable(model):
            raise InputError(
                f"model is a {type(model).__name__}", "pass a fresh nn.Module, or a function that makes one"
            )
        try:
            model = model()
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(f"the factory raised {_told(error)}", "make the factory work on its own first") from error
        if not isinstance(model, nn.Module):
            raise InputError(
                f"the factory returned a {type(model).__name__}, not an nn.Module", "return the fresh model from it"
            )
    lazy = [name for name, tensor in model.state_dict(keep_vars=True).items() if is_lazy(tensor)]
    if lazy:
        raise InputError(f"{lazy[0]} is lazy: it has no shape yet", "call the model once before you pass it")
    return bake(model) if find_coats(model) else model


def _skeleton(fresh: nn.Module) -> tuple[nn.Module, torch.device]:
    """A copy whose state is on the meta device while all else keeps its values, and where the fresh state was."""
    state = [t for t in fresh.state_dict(keep_vars=True).values() if isinstance(t, Tensor)]
    replaced = {t.untyped_storage()._cdata for t in state}
    homes = [t.device for t in state if not t.is_meta]

    def emptied(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata in replaced:
            return torch.empty_like(tensor, device="meta")
        return tensor.clone()

    try:
        return twin(fresh, emptied), homes[0] if homes else torch.device("cpu")
    except Exception as error:
        raise InputError(f"the model cannot be copied: {_told(error)}", "pass a function that makes it") from error


def _replayed(skeleton: nn.Module, saved: Saved) -> nn.Module:
    """The skeleton cut as the model was cut, shapes and numbers; its graph, where that was cut."""
    try:
        for plan in saved.plans:
            if not plan.empty or plan.made:
                skeleton = plan.replay_(skeleton)
        return skeleton
    except InputError as error:
        raise InputError(f"{saved.directory} does not fit the model: {error.fact}", SAME_MODEL) from error
    except Exception as error:  # a plan from outside may be wrong in any way
        fact = f"the plan in {saved.directory} cannot be carried out on {type(skeleton).__name__}: {_told(error)}"
        raise InputError(fact, SAME_MODEL) from error


def _fill_(skeleton: nn.Module, state: Mapping[str, Tensor], saved: Saved) -> None:
    """Put the tensors in; a tensor with several names stays one parameter."""
    expected = {name: t for name, t in skeleton.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    odd = [
        f"{name} is {list(state[name].shape)}, {list(expected[name].shape)} in the model"
        for name in expected.keys() & state.keys()
        if state[name].shape != expected[name].shape
    ]
    groups = {
        "missing in the file": sorted(expected.keys() - state.keys()),
        "not in the model": sorted(state.keys() - expected.keys()),
        "of another shape": sorted(odd),
    }
    if found := [f"{_count(names)} {what}: {_listed(names)}" for what, names in groups.items() if names]:
        raise InputError(f"{saved.directory} does not fit the model: " + "; ".join(found), SAME_MODEL)
    made: dict[int, Tensor] = {}
    filled: dict[str, Tensor] = {}
    for name, tensor in state.items():
        slot = expected[name]
        if isinstance(slot, nn.Parameter):
            tensor = made.setdefault(id(tensor), nn.Parameter(tensor, requires_grad=slot.requires_grad))
        filled[name] = tensor
    try:
        skeleton.load_state_dict(filled, strict=True, assign=True)
    except Exception as error:
        fact = f"{saved.directory} does not fit the model: {type(skeleton).__name__}.load_state_dict: {_told(error)}"
        raise InputError(fact, SAME_MODEL) from error


def _cast_buffers_(skeleton: nn.Module, dtypes: Mapping[str, str]) -> None:
    """Buffers that are not stored get the dtype that they had: `model.half()` casts them, too."""
    for name, buffer in list(unstored_buffers(skeleton)):
        dtype = getattr(torch, dtypes.get(name, ""), None)
        if isinstance(dtype, torch.dtype) and dtype != buffer.dtype:
            path, _, attribute = name.rpartition(".")
            setattr(skeleton.get_submodule(path), attribute, buffer.to(dtype))


def _refuse_meta(skeleton: nn.Module) -> None:
    """Everything must have values now.

    Raises:
        InputError: A tensor outside the state is on the meta device.
    """
    for path, module in skeleton.named_modules():
        for name, value in vars(module).items():
            if any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in pytree.tree_leaves(value)):
                inner = _meta_entry(value)
                where = ".".join(part for part in (path, inner or name) if part)
                raise InputError(
                    f"{where} has no values: it is not stored, and on the meta device in the model that was given",
                    "build the fresh model on the CPU (a view of a weight, kept as an attribute, cannot be restored)",
                )


def _meta_entry(value: Any) -> str:
    """Which entry of a dict of tensors (`_parameters`, `_buffers`) is on the meta device, "" where it is no dict."""
    if not isinstance(value, dict):
        return ""
    return next((str(key) for key, leaf in value.items() if isinstance(leaf, Tensor) and leaf.is_meta), "")


def _count(names: list[str]) -> str:
    return f"{len(names)} tensor{'' if len(names) == 1 else 's'}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}".removesuffix(": ")
