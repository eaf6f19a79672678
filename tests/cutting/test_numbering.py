from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from surgery.cutting.numbering import renumberings


def layers(count: int, kinds: list[str] | None = None, *, around: bool = False) -> nn.Module:
    """A row of layers whose attention knows its place in a cache."""
    row = []
    for index in range(count):
        layer: Any = nn.Module()
        layer.attention = nn.Linear(2, 2)
        layer.attention.layer_idx = index
        layer.attention.config = SimpleNamespace(layer_types=kinds)
        layer.mlp = nn.Linear(2, 2)
        if around:
            layer.layer_idx = index
        row.append(layer)
    model: Any = nn.Module()
    model.layers = nn.ModuleList(row)
    return nn.Sequential(model)


def test_layers_move_up() -> None:
    for around in (False, True):
        edits, refused = renumberings(layers(4, around=around), ["0.layers.0", "0.layers.2"])
        assert refused == ()
        assert [(edit.module, edit.old, edit.new) for edit in edits] == [
            ("0.layers.1.attention", 1, 0),
            ("0.layers.3.attention", 3, 1),
        ]


def test_attention_alone_leaves_its_place_too() -> None:
    edits, _ = renumberings(layers(3), ["0.layers.1.attention"])
    assert [(edit.module, edit.new) for edit in edits] == [("0.layers.2.attention", 1)]
    assert renumberings(layers(3), ["0.layers.1.mlp"]) == ((), ())
    assert renumberings(layers(3), ["0.layers.2"]) == ((), ())


@pytest.mark.parametrize(
    ("gone", "moved", "refused"),
    [
        (["0.layers.0"], 0, ("0.layers.0",)),  # the cache asks place 0
        (["0.layers.1"], 0, ("0.layers.1",)),  # the first with all keys and values
        (["0.layers.2"], 0, ()),
        (["0.layers.0", "0.layers.1"], 2, ()),  # the others come to places of their own kind
        (["0.layers.3"], 0, ()),
    ],
)
def test_places_of_two_kinds(gone: list[str], moved: int, refused: tuple[str, ...]) -> None:
    edits, found = renumberings(layers(4, ["window", "all", "window", "all"]), gone)
    assert len(edits) == moved
    assert found == refused


def test_a_number_that_is_no_place_in_a_row() -> None:
    model: Any = layers(3)
    for index, layer in enumerate(model[0].layers):
        layer.attention.layer_idx = index + 5
    assert renumberings(model, ["0.layers.0"]) == ((), ())
