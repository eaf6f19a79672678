"""Weights from a file into a model: every name and every shape must fit."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surgery.errors import InputError
from surgery.masks import merge_state_dict
from surgery.sources.files import read_weights

LISTED = 5
"""How many names of each kind an error lists."""


def load_checkpoint_(model: nn.Module, path: Path, *, strip_prefix: str = "") -> tuple[str, ...]:
    """Load a file of weights into the model; masks and weight norms in it are merged into the plain weights.

    Args:
        model: Written in place. On a refusal for its names it may hold a part of the weights.
        path: `.safetensors`, or a pickled `.pt`, `.pth`, `.bin` or `.ckpt`, which is read with `weights_only=True`.
        strip_prefix: Taken off the names in the file (`"module."`). Names without it are left out: a checkpoint of
            Lightning holds what else the module has (a loss with weights, a teacher) beside `net.`.

    Returns:
        Notes for the user: what was unwrapped, left out, merged or cast.

    Raises:
        InputError: the file cannot be read, or it does not fit the model.
    """
    file = read_weights(path)
    return file.notes + load_weights_(model, file.tensors, source=path.name, strip_prefix=strip_prefix)


def load_weights_(
    model: nn.Module, weights: Mapping[str, Any], *, source: str = "the state_dict", strip_prefix: str = ""
) -> tuple[str, ...]:
    """As `load_checkpoint_`, from tensors by name. `source` is what errors call them."""
    expected = model.state_dict(keep_vars=True)
    notes = []
    named = {name: value for name, value in weights.items() if name.startswith(strip_prefix)} or weights
    if others := [name for name in weights if name not in named]:
        notes.append(f"{source}: {_count(others, 'name')} not under {strip_prefix!r} left out: {_listed(others)}")
    merged = merge_state_dict(named, strip_prefix=strip_prefix, keep=expected)
    if coats := [name for name in merged if f"{strip_prefix}{name}" not in weights]:
        notes.append(f"{source}: {len(coats)} masked or normalised weights were merged into plain ones")

    _refuse_other_shapes(source, merged, expected)
    _refuse_torn_ties(source, merged, expected)
    keys = model.load_state_dict(merged, strict=False)
    missing = _not_tied(keys.missing_keys, expected, merged)
    if missing or keys.unexpected_keys:
        raise _misfit(source, *_names(missing, keys.unexpected_keys, expected, merged))

    pairs = [(merged[name].dtype, expected[name].dtype) for name in merged if isinstance(merged[name], Tensor)]
    for (old, new), count in Counter(pair for pair in pairs if pair[0] != pair[1]).items():
        notes.append(f"{source}: {count} tensors were cast from {old} to the model's {new}")
    return tuple(notes)


def check_fit(source: str, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Hold the names and shapes of plain weights (on the meta device, say) against those of a model's state.

    Raises:
        InputError: A shape is another; or names are missing, or are not the model's.
    """
    _refuse_other_shapes(source, weights, expected)
    missing = _not_tied([name for name in expected if name not in weights], expected, weights)
    extra = [name for name in weights if name not in expected]
    if missing or extra:
        raise _misfit(source, *_names(missing, extra, expected, weights))


def _refuse_other_shapes(source: str, merged: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    if odd := _other_shapes(merged, expected):
        raise _misfit(source, [f"{_count(odd, 'other shape')}: {_listed(odd)}"], "build the model in the same size")


def _other_shapes(merged: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    odd = []
    for name in merged.keys() & expected.keys():
        theirs, ours = merged[name], expected[name]
        if isinstance(ours, Tensor) and not isinstance(theirs, Tensor):
            odd.append(f"{name} is a {type(theirs).__name__}, {list(ours.shape)} in the model")
        elif isinstance(ours, Tensor) and theirs.shape != ours.shape:
            odd.append(f"{name} is {list(theirs.shape)}, {list(ours.shape)} in the model")
    return sorted(odd)


def _refuse_torn_ties(source: str, merged: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """One parameter under two names cannot take two values: load_state_dict would keep the last one, silently."""
    first: dict[int, str] = {}
    for name, tensor in expected.items():
        if name not in merged or not isinstance(tensor, Tensor):
            continue
        other = first.setdefault(id(tensor), name)
        if not torch.equal(merged[other], merged[name]):
            raise InputError(
                f"{other!r} and {name!r} are one shared parameter of the model, but differ in {source}",
                "untie them in the model, or make them equal in the file",
            )


def _not_tied(missing: list[str], expected: Mapping[str, Any], merged: Mapping[str, Any]) -> list[str]:
    """The missing names whose tensor did not arrive under another name either."""
    arrived = {id(expected[name]) for name in merged if name in expected}
    return [name for name in missing if id(expected.get(name)) not in arrived]


def _names(
    missing: list[str], extra: list[str], expected: Mapping[str, Any], merged: Mapping[str, Any]
) -> tuple[list[str], str]:
    """What to say about names that are missing or too many, and the way out."""
    lines = []
    if missing:
        lines.append(f"{_count(missing, 'name')} missing: {_listed([_near(name, extra) for name in missing])}")
    if extra:
        lines.append(f"{_count(extra, 'name')} not in the model: {_listed([_near(name, missing) for name in extra])}")
    if prefix := prefix_of(merged, expected) or _prefix_inside(merged, expected):
        return lines, f"strip the prefix {prefix!r} from the names (--strip-prefix {prefix})"
    return lines, "build the very model that the weights were saved from"


def prefix_of(merged: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """What all names in the file start with and no name in the model needs, or nothing."""
    first = next(iter(merged), "")
    parts = first.split(".")
    for length in range(1, len(parts)):
        prefix = ".".join(parts[:length]) + "."
        if all(name.startswith(prefix) and name[len(prefix) :] in expected for name in merged):
            return prefix
    return ""


def _prefix_inside(merged: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """What stands before all names of the model in a file that holds others beside them, or nothing."""
    first = next(iter(expected), "")
    found = (name.removesuffix(first) for name in merged if name.endswith(f".{first}"))
    return next((prefix for prefix in found if all(f"{prefix}{name}" in merged for name in expected)), "")


def _near(name: str, others: list[str]) -> str:
    near = difflib.get_close_matches(name, others, n=1)
    return f"{name} (near: {near[0]})" if near else name


def _count(names: list[str], what: str) -> str:
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _misfit(source: str, lines: list[str], way_out: str) -> InputError:
    return InputError("\n  ".join([f"{source} does not fit the model:", *lines]), way_out)
