"""The places of layers in a cache of keys and values, counted anew where layers are gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from surgery.deciding.parts import Edit

PLACE = "layer_idx"
"""The attribute by which the attention of models of transformers finds its keys and values in a cache."""


def renumberings(model: nn.Module, gone: Sequence[str]) -> tuple[tuple[Edit, ...], tuple[str, ...]]:
    """`(new places in a cache, modules that cannot go)`, where some layers of a row would not fill theirs any more.

    How long the cache is, transformers asks the place 0, or the first of its kind (some keep a window only); a place
    that nobody fills would tell it that it is empty. So layers move up, where all are of one kind; else all keep their
    places, and the first of each kind cannot go.

    Args:
        model: With all its layers.
        gone: The paths of modules that go.
    """
    edits: list[Edit] = []
    refused: list[str] = []
    for places in _rows(model):
        left = {place: [path for path in paths if not _inside(path, gone)] for place, paths in places.items()}
        new = {place: number for number, place in enumerate(sorted(place for place, paths in left.items() if paths))}
        moved = [(path, place) for place, paths in sorted(left.items()) for path in paths if new[place] != place]
        if all(_kind(part := model.get_submodule(path), place) == _kind(part, new[place]) for path, place in moved):
            edits += [Edit(path, PLACE, place, new[place]) for path, place in moved]
        else:
            kinds = {place: _kind(model.get_submodule(paths[0]), place) for place, paths in places.items()}
            first = {min(place for place in kinds if kinds[place] == kind) for kind in set(kinds.values())} | {0}
            emptied = [path for place in first if not left[place] for path in places[place]]
            refused += [one for one in gone if any(_inside(path, [one]) for path in emptied)]
    return tuple(edits), tuple(dict.fromkeys(refused))


def _rows(model: nn.Module) -> list[dict[int, list[str]]]:
    """Rows of layers: the modules in them that have a place in a cache, by place, from 0 on without a gap."""
    candidates: dict[str, list[str]] = {}
    rows: dict[str, dict[int, list[str]]] = {}
    for path, module in model.named_modules():
        place = getattr(module, PLACE, None)
        if type(place) is not int or any(hasattr(part, PLACE) for part in module.modules() if part is not module):
            continue
        parts = path.split(".")
        candidates[path] = [".".join(parts[:index]) for index, part in enumerate(parts) if part == str(place)]
        for row in candidates[path]:
            rows.setdefault(row, {}).setdefault(place, []).append(path)
    chosen: dict[str, dict[int, list[str]]] = {}
    for path, found in candidates.items():
        if found:  # of "model.0.layers.0" the row with the most places
            row = max(found, key=lambda row: len(rows[row]))
            chosen.setdefault(row, {}).setdefault(getattr(model.get_submodule(path), PLACE), []).append(path)
    return [places for places in chosen.values() if sorted(places) == list(range(len(places)))]


def _inside(path: str, gone: Sequence[str]) -> bool:
    return any(path == one or path.startswith(f"{one}.") for one in gone)


def _kind(module: nn.Module, place: int) -> Any:
    """Of what kind a place of a cache is."""
    kinds: Any = getattr(getattr(module, "config", None), "layer_types", None)
    return kinds[place] if kinds and place < len(kinds) else None
