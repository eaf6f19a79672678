"""Data that can be iterated once, and is read twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from surgery.errors import InputError
from surgery.iterating import items, kept, length_of


def once(read: list[int], count: int = 6, rows: int = 4) -> Iterator[Any]:
    for number in range(count):
        read.append(number)
        yield torch.full((rows, 2), float(number)), torch.zeros(rows)


def numbers(found: Any) -> list[float]:
    return [float(item[0][0, 0]) for item in found]


def test_the_first_samples_of_a_generator_can_be_read_again() -> None:
    read: list[int] = []
    data = kept(once(read), 10)
    assert numbers(items(data)) == [0, 1, 2, 3, 4, 5]
    assert numbers(items(data)) == [0, 1, 2], "three batches of four hold the ten samples"
    assert read == [0, 1, 2, 3, 4, 5]


def test_what_was_not_read_yet_follows_what_was_kept() -> None:
    read: list[int] = []
    data = kept(once(read), 24)
    for _ in zip(range(2), items(data), strict=False):
        pass
    assert numbers(items(data)) == [0, 1, 2, 3, 4, 5]
    assert read == [0, 1, 2, 3, 4, 5]


def test_items_whose_tensors_share_no_dim_0_count_as_one_sample_each() -> None:
    uneven = [(torch.full((4, 2), float(n)), torch.zeros(n + 5)) for n in range(6)]
    data = kept(iter(uneven), 3)
    assert len(list(items(data))) == 6
    assert numbers(items(data)) == [0, 1, 2]


def test_one_tensor_and_a_function_are_what_they_were() -> None:
    tensor = torch.zeros(3, 2)
    assert kept(tensor, 5) is tensor
    assert kept(once, 5) is once


def test_what_is_no_data_is_refused_before_it_is_read() -> None:
    for wrong in (3, "loader", b"rows", torch.tensor(1.0)):
        with pytest.raises(InputError, match="the data is a"):
            kept(wrong, 5)


def test_lengths() -> None:
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(10, 2)), batch_size=4)
    assert length_of(loader) == length_of(kept(loader, 4)) == 3
    found: list[Tensor] = list(items(loader))
    assert [len(item[0]) for item in found] == [4, 4, 2]
    for endless in (once([]), once, torch.zeros(5, 2), kept(once([]), 2)):
        assert length_of(endless) is None
