"""Data as people have it, and as it must not be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import surgery
from surgery.compensating import compensate
from surgery.compensating.data import read
from surgery.errors import InputError
from surgery.inputs import Inputs


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, scale: Tensor, verbose: bool = False) -> Tensor:
        return self.down(torch.relu(self.up(x))) * scale


EXAMPLE = Inputs.of((torch.randn(2, 4),), {"scale": torch.ones(2, 1), "verbose": False})
X, SCALE, LABELS = torch.randn(40, 4), torch.ones(40, 1), torch.zeros(40, dtype=torch.int64)


def loader() -> Iterator[Any]:
    yield from zip(X.split(8), SCALE.split(8), LABELS.split(8), strict=True)


@pytest.mark.parametrize(
    "data",
    [
        list(loader()),
        loader(),
        {"x": X, "scale": SCALE},
        [{"x": X.numpy(), "scale": SCALE.double().numpy(), "labels": LABELS}],
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, SCALE, LABELS), batch_size=8),
    ],
    ids=["tuples", "a generator", "a dict", "dicts of arrays", "a DataLoader"],
)
def test_what_people_have(data: Any) -> None:
    found = read(data, Two(), EXAMPLE, 32)
    assert (found.n_fit, found.n_held) == (24, 8)
    together = torch.cat([call.args[0] for call in (*found.fit, *found.held)])
    assert together.dtype == torch.float32
    assert {tuple(row) for row in together.tolist()} == {tuple(row) for row in X[:32].tolist()}
    assert all(set(call.kwargs) == {"scale", "verbose"} for call in found.fit)


def test_samples_along_dim_0_of_one_tensor() -> None:
    example = Inputs.of(torch.randn(2, 4))
    found = read(torch.randn(100, 4), nn.Linear(4, 2), example, 512)
    assert (found.n_fit, found.n_held) == (75, 25)
    found = read(np.random.default_rng(0).normal(size=(3, 4)), nn.Linear(4, 2), example, 512)
    assert (found.n_fit, found.n_held) == (3, 3)
    assert "too few" in found.notes[-1]


def failing() -> Iterator[Tensor]:
    yield torch.randn(8, 4)
    raise OSError("no such drive")


def nothing() -> Iterator[Tensor]:
    yield from ()


NET = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([], "the data is empty"),
        (nothing(), "the data is empty"),
        (7, "the data is a int"),
        ("batches", "the data is a str"),
        ([torch.randn(4)], "item 0 of the data: input has shape [4], the example [2, 4]"),
        ([torch.randn(8, 4), torch.randn(8, 5)], "the model does not accept an item of the data ([2, 5])"),
        ([torch.randint(0, 5, (8, 4))], "item 0 of the data: input is torch.int64, the example torch.float32"),
        ([torch.full((8, 4), float("nan"))], "item 0 of the data: input holds NaN"),
        ([torch.full((8, 4), float("inf"))], "item 0 of the data: input holds infinity"),
        ([torch.zeros(0, 4)], "item 0 of the data: input is empty ([0, 4])"),
        ([(1, 2)], "item 0 of the data (tuple) gives 0 tensors, the model takes 1"),
        ([{"image": torch.randn(8, 4)}], "item 0 of the data has no 'input' (it has image)"),
        (failing(), "the data raised OSError: no such drive at item 1"),
        (torch.tensor(3.0), "the data is a single number"),
    ],
)
def test_one_clear_error(data: Any, told: str) -> None:
    plan = surgery.choose(NET, torch.randn(2, 4))
    with pytest.raises(InputError) as raised:
        compensate(NET, plan, torch.randn(2, 4), data=data)
    assert told in raised.value.fact
    assert raised.value.way_out


def test_activations_that_are_not_finite_are_told_with_their_place() -> None:
    class Overflows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(torch.exp(self.up(x))).nan_to_num(1, 1, 1)

    model = Overflows().eval()
    plan = surgery.choose(model, torch.randn(2, 4))
    with pytest.raises(InputError, match=r"what arrives at down on the data is NaN or infinite"):
        compensate(model, plan, torch.randn(2, 4), data=1e5 * torch.randn(40, 4))
