from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from surgery.batches import batches, first
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
        (({"left": X}, Y), ONE, Y),
        ((X, Y), NAMED, Y),
        ((X.double().numpy(), Y.numpy()), ONE, Y),
        ((X, X, {"y": Y}, Y), BOTH, ({"y": Y}, Y)),
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


def test_a_large_tensor_is_fed_in_chunks_and_a_large_batch_as_it_is() -> None:
    rows, labels = torch.randn(70, 6), torch.arange(70)
    assert [batch.size for batch in batches(rows, MODEL, ONE)] == [32, 32, 6]
    found = list(batches({"left": rows, "label": labels}, MODEL, ONE))
    assert [len(batch.targets["label"]) for batch in found] == [32, 32, 6]
    torch.testing.assert_close(torch.cat([batch.targets["left"] for batch in found]), rows)
    assert [batch.size for batch in batches([rows], MODEL, ONE)] == [70]


def test_a_function_is_called_whenever_the_data_is_read() -> None:
    def factory() -> Iterator[Tensor]:
        yield from X.split(2)

    for _ in range(2):
        assert [batch.size for batch in batches(factory, MODEL, ONE)] == [2, 2]
    assert [batch.size for batch in batches(lambda: torch.randn(40, 6), MODEL, ONE)] == [32, 8]


def test_labels_reach_a_forward_that_takes_them() -> None:
    class Scored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
            out = self.layer(x)
            return out if labels is None else nn.functional.cross_entropy(out, labels)

    model = Scored()
    batch = next(batches([{"x": X, "labels": Y % 3, "id": Y}], model, Inputs.of(X)))
    torch.testing.assert_close(batch.run(model), model(X, Y % 3))
    assert set(batch.inputs.kwargs) == {"x"} or not batch.inputs.kwargs
    assert batch.notes == tuple(f"{name!r} of the data's items was not used" for name in ("labels", "id"))


def test_no_more_is_read_than_is_taken() -> None:
    def endless() -> Iterator[Tensor]:
        while True:
            yield X

    assert [batch.size for batch in first(batches(endless(), MODEL, ONE), 10)] == [4, 4, 2]
    read = []

    def counted() -> Iterator[Tensor]:
        for batch in endless():
            read.append(batch)
            yield batch

    assert [batch.size for batch in first(batches(counted(), MODEL, ONE), 8)] == [4, 4]
    assert len(read) == 2
    with pytest.raises(InputError, match="samples is 0"):
        list(first(batches(X, MODEL, ONE), 0))


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


def unmade() -> Any:
    raise OSError("no such file")


@pytest.mark.parametrize(
    ("data", "example", "message"),
    [
        ([], ONE, "the data is empty\n  -> pass at least one batch"),
        ("loader", ONE, "the data is a str\n  -> pass a DataLoader"),
        (3, ONE, "the data is a int"),
        (torch.tensor(3.0), ONE, "the data is a single number"),
        (broken(), ONE, "the data raised OSError: the disk is gone at item 1"),
        (unmade, ONE, "the function that is to return the data raised OSError: no such file"),
        (lambda: 3, ONE, "the data is a int"),
        ([X[:0]], ONE, "item 0 of the data: left is empty ([0, 6])"),
        ([{"image": X}], ONE, "item 0 of the data has no 'left' (it has image)"),
        (
            [X],
            BOTH,
            "item 0 of the data (Tensor) gives 1 tensors, the model takes 2\n  -> give left, right",
        ),
        ([(X,)], BOTH, "item 0 of the data (tuple) gives 1 tensors, the model takes 2"),
        ([(3, 4)], ONE, "item 0 of the data (tuple) gives 0 tensors, the model takes 1"),
        (list(X), ONE, "item 0 of the data: left has shape [6], the example [4, 6]\n  -> the batch dim is missing"),
        ([(X, Y)], BOTH, "item 0 of the data: right has shape [4], the example [4, 6]"),
        ([X.long()], ONE, "item 0 of the data: left is torch.int64, the example torch.float32"),
        ([X / 0], ONE, "item 0 of the data: left holds infinity"),
        ([X * float("nan")], ONE, "item 0 of the data: left holds NaN"),
    ],
)
def test_what_is_no_batch_is_told(data: Any, example: Inputs, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        list(batches(data, MODEL, example))


def test_a_batch_of_another_shape_is_told_with_its_shape() -> None:
    batch = next(batches([torch.randn(4, 5)], MODEL, ONE))
    with pytest.raises(InputError, match=re.escape("Two fails on item 0 of the data ([4, 5]): RuntimeError: ")):
        batch.run(MODEL)
