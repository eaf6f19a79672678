from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surgery.batches import batches
from surgery.errors import InputError
from surgery.inputs import Inputs

X = torch.randn(4, 6)
Y = torch.arange(4)


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, left: Tensor, right: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
        out: Tensor = self.layer(left) * scale
        return out if right is None else out + self.layer(right)


MODEL = Two()
ONE, BOTH, NAMED = Inputs.of(X), Inputs.of((X, X)), Inputs.of((), {"left": X, "scale": 2.0})


@pytest.mark.parametrize(
    ("item", "example", "targets"),
    [
        (X, ONE, X),
        ((X, Y), ONE, Y),
        ([X, Y], ONE, Y),
        ((X, Y, Y), ONE, (Y, Y)),
        ((X, X, Y), BOTH, Y),
        ({"left": X, "label": Y}, ONE, {"left": X, "label": Y}),
        (({"left": X}, Y), NAMED, Y),
    ],
)
def test_every_kind_of_batch_becomes_a_call_and_its_targets(item: Any, example: Inputs, targets: Any) -> None:
    batch = next(batches([item], MODEL, example))
    torch.testing.assert_close(batch.targets, targets)
    assert batch.size == 4
    expected = MODEL(X, X if example is BOTH else None, scale=2.0 if example is NAMED else 1.0)
    torch.testing.assert_close(batch.run(MODEL), expected)


def test_settings_of_the_example_come_along_with_every_batch() -> None:
    batch = next(batches([{"left": X}], MODEL, Inputs.of((X,), {"scale": 3.0})))
    torch.testing.assert_close(batch.run(MODEL), MODEL(X) * 3)


def test_a_tensor_alone_is_one_batch_and_a_generator_will_do() -> None:
    assert [batch.size for batch in batches(X, MODEL, ONE)] == [4]

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        yield X[:3], Y[:3]
        yield X[3:], Y[3:]

    assert [batch.size for batch in batches(stream(), MODEL, ONE)] == [3, 1]


def test_samples_are_rows_of_inputs_and_targets_alike() -> None:
    batch = next(batches([(X, {"y": Y, "all": torch.ones(2)})], MODEL, ONE))
    samples = list(batch.samples())
    assert [sample.targets["y"].tolist() for sample in samples] == [[0], [1], [2], [3]]
    torch.testing.assert_close(torch.cat([sample.inputs.args[0] for sample in samples]), X)
    assert all(sample.targets["all"].shape == (2,) for sample in samples)
    uneven = next(batches([(X, torch.randn(1, 6), Y)], MODEL, BOTH))
    assert len(list(uneven.samples())) == 1


def broken() -> Iterator[Tensor]:
    yield X
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("data", "example", "message"),
    [
        ([], ONE, "the data is empty\n  -> pass at least one batch"),
        ("loader", ONE, "the data is a str\n  -> pass a DataLoader"),
        (3, ONE, "the data is a int"),
        (broken(), ONE, "the data raised OSError: the disk is gone at item 1"),
        ([X[:0]], ONE, "item 0 of the data is empty"),
        ([{"image": X}], ONE, "item 0 of the data has image; forward takes left, right, scale"),
        ([X], BOTH, "item 0 of the data is a Tensor"),
        ([(X,)], BOTH, "item 0 of the data is a tuple of 1, the model takes 2 positional inputs"),
        ([(X, Y)], NAMED, "item 0 of the data is a tuple of 2, the model takes its inputs by name (left, scale)"),
        ([(3, 4)], ONE, "item 0 of the data (tuple) holds no tensor for the model"),
    ],
)
def test_what_is_no_batch_is_told(data: Any, example: Inputs, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        list(batches(data, MODEL, example))


def test_a_batch_of_another_shape_is_told_with_its_shape() -> None:
    batch = next(batches([torch.randn(4, 5)], MODEL, ONE))
    with pytest.raises(InputError, match=re.escape("Two fails on item 0 of the data ([4, 5]): RuntimeError: ")):
        batch.run(MODEL)
