from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from surgery.errors import InputError
from surgery.exporting.flat import FlatModel
from surgery.exporting.shapes import flat_shapes
from surgery.exporting.state import KeptState
from surgery.inputs import Inputs
from tests.exporting.models import Counter, Nested, Scaled

X = torch.randn(2, 4)


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Many(nn.Module):
    def forward(self, *tensors: Tensor, lambda_: Tensor | None = None) -> Tensor:
        return sum(tensors) if lambda_ is None else lambda_


def test_inputs_are_named_after_the_arguments() -> None:
    assert FlatModel(Scaled(), Inputs.of(X, {"keep": X, "scale": X})).input_names == ["x", "keep", "scale"]
    assert FlatModel(Nested(), Inputs.of(([X, X], {"k": X}))).input_names == ["pair_0", "pair_1", "by_key_k"]
    assert FlatModel(Many(), Inputs.of((X, X))).input_names == ["tensors_0", "tensors_1"]


def test_outputs_are_named_after_keys_and_fields_and_plain_values_are_dropped() -> None:
    flat = FlatModel(nn.Identity(), Inputs.of(X))
    for output, names in [
        (X, ["output"]),
        ((X, 3, [X, None]), ["output_0", "output_2_0"]),
        ({"logits": X, "states": (X, X)}, ["logits", "states.0", "states.1"]),
        (Pair(X, X), ["first", "second"]),
        ({"input": X, "a": X}, ["input_out", "a"]),
    ]:
        flat.learn_outputs_(output)
        assert flat.output_names == names
        assert flat.left_out == []


def test_objects_of_unknown_inside_are_reported() -> None:
    class Cache: ...

    flat = FlatModel(nn.Identity(), Inputs.of(X))
    flat.learn_outputs_({"logits": X, "past": Cache()})
    assert flat.output_names == ["logits"]
    assert flat.left_out == ["past (Cache)"]


def test_buffers_are_put_back_whether_changed_in_place_or_replaced() -> None:
    model = Counter()
    before = model.n
    with KeptState(model) as state:
        model.n += 5
    assert state.changed == ("n",)
    with KeptState(model) as state:
        model.n = torch.zeros(1)
    assert state.changed == ("n",)
    assert model.n is before
    torch.testing.assert_close(model.n, torch.ones(1))
    with KeptState(model) as state:
        model.n.sum()
    assert state.changed == ()


PATHS = [("pair", 0), ("pair", 1), ("by_key", "k")]


def test_shapes_follow_the_inputs() -> None:
    batch = {0: "batch"}
    by_name = {"pair": [batch, None], "by_key": {"k": ("batch", None)}}
    assert flat_shapes(by_name, PATHS) == [batch, None, batch]
    assert flat_shapes(([batch, None], None), PATHS) == [batch, None, None]
    assert flat_shapes({}, PATHS) == [None, None, None]


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"x": {0: "batch"}}, "dynamic_shapes names 'x', which is no tensor input\n  -> .* pair, by_key"),
        ((None, None, None), "dynamic_shapes has 3 entries, but the model takes 2 tensor arguments"),
        ("batch", r"dynamic_shapes is a str\n  -> pass e.g. \{\"x\": \{0: \"batch\"\}\}"),
        ({"pair": "batch"}, "dynamic_shapes does not fit the input pair.0"),
        ({"by_key": {"k": "batch"}}, "dynamic_shapes does not fit the input by_key.k"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        flat_shapes(shapes, PATHS)
